"""Commands about the database's schema; they need the database itself, not a server."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from core.safety.credentials import redact
from coremachine.cli.errors import CliError, Exit, UsageProblem
from coremachine.cli.options import OutputOption, wants_json
from coremachine.cli.render import console, count_text, print_json, print_rows
from coremachine.local.stack_file import find_stack_of

if TYPE_CHECKING:
    from infrastructure.migrations import Migrator
    from infrastructure.postgresql import Pool
    from infrastructure.verify import Violation

db = typer.Typer(
    help="The database: bring its schema up to date, see which migrations it has, check its data, delete old jobs.",
    no_args_is_help=True,
)

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url", help="Default: COREMACHINE_DATABASE_URL, else the database of the stack that runs here."
    ),
]


def check_schema(name: str) -> str:
    """The name itself, if the app's settings take it. Raises typer.BadParameter."""
    from infrastructure.settings import SCHEMA_NAME  # noqa: PLC0415 - as late as the command

    if re.fullmatch(SCHEMA_NAME.removesuffix("$"), name) is None:
        raise typer.BadParameter(f"expected a lower-case PostgreSQL name of at most 63 characters, found {name!r:.200}")
    return name


SchemaOption = Annotated[
    str,
    typer.Option("--schema", envvar="COREMACHINE_SCHEMA", callback=check_schema, help="The schema's name."),
]


class DatabaseProblem(CliError):
    """The database cannot be reached, or is not as it should be."""

    def __init__(self, text: str, exit_code: Exit) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@db.command()
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Print the SQL that would run, and run nothing.")] = False,
    database_url: DatabaseOption = None,
    schema: SchemaOption = "app",
    output: OutputOption = None,
) -> None:
    """Apply what this release has and the database lacks. Any number of processes may do that at once.

    For example: coremachine db migrate --plan > changes.sql
    """
    with open_migrator(database_url, schema) as migrator:
        if plan:
            for statement in migrator.plan():
                sys.stdout.write(statement.as_string(None).rstrip().removesuffix(";") + ";\n\n")
            return
        applied = migrator.migrate()
        refuses_writes = None if applied else migrator.status().refuses_writes
    if refuses_writes is not None:
        raise DatabaseProblem(f"nothing to do, but every write is refused: {refuses_writes}", Exit.CONFLICT)
    if wants_json(output):
        print_json({"applied": list(applied)})
    else:
        console().print(f"applied: {', '.join(applied)}" if applied else "nothing to do", highlight=False)


@db.command()
def status(database_url: DatabaseOption = None, schema: SchemaOption = "app", output: OutputOption = None) -> None:
    """Show which migrations the database has and which it lacks.

    For example: coremachine db status -o json
    """
    with open_migrator(database_url, schema) as migrator:
        found = migrator.status()
    if wants_json(output):
        print_json(
            {
                "database_version": found.database_version,
                "code_version": found.code_version,
                "pending": list(found.pending),
                "functions_current": found.functions_current,
                "is_current": found.is_current,
                "refuses_writes": found.refuses_writes,
                "refused_rules": found.foreign.why_not_ready,
                "doubtful_triggers": found.foreign.why_doubtful,
                "prepared_transactions": found.foreign.what_is_locked,
            }
        )
        return
    show = console()
    show.print(f"database {found.database_version}, this release {found.code_version}", highlight=False)
    if found.is_newer:
        show.print("The database is ahead; this release runs on it.")
    elif found.is_current:
        show.print("[green]up to date[/green]")
    else:
        waiting = [*found.pending, *([] if found.functions_current else ["functions"])]
        show.print(f"[yellow]to be applied:[/yellow] {', '.join(waiting)}; run `coremachine db migrate`")
    if found.refuses_writes is not None:
        show.print(f"[red]every write is refused:[/red] {escape(found.refuses_writes)}", highlight=False)
    if (rules := found.foreign.why_not_ready) is not None:
        show.print(f"[red]jobs would not move:[/red] {escape(rules)}", highlight=False)
    if (triggers := found.foreign.why_doubtful) is not None:
        show.print(f"[yellow]may leave changes or checks out:[/yellow] {escape(triggers)}", highlight=False)
    if (locked := found.foreign.what_is_locked) is not None:
        show.print(f"[yellow]holds locks:[/yellow] {escape(locked)}", highlight=False)


