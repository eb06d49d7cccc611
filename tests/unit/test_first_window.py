"""How many messages of a large stage are sent at first."""

import pytest

from core.advancing.first_window import fewest_in_first_window, first_window
from core.models import StageDefinition

STAGE = {"number": 1, "name": "rest", "task_type": "rest", "parallelism": "single"}


@pytest.mark.parametrize(
    ("settings", "per_message", "mean_seconds", "tasks"),
    [
        ({}, 1, None, 32),
        ({}, 10, None, 320),
        # A message of a short task goes on for 0.1 s, so that few of them are half a second's work.
        ({}, 1, 0.0, 40),
        ({}, 1, 0.05, 40),
        ({}, 1, 0.06, 66),
        ({}, 1, 1.0, 16),
        # These do not go on.
        ({"tasks_per_message": 2}, 2, 0.002, 512),
        ({"tasks_per_message": 41}, 41, 0.0, 2460),
        # All slots together have half a second of them, not each.
        ({"tasks_per_message": 100}, 10, 0.01, 400),
        ({"tasks_per_message": 100}, 100, 0.005, 1600),
        ({"limits": [{"name": "service", "at_once": 2}]}, 1, 0.0, 256),
        ({"max_parallel": 300}, 1, 0.0, 256),
        ({"max_parallel": 3}, 1, 0.0, 3),
    ],
)
def test_first_messages_are_half_a_second_of_work(settings, per_message, mean_seconds, tasks):
    stage = StageDefinition.model_validate(STAGE | settings)
    assert first_window(stage, per_message, mean_seconds) == tasks


@pytest.mark.parametrize(
    ("settings", "per_message", "tasks"), [({}, 1, 16), ({}, 10, 160), ({"max_parallel": 3}, 1, 3)]
)
def test_no_first_window_has_fewer_messages_than_keep_the_slots_busy(settings, per_message, tasks):
    assert fewest_in_first_window(StageDefinition.model_validate(STAGE | settings), per_message) == tasks
