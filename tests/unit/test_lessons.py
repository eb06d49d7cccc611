"""The table of lessons in docs/reliability.md names tests that are there and say which lesson they show."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = dict(re.findall(r"^\| D(\d+) \|[^|]*\| (.*) \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE))


def test_every_lesson_has_a_row():
    assert list(ROWS) == [str(number) for number in range(1, 45)]


@pytest.mark.parametrize("number", list(ROWS))
def test_named_tests_are_there_and_say_what_they_show(number):
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", ROWS[number])
    assert named
    for path, name in named:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(found) == 1, f"{path}::{name}"
        assert f"D{number}" in re.findall(r"D\d+", ast.get_docstring(found[0]) or ""), f"{path}::{name}"
