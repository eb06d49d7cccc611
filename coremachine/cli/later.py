"""Commands that are imported when they are called, so that each waits for its own imports alone."""

from functools import cached_property
from importlib import import_module
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand

from core.basics.first_imports import IMPORTS
from coremachine.cli.help_text import HelpfulCommand, HelpfulGroup, make_helpful


class LaterCommand(TyperCommand):
    """Is in the place of a command, or of a group of them, where the others are listed or completed.

    Args:
        place: Its module in this package, and its name there: `jobs:submit`.
        summary: The first line of its help.
        panel: The group of `coremachine --help` that it is in.
    """

    def __init__(self, name: str, place: str, summary: str, panel: str) -> None:
        super().__init__(name, help=summary, rich_help_panel=panel)
        self._name, self._place, self._panel = name, place, panel

    @cached_property
    def loaded(self) -> Any:
        """The command itself."""
        module, _, attribute = self._place.partition(":")
        with IMPORTS:
            found = getattr(import_module(f"{__package__}.{module}"), attribute)
        alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")
        if isinstance(found, typer.Typer):
            make_helpful(found)
            alone.add_typer(found, name=self._name, cls=HelpfulGroup, rich_help_panel=self._panel)
        else:
            alone.command(self._name, cls=HelpfulCommand, rich_help_panel=self._panel)(found)
        return typer.main.get_group(alone).commands[self._name]


class LaterGroup(HelpfulGroup):
    """A group whose commands are `LaterCommand`s."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.loaded if isinstance(command, LaterCommand) else command, rest
