"""The table of lessons in docs/explanation/reliability.md names tests that are there and say which lesson they show."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
ROWS = dict(re.findall(r"^\| D(\d+) \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE))


def named_in(number: str) -> list[tuple[str, str]]:
    """Path and function of each test in the lesson's row."""
    return re.findall(r"`([\w/]+\.py)::(\w+)`", ROWS[number])


def source_of(path: str, name: str) -> str:
    text = (ROOT / "tests" / path).read_text()
    found = [
        ast.get_source_segment(text, node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]
    assert len(found) == 1, f"{path}::{name}: expected one function of this name, found {len(found)}"
    return found[0] or ""


def test_every_lesson_has_a_row():
    assert list(ROWS) == [str(number) for number in range(1, 45)]


@pytest.mark.parametrize("number", list(ROWS))
def test_each_lesson_names_tests_that_are_there_and_say_so(number):
    named = named_in(number)
    assert named, "no test is named"
    # Whatever else looks like one is a name that was misspelt.
    assert len(named) == ROWS[number].count("::")
    for path, name in named:
        source = source_of(path, name)
        assert name.startswith("test_")
        assert re.search(rf"lessons? (D\d+, )*D{number}\b", " ".join(source.split())), f"{path}::{name}"
