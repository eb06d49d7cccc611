"""Arguments have one form in every help text, usage line and page."""

import re

import pytest

from coremachine.cli.main import main
from coremachine.reference.commands import find_commands


def test_arguments_are_in_capitals_everywhere() -> None:
    found = {
        f"{name} {p.name}": p.metavar
        for name, c in find_commands()
        for p in c.params
        if p.param_type_name == "argument"
    }
    assert [name for name, metavar in found.items() if metavar is None or not metavar.replace("_", "").isupper()] == []


def test_no_help_shows_a_type_as_the_library_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`<bool>` beside a flag, `<int range>` beside a number, `{JOB_ID}` and `[[JOB_ID]]` in a line of usage."""
    for name in ["coremachine", *(name for name, _ in find_commands())]:
        assert main([*name.split()[1:], "--help"]) == 0
        shown = capsys.readouterr().out
        assert re.findall(r"<[a-z ]+>|\{[A-Z_]+\}|\[\[|BOOLEAN|INTEGER RANGE", shown) == [], name


def test_flags_show_no_type_and_numbers_their_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"--fresh +Drop the data", shown)
    assert re.search(r"--workers +N \[1<=x<=64\]", shown)
    assert main(["audit", "--help"]) == 0
    assert "audit [OPTIONS] [JOB_ID]" in capsys.readouterr().out
