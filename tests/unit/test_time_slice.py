"""When a message goes on with the next task of its stage."""

from types import SimpleNamespace

import pytest

from core.errors import Failure
from core.models import StageDefinition, StageRef
from core.models.transition import ClaimedRow, ClaimOutcome, NextTask
from core.running.attempts import TaskOutcome
from core.running.time_slice import SLICE_SECONDS, TimeSlice, YoungStages

STAGE = StageRef("a", 2, 1)
TASK = ClaimedRow("s2-n0", ClaimOutcome.CLAIMED, 1, 0, "square", 0, "n0", {})


def ended(seconds=0.001, **how):
    return [TaskOutcome(TASK, duration_seconds=seconds, **how or {"result": b"{}"})]


@pytest.fixture
def parts():
    return SimpleNamespace(owner="w", now=100.0, drain=SimpleNamespace(is_draining=False))


@pytest.fixture
def time_slice(parts):
    parts.clock = lambda: parts.now
    return TimeSlice(parts, STAGE, YoungStages(parts.clock))


def test_a_short_task_takes_the_next_until_the_time_is_over(parts, time_slice):
    assert time_slice.next_after(ended()) == NextTask("square", "w")
    parts.now += SLICE_SECONDS * 0.9
    assert time_slice.next_after(ended()) == NextTask("square", "w")
    parts.now += SLICE_SECONDS * 0.2
    assert time_slice.next_after(ended()) is None


def test_a_task_that_would_not_end_in_the_time_takes_none(parts, time_slice):
    """A task that lasts half of the time, or more, has a message of its own, as the next one has."""
    lasts = SLICE_SECONDS * 0.6
    parts.now += lasts
    assert time_slice.next_after(ended(lasts)) is None


def test_what_failed_leaves_the_next_task_to_a_message(time_slice):
    assert time_slice.next_after(ended(failure=Failure("OSError", "no", retryable=True))) is None


def test_a_process_that_drains_takes_none(parts, time_slice):
    parts.drain.is_draining = True
    assert time_slice.next_after(ended()) is None


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, True),
        ({"tasks_per_message": 1}, True),
        ({"tasks_per_message": 5}, False),
        ({"tasks_per_message": 1, "max_parallel": 3}, False),
        ({"tasks_per_message": 1, "limits": [{"name": "service", "at_once": 2}]}, False),
    ],
)
def test_stages_of_single_tasks_without_bounds_go_on(settings, found):
    stage = {"number": 2, "name": "square", "task_type": "square", "parallelism": "fan_out"}
    assert StageDefinition.model_validate(stage | settings).goes_on is found
