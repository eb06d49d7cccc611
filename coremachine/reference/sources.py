"""The project's own source, as the generators of pages read it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SqlFunction:
    """A function of the database as its file defines it; `comment` is the text above it."""

    name: str
    arguments: str
    returns: str
    comment: str
    file: str


def sql_files() -> list[Path]:
    return sorted((ROOT / "sql" / "functions").glob("*.sql"))


def sql_functions() -> list[SqlFunction]:
    """All functions of `sql/functions`, by file and then in the file's order."""
    return [function for path in sql_files() for function in functions_of(path.read_text(encoding="utf-8"), path.name)]


_CREATE = re.compile(r"((?:^--[^\n]*\n)*)^create or replace function \{schema\}\.(\w+)\s*\(", re.MULTILINE)
_END_OF_HEADER = re.compile(r"\s*returns (.*?)\s*\blanguage\b", re.DOTALL)


def functions_of(text: str, file: str) -> Iterator[SqlFunction]:
    """The functions that one file defines."""
    for found in _CREATE.finditer(text):
        inside = within_parentheses(text, found.end() - 1)
        rest = _END_OF_HEADER.match(text, found.end() + len(inside) + 1)
        returns = "" if rest is None else rest[1]
        comment = " ".join(line.removeprefix("--").strip() for line in found[1].splitlines())
        yield SqlFunction(found[2], _one_line(inside), _one_line(returns), comment, file)


def within_parentheses(text: str, start: int) -> str:
    """The text between the parenthesis at `start` and the one that closes it; quoted text and comments count not."""
    depth = 0
    for found in re.compile(r"'(?:[^']|'')*'|--[^\n]*|[()]").finditer(text, start):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth == 0:
            return text[start + 1 : found.start()]
    raise ValueError(f"expected a closing parenthesis for {text[start : start + 60]!r}, found none")


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", text)).strip()
