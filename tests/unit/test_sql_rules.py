"""What every statement of the hot path keeps to, whichever plan PostgreSQL makes of it."""

import re
from pathlib import Path

import pytest

from core.models import JobStatus, StageStatus, TaskStatus

FUNCTIONS = Path(__file__).resolve().parents[2] / "sql" / "functions"
STATEMENTS = [
    (source.stem, statement)
    for source in sorted(FUNCTIONS.glob("*.sql"))
    for statement in source.read_text(encoding="utf-8").split(";")
    if re.search(r"task_id = (named\.id|asked\.|p_task_id)", statement)
]
NAMING_ROWS = [*sorted(FUNCTIONS.glob("*.sql")), *sorted((FUNCTIONS.parents[1] / "infrastructure").glob("*.py"))]


def test_there_are_statements_that_name_their_rows():
    assert len(STATEMENTS) > 10


@pytest.mark.parametrize(("name", "statement"), STATEMENTS)
def test_rows_named_by_id_are_found_by_their_key(name, statement):
    """A plain `status = 'processing'` lets a plan read all of `tasks_leased`, dead entries included, and filter by id:
    a completion took 10 ms after a stage of 100,000, for as long as its connection kept the plan."""
    where = re.sub(r"^.*?\bwhere\b", "", statement, count=1, flags=re.DOTALL)
    assert not re.search(r"(where|and) t\.status = '(processing|pending)'", where), name


@pytest.mark.parametrize("source", NAMING_ROWS, ids=lambda source: source.name)
def test_no_statement_reads_a_stage_to_find_the_rows_that_ids_name(source):
    """PostgreSQL before 17 takes `= any` as a filter where rows are wanted in order: a claim read its whole stage."""
    text = re.sub(r"^\s*--.*$", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not re.search(r"\b[tx]\.task_id = any\b", text), "join ids_in_order instead (locks.sql)"


@pytest.mark.parametrize(("name", "statement"), [found for found in STATEMENTS if "lateral" in found[1]])
def test_look_for_a_named_row_is_not_drawn_into_the_join(name, statement):
    """A planner that may join as it likes reads the stage instead, while it believes the table to be small."""
    looks = re.findall(r"lateral \(\s*select.*?\n? *(for update[ a-z]*|offset 0)\s*\)", statement, re.DOTALL)
    assert len(looks) == statement.count("lateral ("), name


STATUSES = {status.value for kind in (JobStatus, StageStatus, TaskStatus) for status in kind}
TEXTS = [*FUNCTIONS.glob("*.sql"), *(FUNCTIONS.parents[1] / "infrastructure").glob("*.py")]


def status_lists_in(text):
    """Lists of two statuses or more, as they are written by hand."""
    lists = re.findall(r"\(\s*('\w+'(?:\s*,\s*'\w+')+)\s*\)", text)
    return [found for found in lists if set(re.findall(r"\w+", found)) <= STATUSES]


def test_list_of_statuses_is_found():
    assert status_lists_in("where t.status not in ('pending',\n  'queued') and kind in ('job', 'task')")


@pytest.mark.parametrize("source", TEXTS, ids=lambda source: source.name)
def test_lists_of_statuses_come_from_the_models(source):
    """A status was added and some queries were not told (lesson D33): `core/schema/statuses.py` has every list."""
    text = source.read_text(encoding="utf-8")
    assert status_lists_in(text) == [], "use a name of core/schema/statuses.py, such as {open_tasks}"
    assert not re.search(r"j\.status (=|<>) 'processing' (and|or) j\.run (=|<>)", text), "use {stage_is_open}"


def test_key_of_a_lock_is_made_in_one_file():
    makers = {source.name for source in FUNCTIONS.glob("*.sql") if "hashtext" in source.read_text(encoding="utf-8")}
    assert makers == {"locks.sql"}


@pytest.mark.parametrize("source", sorted(FUNCTIONS.glob("*.sql")), ids=lambda source: source.name)
def test_file_begins_with_what_is_in_it(source):
    header, _, rest = source.read_text(encoding="utf-8").partition("\n\n")
    assert all(line.startswith("-- ") for line in header.splitlines())
    assert "create or replace function" in rest


def test_stored_error_is_made_in_one_file():
    makers = {source.name for source in FUNCTIONS.glob("*.sql") if "('type', " in source.read_text(encoding="utf-8")}
    assert makers == {"errors.sql"}
