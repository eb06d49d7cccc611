"""When a process looks at the windows of stages, and what it knows of their tasks then."""

from types import SimpleNamespace

import pytest

from core.announcing.windows import LOOK_SECONDS, StageWindows
from core.errors import StoreUnavailable
from core.models import StageRef

STAGE = StageRef("a", 1, 2)


class Process:
    """Its clock, and the looks that it took: the stage, and what it knew of the time of a task."""

    def __init__(self):
        self.now, self.is_away, self.looks = 100.0, False, []
        self.windows = StageWindows(SimpleNamespace(take_next_tasks=self._take), SimpleNamespace(), lambda: self.now)

    def _take(self, ref, mean_seconds):
        if self.is_away:
            raise StoreUnavailable("away")
        self.looks.append((ref, mean_seconds))
        return []


@pytest.fixture
def process():
    return Process()


def test_a_message_that_ends_soon_after_a_look_is_made_up_for(process):
    """Else nobody looked after the last of the messages, and the stage waited for the next sweep."""
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=False)
    assert len(process.looks) == 1
    assert process.windows.is_look_owed
    process.windows.look_now()
    assert len(process.looks) == 1
    process.now += LOOK_SECONDS
    process.windows.look_now()
    process.windows.look_now()
    assert len(process.looks) == 2
    assert not process.windows.is_look_owed


def test_whatever_looks_meanwhile_makes_up_for_it(process):
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=True)
    assert len(process.looks) == 2
    assert not process.windows.is_look_owed


def test_look_in_an_outage_is_left_to_others(process):
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=False)
    process.now += LOOK_SECONDS
    process.is_away = True
    process.windows.look_now()
    assert not process.windows.is_look_owed


def test_look_passes_on_how_long_tasks_last(process):
    """The latest count most, those of large messages more than those of small ones."""
    process.windows.fill(STAGE)
    for tasks, seconds in ((10, 0.002), (10, 1.0), (1, 0.002)):
        process.windows.note_times(STAGE, tasks, seconds)
        process.windows.fill(STAGE)
    assert [known for _, known in process.looks] == [None, 0.002, pytest.approx(0.501), pytest.approx(0.4556, rel=1e-3)]
