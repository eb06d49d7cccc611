"""The `coremachine` command, from Typer."""

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from coremachine.cli.errors import Exit
from coremachine.cli.main import find_whole_command
from coremachine.reference.markdown import anchor, code, first_sentence, page, table

_INTRODUCTION = """
Where the standard output is not a terminal, results are JSON. `--help` after each command shows the same text. Times
are shown on this machine's clock, with their zone; JSON has them in UTC.
"""
_EXITS = {
    Exit.OK: "the command did what was asked",
    Exit.FAILED: "the job failed or was cancelled, now or before (then nothing was run)",
    Exit.USAGE: "the command's options or parameters are wrong",
    Exit.NOT_FOUND: "there is no such job, task or message",
    Exit.CONFLICT: "the job's state does not allow it",
    Exit.TIMEOUT: "`--timeout` passed before the job ended; the job goes on",
    Exit.UNREACHABLE: "no server answers",
}
# Of the shell: 128 and the number of the signal.
_CTRL_C = ("`130`", "Ctrl-C during a wait; the job goes on")


def render() -> str:
    commands = dict(find_commands())
    overview = table(
        ["command", "what it does"],
        ([f"[`{name}`](#{anchor(name)})", first_sentence(command.help or "")] for name, command in commands.items()),
    )
    sections = [_section(name, command) for name, command in commands.items()]
    exits = table(["exit code", "meaning"], [*((code(int(value)), _EXITS[value]) for value in Exit), _CTRL_C])
    parts = [_INTRODUCTION, overview, _general(), *sections, "## Exit codes", exits]
    return page("Command line", "the command line's code", *parts)


def _general() -> str:
    """Options before the name of a command: `coremachine --utc list`."""
    root: Any = find_whole_command()
    types = get_type_hints(inspect.unwrap(root.callback))
    rows = [_row(found, types[found.name]) for found in root.params if found.name in types]
    return "## Before a command\n\n" + table(["option", "type", "default", "meaning"], rows)


def find_commands() -> Iterator[tuple[str, Any]]:
    """Each command that does something, by its whole name: `coremachine dead list`."""
    yield from _below("coremachine", find_whole_command())


# Commands and parameters are objects of click, which newer releases of typer bring along under another name.
def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, inner in command.commands.items():
        yield from _below(f"{name} {part}", inner)


def _section(name: str, command: Any) -> str:
    types = get_type_hints(inspect.unwrap(command.callback))
    usage = " ".join([name, *(_argument(found) for found in command.params if _is_argument(found)), "[options]"])
    parts = [f"## {name}", f"```text\n{usage}\n```", inspect.cleandoc(command.help or "")]
    rows = [_row(found, types[found.name]) for found in command.params if not getattr(found, "hidden", False)]
    if rows:
        parts.append(table(["option", "type", "default", "meaning"], rows))
    return "\n\n".join(parts)


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _argument(argument: Any) -> str:
    metavar = argument.metavar or argument.name.upper()
    return metavar if argument.required else f"[{metavar}]"


def _row(parameter: Any, annotation: Any) -> list[str]:
    names = [_argument(parameter)] if _is_argument(parameter) else [*parameter.opts, *parameter.secondary_opts]
    default = getattr(parameter.default, "value", parameter.default)
    shown = code(default) if isinstance(default, str | int | float) and not isinstance(default, bool) else ""
    return [
        ", ".join(map(code, names)),
        _type(annotation),
        "required" if parameter.required else shown,
        parameter.help or "",
    ]


def _type(annotation: Any) -> str:
    """An annotation in a reader's words: `float | None` is a number."""
    inner = [found for found in get_args(annotation) if found is not NoneType]
    if inner:
        return _type(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(code(member.value) for member in annotation)
    return {bool: "flag", int: "integer", float: "number", Path: "path"}.get(annotation, "text")