@db.command()
def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="Age since the job's end: 90d, 12h or 30m.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    database_url: DatabaseOption = None,
    schema: SchemaOption = "app",
    output: OutputOption = None,
) -> None:
    """Delete jobs that ended long ago, with their tasks and events. Running jobs are never touched, nor slowed.

    For example: coremachine db prune --older-than 90d --dry-run
    """
    from core.models.upkeep import Pruned  # noqa: PLC0415 - as the next
    from infrastructure.retention import RetentionRepository  # noqa: PLC0415 - psycopg is not for all

    seconds = age_in_seconds("--older-than", older_than)
    with open_pool(database_url) as pool:
        retention = RetentionRepository(pool, schema)
        if dry_run:
            jobs = retention.find_prunable_jobs(seconds, limit=1_000_000)
            found: dict[str, object] = {"would_prune_jobs": len(jobs)}
            if jobs:
                found["oldest"], found["newest"] = (jobs[at].finished_at.isoformat() for at in (0, -1))
        else:
            with console().status("pruning") as told:

                def tell(pruned: Pruned) -> None:
                    told.update(f"pruned {count_text(pruned.jobs, 'job')}, {count_text(pruned.tasks, 'task')}")

                pruned = retention.prune_jobs(seconds, on_progress=tell)
            letters = retention.prune_dead_letters(seconds)
            found = {"pruned_jobs": pruned.jobs, "pruned_tasks": pruned.tasks, "pruned_dead_letters": letters}
    if wants_json(output):
        print_json(found)
    else:
        for name, value in found.items():
            console().print(f"{name.replace('_', ' ')}: {value}", highlight=False)


def age_in_seconds(option: str, text: str) -> float:
    """`90d`, `12h`, `30m` as seconds. Raises UsageProblem."""
    units = {"d": 86_400, "h": 3_600, "m": 60}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not (number.isdecimal() and number.isascii()):
        raise UsageProblem(f"{option}: expected a number and d, h or m, such as 90d, found {text!r:.100}")
    return float(number) * units[unit]


@db.command("verify")
def verify_data(database_url: DatabaseOption = None, schema: SchemaOption = "app", output: OutputOption = None) -> None:
    """Check that the data keep the engine's invariants. Exit code 1 if one is broken.

    Everything is read in one snapshot, beside whatever runs; nothing is locked or changed.

    For example: coremachine db verify -o json
    """
    from infrastructure.verify import load_invariants, verify  # noqa: PLC0415 - psycopg is not for all

    with open_pool(database_url) as pool:
        violations = verify(pool, schema)
    checked = len(load_invariants())
    if wants_json(output):
        print_json({"checked": checked, "violations": [_as_json(violation) for violation in violations]})
    else:
        show = console()
        for violation in violations:
            show.print(f"[red]{violation.invariant}[/red] {escape(violation.proves)}")
            rows = list(violation.rows)
            print_rows([{name: _plain(value) for name, value in row.items()} for row in rows], list(rows[0]), empty="")
            if violation.is_cut:
                show.print("and more")
        colour = "red" if violations else "green"
        show.print(f"[{colour}]{checked - len(violations)} of {checked} invariants hold[/{colour}]", highlight=False)
    if violations:
        raise typer.Exit(Exit.FAILED)


def _as_json(violation: "Violation") -> dict[str, Any]:
    rows = [{name: _plain(value) for name, value in row.items()} for row in violation.rows]
    return {
        "invariant": violation.invariant,
        "proves": violation.proves,
        "rows": rows,
        "is_cut": violation.is_cut,
    }


def _plain(value: object) -> object:
    """As JSON knows it; a job's id in full, since it is what people look for."""
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


