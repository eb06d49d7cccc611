"""Tests that start whole stacks never run beside each other: two would wait for each other's processor."""

from pathlib import Path

from tests.conftest import ONE_AT_A_TIME

ROOT = Path(__file__).parents[2]
MARK = "pytest.mark." + "acceptance"


def test_files_marked_so_are_where_one_runs_at_a_time():
    """A new place for them also goes into ONE_AT_A_TIME."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if MARK in path.read_text(encoding="utf-8")]
    marked = [path.relative_to(ROOT).as_posix() for path in files]
    assert marked
    assert [name for name in marked if not name.startswith(ONE_AT_A_TIME)] == []
