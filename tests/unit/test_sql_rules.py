"""What every statement of the hot path keeps to, whichever plan PostgreSQL makes of it."""

import re
from pathlib import Path

import pytest

FUNCTIONS = Path(__file__).resolve().parents[2] / "sql" / "functions"
STATEMENTS = [
    (source.stem, statement)
    for source in sorted(FUNCTIONS.glob("*.sql"))
    for statement in source.read_text(encoding="utf-8").split(";")
    if re.search(r"task_id = (any \(p_task_ids\)|p_task_id)", statement)
]


def test_there_are_statements_that_name_their_rows():
    assert len(STATEMENTS) > 10


@pytest.mark.parametrize(("name", "statement"), STATEMENTS)
def test_rows_named_by_id_are_found_by_their_key(name, statement):
    """A plain `status = 'processing'` lets a plan read all of `tasks_leased`, dead entries included, and filter by id:
    a completion took 10 ms after a stage of 100,000, for as long as its connection kept the plan."""
    where = re.sub(r"^.*?\bwhere\b", "", statement, count=1, flags=re.DOTALL)
    assert not re.search(r"(where|and) t\.status = '(processing|pending)'", where), name
