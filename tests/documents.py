"""The project's documents as tests read them: code blocks, commands and names."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# In a comment that the reader does not see, above a block: why no test runs it.
_MARK = re.compile(r"<!-- not run here: (?P<reason>[^\n]+?) -->\s*\Z")
_FENCE = re.compile(
    r"^ *(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *(?P=fence) *$", re.MULTILINE | re.DOTALL
)
# Programs whose commands the tests check, or which every system has.
_PROGRAMS = ("coremachine", "make", "curl", "python", "pytest")


@dataclass(frozen=True)
class Block:
    """One fenced block. `reason` says why no test runs it."""

    path: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line of a document, in words; settings in front of it are left out."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {' '.join(self.words)}"


@cache
def documents() -> list[Path]:
    pages = [path for path in sorted((ROOT / "docs").rglob("*.md")) if ".site" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *pages]


@cache
def blocks() -> list[Block]:
    return [block for path in documents() for block in blocks_of(path, path.read_text(encoding="utf-8"))]


def blocks_of(path: Path, text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        mark = _MARK.search(text, 0, found.start())
        line = text.count("\n", 0, found.start()) + 1
        yield Block(path, line, found["language"], found["text"], mark and mark["reason"])


@cache
def inline_codes() -> list[tuple[str, str]]:
    """Place and text of each piece of code within the text of a document."""
    found = []
    for path in documents():
        text = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), path.read_text(encoding="utf-8"))
        for code in re.finditer(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)", text):
            line = text.count("\n", 0, code.start()) + 1
            found.append((f"{path.relative_to(ROOT)}:{line}", " ".join(code[1].split())))
    return found


@cache
def commands() -> list[Command]:
    """All command lines of the documents: in blocks of the shell, and within the text."""
    found = [
        Command(str(block), words)
        for block in blocks()
        if block.language in {"", "bash", "sh", "console"}
        for words in commands_of(block.text)
    ]
    for place, code in inline_codes():
        found += [Command(place, words) for words in commands_of(code)]
    return found


def commands_of(text: str) -> Iterator[tuple[str, ...]]:
    """The commands of a block. What stands two columns further, or behind a `#`, is no part of them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        command = re.split(r"\s{2,}|\s#", line.strip().removeprefix("$ "), maxsplit=1)[0]
        words = _words(command)
        while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
            words = words[1:]
        if words and words[0] in _PROGRAMS:
            yield words


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError:  # a sentence with an apostrophe, or a piece of JSON
        return ()
