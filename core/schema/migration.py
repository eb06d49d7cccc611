"""Migrations: numbered files in `sql/migrations/`, forward only, additive, never edited once published."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from psycopg.sql import SQL, Composed, Identifier

FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.sql")


@dataclass(frozen=True)
class Migration:
    """One step of the schema. In its text `{schema}` is the schema's name and `{{`, `}}` for braces."""

    version: int
    name: str
    text: str

    @property
    def label(self) -> str:
        """The file's name without its ending: `0002_task_priority`."""
        return f"{self.version:04d}_{self.name}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the text; line ends do not count, since a checkout may change them."""
        return text_checksum([self.text])

    def compose(self, schema: str) -> Composed:
        return SQL(self.text).format(schema=Identifier(schema))


def load_migrations() -> tuple[Migration, ...]:
    """All migrations of this release, in order.

    Raises:
        ValueError: A file's name is not `0001_words.sql`, or a number is missing or there twice.
    """
    folder = files("sql").joinpath("migrations")
    found = [
        _read(file.name, file.read_text(encoding="utf-8")) for file in folder.iterdir() if file.name.endswith(".sql")
    ]
    return in_order(found)


def in_order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """Sorted by version, which must count 1, 2, 3 without a gap. Raises ValueError."""
    ordered = tuple(sorted(migrations, key=lambda migration: migration.version))
    versions = [migration.version for migration in ordered]
    if versions != list(range(1, len(ordered) + 1)):
        labels = [migration.label for migration in ordered]
        raise ValueError(
            f"migrations: expected one each numbered from 0001 without a gap, found {labels}; renumber them"
        )
    return ordered


def text_checksum(texts: Iterable[str]) -> str:
    """SHA-256 over texts whose line ends are made alike."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update("\n".join(text.splitlines()).encode() + b"\0")
    return digest.hexdigest()


def _read(file_name: str, text: str) -> Migration:
    parts = FILE_NAME.fullmatch(file_name)
    if parts is None:
        raise ValueError(f"sql/migrations/{file_name}: expected a name such as 0002_task_priority.sql; rename it")
    return Migration(int(parts["version"]), parts["name"], text)
