"""Names and messages of a server steer no terminal: no escape sequences, no markup, no lines of their own."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.emoji import Emoji
from rich.text import Text

from coremachine.cli import render
from coremachine.cli.jobs import say
from coremachine.cli.main import find_whole_command, main
from coremachine.cli.progress import JobProgress, describe_job, render_job
from coremachine.cli.render import SafeConsole, cell, console, error_text, print_json, print_rows

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\nJOB done",
    "a\rJOB",
    "\u202egnp.exe",
    "[red]markup[/red]",
    "[link=http://x]y[/link]",
    "\x08\x08\x7f",
    "\ud800",
]


def job(name: str) -> dict:
    stage = {"stage": 1, "name": name, "status": name, "expected_count": 1, "counts": {"failed": 1}}
    return {
        "job_id": "ab" * 32,
        "job_type": name,
        "status": name,
        "run": 1,
        "stages": [stage],
        "error": {"type": name, "message": name},
        "created_at": None,
    }


def is_tame(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_tables_and_lines_show_a_name_as_it_is_written(capsys, name):
    rows = [{"name": name, "status": name, "job_id": name, "created_at": name, "detail": {"a": name}}]
    print_rows(rows, ["name", "status", "job_id", "created_at", "detail"], empty="none")
    console().print(Text(name))
    console().print(render_job(job(name)))
    console().print(cell("name", name))
    with JobProgress() as progress:
        progress.show(job(name))
    say(name)
    told = capsys.readouterr()
    assert is_tame(told.out)
    assert is_tame(told.err)
    assert "\n" not in describe_job(job(name))
    if name.startswith("["):
        assert name in error_text({"message": name})
        assert name[:5] in told.out


@pytest.mark.parametrize("name", HOSTILE)
def test_colours_stay_and_nothing_else_comes_to_a_terminal(name):
    written = io.StringIO()
    shown = SafeConsole(file=written, force_terminal=True, color_system="standard", width=200)
    shown.print(f"[red]{cell('name', name)}[/red]", Text(name), highlight=False)
    plain = io.StringIO()
    Console(file=plain, force_terminal=True, color_system="standard", width=200).print("[red]x[/red]")
    escape = plain.getvalue()[: plain.getvalue().index("x")]
    text = written.getvalue().replace(escape, "").replace("\x1b[0m", "")
    assert escape in written.getvalue()
    assert is_tame(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_json_is_exact_and_tame(capsys, name):
    print_json({"name": name, name: [name]})
    written = capsys.readouterr().out
    assert is_tame(written)
    assert json.loads(written) == {"name": name, name: [name]}


def test_visible_text_is_left_alone():
    assert render.visible("Grüße, 你好 [x] 100 %") == "Grüße, 你好 [x] 100 %"


# Each is a picture in the markup of rich.
PICTURES = ["data/a.csv:100: bad", "a:100:b", ":warning:[red]x[/]", "12:on:30", ":x:"]


@pytest.mark.parametrize("name", PICTURES)
def test_words_between_colons_stay_words(capsys, name):
    rows = [{"name": name, "status": name, "job_id": name, "detail": {"a": name}}]
    print_rows(rows, ["name", "status", "job_id", "detail"], empty="none")
    print_rows([], ["name"], empty=name)
    render.print_whole({"name": name, name: [{name: name}]})
    render.print_fields({"name": name, "last_change": {"action": name, "actor": name, "reason": name}})
    console().print(render_job(job(name)))
    with JobProgress() as progress:
        progress.show(job(name))
        progress.say(name)
    say(name)
    told = capsys.readouterr()
    assert told.out.count(name) >= 10
    assert told.err.count(name) >= 3
    assert not (set(Emoji.replace(name)) - set(name)) & set(told.out + told.err)


@pytest.mark.parametrize("name", PICTURES)
def test_wrong_word_of_a_command_line_is_shown_as_it_was_written(capsys, name):
    assert main(["list", name]) == 2
    assert f"({name})" in capsys.readouterr().err


def _helps(command: Any) -> list[str]:
    options = [each.help or "" for each in command.params if hasattr(each, "help")]
    below = [text for each in getattr(command, "commands", {}).values() for text in _helps(each)]
    return [command.help or "", *options, *below]


def test_no_help_has_a_picture():
    """Typer shows help on a console of its own."""
    helps = _helps(find_whole_command())
    assert len(helps) > 300
    assert [text for text in helps if Emoji.replace(text) != text] == []


def test_every_console_and_markup_is_made_in_one_place():
    made = re.compile(r"\bConsole\(|from_markup\(|render_markup\(|rich import print|rich\.print")
    files = [*Path("coremachine").rglob("*.py")]
    assert len(files) > 50
    assert {str(file) for file in files if made.search(file.read_text(encoding="utf-8"))} == {
        "coremachine/cli/render.py"
    }
