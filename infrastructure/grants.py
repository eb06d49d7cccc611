"""The rights of an app in the database: to work with the schema's rows, and nothing else."""

from psycopg.sql import SQL, Composed, Identifier

from infrastructure.base import PreconditionFailed
from infrastructure.postgresql import PostgreSQLRepository

# Each may run again. The defaults are for what later migrations of the same owner make.
_GRANTS = (
    "grant usage on schema {schema} to {role}",
    "grant select, insert, update, delete on all tables in schema {schema} to {role}",
    "grant execute on all functions in schema {schema} to {role}",
    "alter default privileges in schema {schema} grant select, insert, update, delete on tables to {role}",
    "alter default privileges in schema {schema} grant execute on functions to {role}",
)


class GrantRepository(PostgreSQLRepository):
    """Roles, and what they may do."""

    def has_role(self, role: str) -> bool:
        return bool(self._execute_query("has_role", SQL("select 1 from pg_roles where rolname = %s"), [role]))

    def make_entra_role(self, role: str) -> bool:
        """Make the role of an identity of Entra ID, unless it is there. On Azure's server, in the database `postgres`.

        Returns:
            Whether it was made.

        Raises:
            PreconditionFailed: The server knows no identities of Entra ID.
        """
        if self.has_role(role):
            return False
        known = SQL("select 1 from pg_proc where proname = 'pgaadauth_create_principal'")
        if not self._execute_query("make_entra_role", known):
            raise PreconditionFailed(
                "grant",
                "expected a server of Azure with Microsoft Entra authentication for --entra, found one without the "
                f"function pgaadauth_create_principal; on Azure turn that on, elsewhere make the role {role!r} "
                "(create role ... login) and leave --entra out",
            )
        made = SQL("select pgaadauth_create_principal(%s, false, false)")
        self._execute_query("make_entra_role", made, [role])
        return True

    def grant_app(self, role: str) -> None:
        """Let a role do what an app does.

        Raises:
            PreconditionFailed: There is no such role, or no such schema.
        """
        if not self.has_role(role):
            raise PreconditionFailed(
                "grant",
                f"expected a role {role!r}, found none; make it, or give --entra if it is an identity of Entra ID",
            )
        if not self._execute_query("grant", SQL("select 1 from pg_namespace where nspname = %s"), [self._schema]):
            raise PreconditionFailed(
                "grant", f"expected a schema {self._schema!r}, found none; run `coremachine db migrate` first"
            )
        for text in _GRANTS:
            self._execute_query("grant", self._filled(text, role))

    def _filled(self, text: str, role: str) -> Composed:
        return SQL(text).format(schema=Identifier(self._schema), role=Identifier(role))
