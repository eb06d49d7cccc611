"""When a process looks at the windows of stages, and what it knows of their tasks then."""

import threading
from types import SimpleNamespace

import pytest

from core.announcing.windows import LOOK_SECONDS, RETRY_SECONDS, StageWindows
from core.errors import StoreUnavailable
from core.models import StageRef

STAGE = StageRef("a", 1, 2)


class Process:
    """Its clock, and the looks that it took: the stage, and what it knew of the time of a task."""

    def __init__(self):
        self.now, self.is_away, self.looks = 100.0, False, []
        # Whether a thread was asked for that looks in a while.
        self.asked = threading.Event()
        self.windows = StageWindows(SimpleNamespace(take_next_tasks=self._take), SimpleNamespace(), lambda: self.now)
        self.windows._looks = SimpleNamespace(need=self.asked.set)  # the tests look themselves

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
    assert process.windows._owed
    assert process.asked.is_set()
    process.windows.look_now()
    assert len(process.looks) == 1
    process.now += LOOK_SECONDS
    process.windows.look_now()
    process.windows.look_now()
    assert len(process.looks) == 2
    assert not process.windows._owed


def test_whatever_looks_meanwhile_makes_up_for_it(process):
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=True)
    assert len(process.looks) == 2
    assert not process.windows._owed


def test_look_in_an_outage_is_left_to_others(process):
    process.windows.after_message(STAGE, is_due=False)
    process.windows.after_message(STAGE, is_due=False)
    process.now += LOOK_SECONDS
    process.is_away = True
    process.windows.look_now()
    assert not process.windows._owed


def test_look_passes_on_how_long_tasks_last(process):
    """The latest count most, those of large messages more than those of small ones."""
    process.windows.fill(STAGE)
    for tasks, seconds in ((10, 0.002), (10, 1.0), (1, 0.002)):
        process.windows.note_times(STAGE, tasks, seconds)
        process.windows.fill(STAGE)
    assert [known for _, known in process.looks] == [None, 0.002, pytest.approx(0.501), pytest.approx(0.4556, rel=1e-3)]


def test_retries_that_are_due_together_share_a_message(process):
    """Three thousand of them were three thousand messages, before whatever came then."""
    share = process.windows.share_retry
    first = share(STAGE, 0.3, 5.0)
    assert 0.3 <= first < 0.3 + RETRY_SECONDS
    assert share(STAGE, first, 5.0) is None
    assert share(STAGE, first - RETRY_SECONDS * 0.9, 5.0) is None
    later = share(STAGE, first + 0.01, 5.0)
    assert later == pytest.approx(first + RETRY_SECONDS)
    assert share(StageRef("b", 1, 2), 0.3, 5.0) == first
    # Messages whose time has passed take nothing more.
    process.now += later + 0.01
    assert share(STAGE, 0.0, 5.0) is not None


def test_a_retry_is_no_later_than_its_stage_waits_at_most(process):
    assert 0.02 <= process.windows.share_retry(STAGE, 0.02, 0.01) <= 0.03 + 1e-6


def test_messages_that_begin_together_look_once(process):
    """Each looked, behind the others: at the begin of a stage, and whenever all its messages are too large."""
    began, may_end = threading.Event(), threading.Event()
    take = process._take

    def slowly(*given):
        began.set()
        assert may_end.wait(60)
        return take(*given)

    process.windows._state.take_next_tasks = slowly
    threads = [threading.Thread(target=process.windows.fill, args=(STAGE,)) for _ in range(6)]
    threads[0].start()
    assert began.wait(60)
    for thread in threads[1:]:
        thread.start()
    while process.windows._fills.waiting((STAGE, None)) < 5:
        pass
    may_end.set()
    for thread in threads:
        thread.join()
    assert len(process.looks) == 2
