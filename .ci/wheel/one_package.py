"""The checkout's packages as one: `core`, `jobs` and the others below `coremachine`, their names rewritten to fit.

A checkout has folders of short names. Installed, these would meet the folders of other people's projects, so a wheel
has `coremachine` alone at the top. Sources are parsed, and only three things change in them, each in its line: the
module of an import, a text that names a module of the project, and the package of a resource look-up.
"""

import ast
import io
import re
import shutil
import tokenize
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

TOP = "coremachine"
MOVED = ("core", "infrastructure", "jobs", "sql", "triggers")
# Writes the documents of the checkout, from the checkout.
LEFT_OUT = ("coremachine/reference",)
# Folders without Python, by their place in the wheel.
DATA = {"infra": f"{TOP}/scaffold/infra"}
OTHER_FILES = ("pyproject.toml", "README.md", "LICENSE")

_ROOTS = "|".join(MOVED)
# Not within a path, an address, or a longer name.
_DOTTED = re.compile(rf"(?<![\w.:/\-])(?:{_ROOTS})(?:\.[A-Za-z_]\w*)+")
_COMPUTED = re.compile(rf"(?<![\w.:/\-])(?:{_ROOTS})\.[{{%]")
_TEXTS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


class CannotMove(ValueError):
    """A source that would not work below another package, with its place and what to write instead."""


@dataclass(frozen=True, order=True)
class _Change:
    """`old` at a place becomes `new`. Lines count from 1 and columns, in characters, from 0."""

    line: int
    column: int
    old: str
    new: str


def find_modules(root: Path) -> frozenset[str]:
    """The dotted names of all modules and packages that move."""
    files = (path.relative_to(root).with_suffix("") for name in MOVED for path in (root / name).rglob("*.py"))
    return frozenset(".".join(path.parts).removesuffix(".__init__") for path in files)


def rewrite_names(text: str, modules: AbstractSet[str]) -> str:
    """A text with the project's modules under their new names; what only looks like one stays."""

    def moved(found: re.Match[str]) -> str:
        parts = found[0].split(".")
        return f"{TOP}.{found[0]}" if ".".join(parts[:2]) in modules else found[0]

    return _DOTTED.sub(moved, text)


def rewrite_source(source: str, modules: AbstractSet[str], where: str = "<source>") -> str:
    """A module's source for its place below `coremachine`, with the same lines.

    Raises:
        CannotMove: It imports or names a module in a way that cannot be rewritten.
    """
    lines = source.splitlines(keepends=True)
    changes = {*_import_changes(source, lines, where), *_text_changes(source, modules, where)}
    for change in sorted(changes, reverse=True):
        line = lines[change.line - 1]
        end = change.column + len(change.old)
        if line[change.column : end] != change.old:
            raise CannotMove(
                f"{where}:{change.line}: expected {change.old!r} at column {change.column}, found {line!r}"
            )
        lines[change.line - 1] = line[: change.column] + change.new + line[end:]
    return "".join(lines)


def _import_changes(source: str, lines: list[str], where: str) -> Iterator[_Change]:
    for node in ast.walk(ast.parse(source, where)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_moved(alias.name) and alias.asname is None:
                    advice = "write `from ... import ...`, or `import ... as ...`"
                    raise CannotMove(f"{where}:{alias.lineno}: `import {alias.name}` cannot be moved; {advice}")
                if _is_moved(alias.name):
                    column = _column(lines[alias.lineno - 1], alias.col_offset)
                    yield _Change(alias.lineno, column, alias.name, f"{TOP}.{alias.name}")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_moved(node.module):
            start = _column(lines[node.lineno - 1], node.col_offset)
            column = lines[node.lineno - 1].index(str(node.module), start + len("from "))
            yield _Change(node.lineno, column, str(node.module), f"{TOP}.{node.module}")
        elif isinstance(node, ast.Call):
            yield from _look_up_changes(node, lines, where)


def _look_up_changes(call: ast.Call, lines: list[str], where: str) -> Iterator[_Change]:
    """`files("sql")` and `import_module("core")` name a package in a text that may mean anything elsewhere."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    first = call.args[0] if call.args else None
    if name not in {"files", "import_module", "find_spec"} or not isinstance(first, ast.Constant):
        return
    if first.value in MOVED:
        column = _column(lines[first.lineno - 1], first.col_offset)
        text = ast.get_source_segment("".join(lines), first)
        if text != f'"{first.value}"':
            raise CannotMove(f'{where}:{first.lineno}: expected {name}("{first.value}"), found {name}({text})')
        yield _Change(first.lineno, column, text, f'"{TOP}.{first.value}"')


def _text_changes(source: str, modules: AbstractSet[str], where: str) -> Iterator[_Change]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _TEXTS:
            continue
        computed = _COMPUTED.search(token.string)
        if computed:
            raise CannotMove(
                f"{where}:{token.start[0]}: expected the whole name of a module in one text, found one that is "
                f"computed ({computed[0]}...); write it out, or derive it from __name__"
            )
        # A token's first line begins at its column, the others at the beginning of theirs.
        for offset, text in enumerate(token.string.splitlines(keepends=True)):
            new = rewrite_names(text, modules)
            if new != text:
                yield _Change(token.start[0] + offset, 0 if offset else token.start[1], text, new)


def _is_moved(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] in MOVED


def _column(line: str, offset: int) -> int:
    """A column in characters, of one in bytes."""
    return len(line.encode()[:offset].decode())


def stage(root: Path, folder: Path) -> None:
    """Put the project into `folder` as it is built: `coremachine` with everything below it.

    Raises:
        CannotMove: A source cannot be rewritten.
    """
    modules = find_modules(root)
    for name in (TOP, *MOVED):
        target = folder / TOP if name == TOP else folder / TOP / name
        shutil.copytree(root / name, target, dirs_exist_ok=True, ignore=_ignored(root))
    for name, place in DATA.items():
        shutil.copytree(root / name, folder / place)
    for path in sorted(folder.rglob("*.py")):
        _replace(path, lambda text, path=path: rewrite_source(text, modules, str(path.relative_to(folder))))
    for name in OTHER_FILES:
        shutil.copy2(root / name, folder / name)
    _replace(folder / "pyproject.toml", lambda text: rewrite_names(text, modules))


def _ignored(root: Path) -> Callable[[str, list[str]], set[str]]:
    left_out = {root / name for name in LEFT_OUT}

    def ignored(folder: str, names: Iterable[str]) -> set[str]:
        return {name for name in names if name == "__pycache__" or Path(folder) / name in left_out}

    return ignored


def _replace(path: Path, change: Callable[[str], str]) -> None:
    # Bytes: the file keeps its line ends.
    path.write_bytes(change(path.read_bytes().decode("utf-8")).encode("utf-8"))
