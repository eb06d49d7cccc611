"""A command is imported when it is called; until then a line says what it does."""

import inspect
import subprocess
import sys

import pytest

from coremachine.cli.commands import GROUPS
from coremachine.cli.main import find_command, find_whole_command, main


def test_what_is_said_of_a_command_is_the_first_line_of_its_own_help():
    said = {name: summary for commands in GROUPS.values() for name, (_, summary) in commands.items()}
    whole = find_whole_command().commands
    assert said == {name: inspect.cleandoc(each.help).partition("\n")[0] for name, each in whole.items()}


def test_a_command_is_in_the_group_that_it_is_listed_in():
    listed = {name: each.rich_help_panel for name, each in find_command().commands.items()}
    assert listed == {name: each.rich_help_panel for name, each in find_whole_command().commands.items()}
    assert listed["submit"] == "Jobs"


def test_help_imports_no_command():
    slow = ["httpx", "pydantic", "core.models", "coremachine.cli.jobs", "coremachine.cli.client"]
    script = (
        "import sys; from coremachine.cli.main import main; code = main(['--help']); "
        f"print([code, *(name for name in {slow} if name in sys.modules)], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "Write a project of your own" in done.stdout
    assert done.stderr.strip() == "[0]"


def test_a_command_that_is_mistyped_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["submitt"]) == 2
    assert "submit" in capsys.readouterr().err
