"""What somebody else did to the engine's tables: triggers, rules, own triggers disabled, parts dropped, locks left."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class ForeignTrigger:
    """A trigger before each row, or a rule, that may leave out or replace a change without an error.

    Args:
        schema: Of the table.
        function: What a trigger calls, with its schema; None for a rule.
    """

    schema: str
    table: str
    name: str
    function: str | None = None

    @property
    def is_rule(self) -> bool:
        """No rule leaves the engine's statements as they are: with one, the app is not ready."""
        return self.function is None

    @property
    def text(self) -> str:
        if self.is_rule:
            return f"rule {self.name} on {self.schema}.{self.table}"
        return f"trigger {self.name} before each row of {self.schema}.{self.table} (function {self.function})"

    @property
    def advice(self) -> str:
        if self.is_rule:
            return f"run: drop rule {self.name} on {self.schema}.{self.table}"
        return (
            "if it leaves rows out (returns null), make it an after trigger, or run: alter table "
            f"{self.schema}.{self.table} disable trigger {self.name}"
        )


@dataclass(frozen=True)
class DisabledTrigger:
    """A trigger of the engine's own that somebody disabled.

    Args:
        name: None: those of its foreign keys.
    """

    schema: str
    table: str
    name: str | None

    @property
    def text(self) -> str:
        which = f"trigger {self.name}" if self.name else "triggers of foreign keys"
        return f"disabled {which} of {self.schema}.{self.table}"

    @property
    def advice(self) -> str:
        return f"run: alter table {self.schema}.{self.table} enable trigger {self.name or 'all'}"


@dataclass(frozen=True)
class MissingPart:
    """A column or an index of the engine's that somebody dropped or renamed.

    Args:
        remedy: The statement that makes an index again; None for a column, whose values nobody has.
    """

    schema: str
    table: str
    name: str
    remedy: str | None = None

    @property
    def is_column(self) -> bool:
        """No statement works without it: the app is not ready."""
        return self.remedy is None

    @property
    def text(self) -> str:
        return f"no {'column' if self.is_column else 'index'} {self.name} of {self.schema}.{self.table}"

    @property
    def advice(self) -> str:
        if self.remedy is None:
            return f"give column {self.name} of {self.schema}.{self.table} its name again, or restore the database"
        return f"run: {self.remedy}"


@dataclass(frozen=True)
class PreparedTransaction:
    """A transaction that somebody prepared and has not ended. Its locks stay, also when the server starts anew.

    Args:
        tables: Those of the engine that it has locked, or rows of which.
    """

    gid: str
    owner: str
    prepared_at: datetime
    tables: tuple[str, ...]

    @property
    def text(self) -> str:
        since = f"{self.prepared_at:%Y-%m-%d %H:%M:%SZ}"
        return (
            f"prepared transaction {self.gid!r} of {self.owner} since {since}, with locks on {', '.join(self.tables)}"
        )

    @property
    def advice(self) -> str:
        gid = self.gid.replace("'", "''")
        return f"let its coordinator end it, or run: commit prepared '{gid}', or: rollback prepared '{gid}'"


@dataclass(frozen=True)
class ForeignFacts:
    """All of it, as one look at the database found it."""

    triggers: tuple[ForeignTrigger, ...] = ()
    disabled: tuple[DisabledTrigger, ...] = ()
    prepared: tuple[PreparedTransaction, ...] = ()
    missing: tuple[MissingPart, ...] = ()

    @property
    def why_not_ready(self) -> str | None:
        """What is wrong with these rules, or which columns are missing, and what to do; None where there is none."""
        if columns := [each for each in self.missing if each.is_column]:
            return f"expected all columns of this release, {_found(columns)}"
        rules = [each for each in self.triggers if each.is_rule]
        return f"expected tables without rules, {_found(rules)}" if rules else None

    @property
    def why_doubtful(self) -> str | None:
        """What these triggers might do or leave undone, which indexes are missing, and what to do; None for nothing."""
        indexes = [each for each in self.missing if not each.is_column]
        return _found([*(each for each in self.triggers if not each.is_rule), *self.disabled, *indexes])

    @property
    def what_is_locked(self) -> str | None:
        """Which prepared transactions may hold the engine up, and what to do; None where there is none."""
        return _found(self.prepared)


NOTHING_FOREIGN = ForeignFacts()


def _found(things: Iterable[ForeignTrigger | DisabledTrigger | PreparedTransaction | MissingPart]) -> str | None:
    listed = list(things)
    names, advice = ", ".join(each.text for each in listed), "; ".join(each.advice for each in listed)
    return f"found {names}; {advice}" if listed else None
