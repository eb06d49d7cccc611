"""Whether live data keep the design's invariants: each is a statement in `sql/verify/` whose rows break it."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from psycopg.sql import SQL, Literal

from core.schema.statuses import compose_text
from infrastructure.connections import snapshot
from infrastructure.postgresql import Pool, PostgreSQLRepository

# An invariant that breaks tends to break often; the first rows tell what there is to know.
ROWS_SHOWN = 20


@dataclass(frozen=True)
class Invariant:
    """One file: its name, the sentences above its statement, the statement."""

    name: str
    proves: str
    statement: str


@dataclass(frozen=True)
class Violation:
    """Rows that break one invariant.

    Args:
        rows: The first of them: what names them, and what is wrong.
        is_cut: Whether there are more.
    """

    invariant: str
    proves: str
    rows: tuple[dict[str, Any], ...]
    is_cut: bool


def load_invariants() -> list[Invariant]:
    """All of this release, by name."""
    folder = files("sql").joinpath("verify")
    found = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return [
        _read(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in sorted(found, key=lambda file: file.name)
    ]


def verify(pool: Pool, schema: str = "app") -> list[Violation]:
    """Look at all data in one snapshot, beside whatever runs: nothing is locked or changed. Empty: all invariants hold.

    It reads every task: about a second for 100,000.

    Raises:
        StoreUnavailable: The database cannot be reached.
        RepositoryError: The schema is not of this release.
    """
    return list(_Verifier(pool, schema).violations())


class _Verifier(PostgreSQLRepository):
    def violations(self) -> Iterator[Violation]:
        with self._get_cursor("verify") as cursor, snapshot(cursor.connection):
            for invariant in load_invariants():
                # One row more, to see whether there are more.
                query = SQL("select * from ({}) broken limit {}").format(
                    compose_text(invariant.statement, self._schema),
                    Literal(ROWS_SHOWN + 1),
                )
                rows = cursor.execute(query).fetchall()
                if rows:
                    cut = len(rows) > ROWS_SHOWN
                    yield Violation(invariant.name, invariant.proves, tuple(rows[:ROWS_SHOWN]), cut)


def _read(name: str, text: str) -> Invariant:
    lines = text.strip().splitlines()
    comment = [line for line in lines if line.startswith("--")]
    return Invariant(
        name,
        " ".join(line.removeprefix("--").strip() for line in comment),
        "\n".join(line for line in lines if not line.startswith("--")).strip().removesuffix(";"),
    )
