"""Tests that start whole stacks run in two groups, each of one process: more would wait for each other."""

from pathlib import Path

from tests.conftest import BREAK_STACKS, USE_STACKS

ROOT = Path(__file__).parents[2]
MARK = "pytest.mark." + "acceptance"


def test_files_marked_so_are_in_a_group():
    """A new place for them also goes into BREAK_STACKS or USE_STACKS."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if MARK in path.read_text(encoding="utf-8")]
    marked = [path.relative_to(ROOT).as_posix() for path in files]
    assert marked
    assert [name for name in marked if not name.startswith((*BREAK_STACKS, *USE_STACKS))] == []
