"""Words and patterns that the project does not use, with what to write in their place.

`python -m tests.words` prints where they are in the files that are not clean yet; with paths, in those; with `--list`,
the names of the files that are not clean, which is the content of `files_with_old_words.txt`.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from coremachine.reference.pages import FOLDER, PAGES
from tests.documents import ROOT

NOT_CLEAN_YET = ROOT / "tests" / "files_with_old_words.txt"
_COUNTED = (
    "app|band|batch|call|claim|class|commit|connection|day|file|function|handler|hour|id|image|job|key|line|message|"
    "method|minute|module|name|page|part|person|pixel|process|queue|raster|request|row|run|second|server|session|stage|"
    "statement|step|table|task|test|thread|time|type|value|worker|year"
)
_BETWEEN = "and|at|by|finds|for|has|in|is|of|on|or|to"
# What is refused, and what to write.
WORDS = {
    rf"\b(?:one|a|an) (?!(?:{_BETWEEN})\b)\w+ (?-i:an?) (?:{_COUNTED})\b": "one ... per ...",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\b(?:tells|told)\b": "reports",
    r"\bsays\b": "states, reports, names",
    r"\bso (?:many|few|long|much)\b(?! (?:[a-z]+ )?(?:as|that)\b)": "the number, or: that many",
    r"\bin (?:[\w']+ )?(?:[\w']+ )?hands?\b": "claimed by, locked by, held by",
    r"\bwhat follows\b": "the thing itself",
    r"\bstands\b": "is",
    r"\bwhoever\b": "the caller, a worker, ...",
    r"(?:\A|[.:;|] |\n\n)(?-i:Who) (?![^.]*\?)": "the thing that does it: A repeated request, A reader, ...",
    r"\b(?:a|an|each|every|one|another|any|failed|first|last|next|of) (?:try|tries)\b": "attempt",
    r"\bguardians?\b|\breapers?\b": "janitor",
    r"\back(?:s|ed)?\b": "complete, settle",
    r"\bpublish(?:es|ed)? (?:a|the) messages?\b": "announce",
    r"\bverdicts?\b": "outcome",
    r"\b(?:hand(?:s|ed|ing)?|giv(?:e|es|en|ing)|gave) back\b": "release, postpone, return",
    r"\bmov(?:e|es|ed|ing) on\b": "advance, go on, change",
    r"\btried again\b": "retried",
    r"\bunfinished (?:tasks?|stages?|jobs?)\b": "open",
    r"\b(?:attempts?|interruptions?|retry|retries) (?:is|are|was|were) spent\b": "counted, used",
    r"\b(?:stages?|jobs?) (?:(?:that|has|have) )?(?:is|are|was|were|been) closed\b": "ended",
    r"\bclos(?:e|es|ing) (?:a|the|this|its) (?:stage|job|task)\b": "end",
    r"\b(?:stage|job|task) is (?:over|done)\b": "has ended",
}
# A space of a pattern may be a line's end, and the next line a comment.
_SPACE = r"\s+(?:#:?\s+|--\s+)?"
_REFUSED = [(re.compile(pattern.replace(" ", _SPACE), re.IGNORECASE), better) for pattern, better in WORDS.items()]


def refused_in(text: str) -> list[tuple[int, str, str]]:
    """The refused words of a text: where they begin, the words, and what to write."""
    found = [(one.start(), one[0], better) for pattern, better in _REFUSED for one in pattern.finditer(text)]
    return sorted((begin, words.strip(" .:;|\n"), better) for begin, words, better in found)


@cache
def documents() -> list[Path]:
    """Pages for people. Generated ones are made of the code, where their words are checked."""
    pages = [path for path in sorted((ROOT / "docs").rglob("*.md")) if ".site" not in path.parts]
    generated = {FOLDER / name for name in PAGES}
    written = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    return [*written, *(page for page in pages if page not in generated)]


@cache
def sources() -> list[Path]:
    """Code whose comments, docstrings and texts people read."""
    folders = ("core", "coremachine", "infrastructure", "jobs", "triggers")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*files, ROOT / "function_app.py", *sorted((ROOT / "sql" / "functions").glob("*.sql"))]


def findings(path: Path) -> list[str]:
    """Refused words in a file, with the line and what to write."""
    texts = {".py": _python_texts, ".sql": _sql_texts, ".md": _page_texts}[path.suffix]
    name = path.relative_to(ROOT)
    return [
        f"{name}:{line + text.count(chr(10), 0, begin)}: {' '.join(words.split())!r}: write {better}"
        for line, text in texts(path.read_text(encoding="utf-8"))
        for begin, words, better in refused_in(text)
    ]


def _page_texts(text: str) -> Iterator[tuple[int, str]]:
    """The page without code. What a glossary names as not to be used is no use of it."""
    text = re.sub(r"(?ms)^ *(```+).*?^ *\1 *$", lambda block: "\n" * block[0].count("\n"), text)
    text = re.sub(r"\bNot:\s[^.]*\.", lambda words: "\n" * words[0].count("\n"), text)
    yield 1, _without_code(text)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "code", text)


def _python_texts(text: str) -> Iterator[tuple[int, str]]:
    """Docstrings and other texts of more than one word, and runs of comment lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, _without_code(node.value)
    for comment in re.finditer(r"(?m)(?:^[ \t]*# [^\n]*\n)+|\s# [^\n]*", text):
        yield text.count("\n", 0, comment.start()) + 1, _without_code(comment[0])


def _sql_texts(text: str) -> Iterator[tuple[int, str]]:
    """Runs of comment lines, and texts of more than one word."""
    for found in re.finditer(r"--[^\n]*|'[^'\n]* [^'\n]*'", text):
        if found[0].startswith("'"):
            yield text.count("\n", 0, found.start()) + 1, _without_code(found[0])
    for comment in re.finditer(r"(?m)(?:^[ \t]*--[^\n]*\n)+|--[^\n]*", text):
        yield text.count("\n", 0, comment.start()) + 1, _without_code(comment[0])


def not_clean_yet() -> list[str]:
    return NOT_CLEAN_YET.read_text(encoding="utf-8").split()


def not_clean_now() -> list[str]:
    """The files with refused words, by name."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (*documents(), *sources()) if findings(path))


if __name__ == "__main__":
    asked = [ROOT / name for name in sys.argv[1:] or not_clean_yet()]
    lines = not_clean_now() if sys.argv[1:] == ["--list"] else [line for path in asked for line in findings(path)]
    sys.stdout.writelines(f"{line}\n" for line in lines)