@contextmanager
def open_migrator(database_url: str | None, schema: str) -> "Iterator[Migrator]":
    """Raises DatabaseProblem, also for what goes wrong inside."""
    from infrastructure.migrations import Migrator  # noqa: PLC0415 - psycopg is not for all

    with open_pool(database_url) as pool:
        yield Migrator(pool, schema)


@contextmanager
def open_pool(database_url: str | None) -> "Iterator[Pool]":
    """One connection to the database. Raises DatabaseProblem, also for what goes wrong inside."""
    from infrastructure.base import (  # noqa: PLC0415 - psycopg is not for all
        DatabaseUnavailable,
        DatabaseUnsuitable,
        RepositoryError,
    )
    from infrastructure.entra import EntraTokens, TokenUnavailable, default_credential  # noqa: PLC0415
    from infrastructure.postgresql import create_pool  # noqa: PLC0415
    from infrastructure.settings import DatabaseAuth, SettingsError, read_database_identity  # noqa: PLC0415

    url = choose_database(database_url)
    try:
        auth, client_id = read_database_identity(os.environ, url)
    except SettingsError as error:
        raise DatabaseProblem(str(error), Exit.USAGE) from error
    tokens = EntraTokens(partial(default_credential, client_id)) if auth is DatabaseAuth.ENTRA else None
    if tokens is not None:
        # The library's records would say the same once more, on several lines.
        logging.getLogger("azure").addHandler(logging.NullHandler())
    try:
        try_to_connect(url, tokens)
        with create_pool(url, password=tokens, max_size=1) as pool:
            yield pool
    except TokenUnavailable as error:
        raise DatabaseProblem(str(error), Exit.UNREACHABLE) from error
    except DatabaseUnsuitable as error:
        raise DatabaseProblem(str(error), Exit.CONFLICT) from error
    except DatabaseUnavailable as error:
        text = f"{error}\nIt could be reached before; `coremachine db status` shows its present state."
        raise DatabaseProblem(text, Exit.UNREACHABLE) from error
    except RepositoryError as error:
        raise DatabaseProblem(str(error), Exit.CONFLICT) from error


def try_to_connect(url: str, password: "Callable[..., str] | None") -> None:
    """Connect once: a pool would try again for seconds, and log each time.

    Raises:
        DatabaseProblem: With the text of the server or of libpq.
        DatabaseUnsuitable: The engine cannot work on this database.
    """
    import psycopg  # noqa: PLC0415 - psycopg is not for all

    from infrastructure.connections import (  # noqa: PLC0415
        UNREADABLE,
        PreparedConnection,
        connect_with,
        connection_settings,
    )

    try:
        with connect_with(PreparedConnection.connect, url, connection_settings(url), password) as connection:
            connection.prepare(is_pooled=False, needs_transaction=False)
    except (psycopg.ProgrammingError, UnicodeEncodeError) as error:
        # Its own words may repeat the whole string, and a password with it.
        raise DatabaseProblem(f"{UNREADABLE}; see --database-url", Exit.USAGE) from error
    except psycopg.Error as error:
        advice = "See --database-url."
        if password is not None and error.pgconn is not None and error.pgconn.used_password:
            advice = (
                "The server refused the token. The user of the database must be the role of the identity that signs in "
                "(`coremachine db grant ROLE --entra`); COREMACHINE_DATABASE_CLIENT_ID or AZURE_CLIENT_ID chooses it."
            )
        raise DatabaseProblem(f"{redact(str(error))}\n{advice}", Exit.UNREACHABLE) from error


def choose_database(given: str | None) -> str:
    """The option, else COREMACHINE_DATABASE_URL, else the stack of this folder or one above.

    Raises:
        DatabaseProblem: There is none of these.
    """
    url = given or os.environ.get("COREMACHINE_DATABASE_URL")
    if url:
        return url
    stack = find_stack_of(Path.cwd())
    if stack is None:
        raise DatabaseProblem(
            "expected a database, found none: start one with `coremachine up`, set COREMACHINE_DATABASE_URL, "
            "or give --database-url",
            Exit.UNREACHABLE,
        )
    return stack.database_url
