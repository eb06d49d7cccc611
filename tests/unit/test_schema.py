"""The generated DDL and the transition table."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.models import JOB_TRANSITIONS, STAGE_TRANSITIONS, TASK_TRANSITIONS, FailurePolicy
from core.models.diagram import render_states
from core.schema.sql_generator import render_schema
from core.schema.tables import TABLES

STATES_FILE = Path(__file__).parents[2] / "docs" / "reference" / "states.md"


def test_checked_in_diagram_is_drawn_from_the_table():
    assert STATES_FILE.read_text() == render_states(), "run: make reference"


# Each renders the whole schema.
@settings(max_examples=20)
@example('a"b')
@example("{schema}")
@given(st.text(min_size=1, max_size=30).filter(lambda name: "\0" not in name))
def test_schema_name_is_only_ever_a_quoted_identifier(name):
    quoted = '"' + name.replace('"', '""') + '"'
    text = render_schema(name)

    assert text.startswith(f"create schema if not exists {quoted};")
    assert '"app".' not in text or name == "app"


def test_every_key_starts_with_the_job():
    """So that tables can be hash-distributed by it; schedules, apps, limits and webhooks belong to no job."""
    others = ("schedule", "app_", "limits", "limit_starts", "webhook")
    assert {table.key[0] for table in TABLES if not table.name.startswith(others)} == {"job_id"}


@pytest.mark.parametrize("transitions", [JOB_TRANSITIONS, STAGE_TRANSITIONS, TASK_TRANSITIONS])
def test_every_status_has_a_row_and_every_open_one_a_way_to_an_end(transitions):
    """A status was added and some queries were not told (lesson D33)."""
    assert set(transitions) == set(type(next(iter(transitions))))
    for start in transitions:
        reached, frontier = {start}, [start]
        while frontier:
            following = transitions[frontier.pop()] - reached
            reached |= following
            frontier.extend(following)
        assert any(status.is_terminal for status in reached)


@pytest.mark.parametrize(
    "wrong", [{"on_failure": "tolerate"}, {"on_failure": "continue", "max_failed": 3}, {"max_failed_percent": 5}]
)
def test_failure_limits_go_with_tolerate_only(wrong):
    with pytest.raises(ValueError, match="on_failure='tolerate'"):
        FailurePolicy.model_validate(wrong)
