"""How `--help` shows the types of options: nothing for flags, a plain word for the rest."""

import inspect
from collections.abc import Iterable
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

_WORDS = {bool: "", int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}


class HelpfulCommand(TyperCommand):
    """A command."""

    # Contexts and formatters are objects of click, which newer releases of typer bring along under another name.
    def format_help(self, ctx: Any, formatter: Any) -> None:
        _name_values(self.get_params(ctx), self.callback)
        super().format_help(ctx, formatter)


class HelpfulGroup(TyperGroup):
    """A group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _name_values(self.get_params(ctx), self.callback)
        super().format_help(ctx, formatter)


def make_helpful(commands: typer.Typer) -> None:
    """Let the commands of a group show their options so."""
    for found in commands.registered_commands:
        found.cls = HelpfulCommand


def _name_values(parameters: Iterable[Any], callback: Any) -> None:
    types = {} if callback is None else get_type_hints(inspect.unwrap(callback))
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            # Its name is there already.
            parameter.display_type_rich = _nothing
            parameter.get_usage_pieces = partial(_usage, parameter)
        elif parameter.metavar is None:
            parameter.metavar = _word(types.get(parameter.name, bool))


def _nothing(ctx: Any) -> None:
    """In the place of a type."""


def _usage(argument: Any, ctx: Any) -> list[str]:
    """In the line that shows how the command is called."""
    del ctx
    name = argument.metavar or argument.name.upper()
    return [f"{name if argument.required else f'[{name}]'}{'' if argument.nargs == 1 else '...'}"]


def _word(annotation: Any) -> str:
    inner = [found for found in get_args(annotation) if found is not NoneType]
    if inner:
        return _word(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(member.value) for member in annotation)
    return _WORDS[annotation]
