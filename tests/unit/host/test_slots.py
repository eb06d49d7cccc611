"""When a pump opens more slots."""

import pytest

from coremachine.local.host.slots import AT_ONCE_SECONDS, PATIENCE_SECONDS, SlotDemand


class Rig:
    """A demand for at most eight slots, under a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.demand = SlotDemand(8, lambda: self.now)

    def message(self, slots: int, *, after: float = 0.0) -> int:
        """A slot asks, gets a message after so many seconds, and begins with it."""
        asked_at = self.now
        self.now += after
        self.demand.on_answer(asked_at, has_message=True)
        self.demand.on_message()
        return self.demand.wanted(slots)

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.demand.on_done()


@pytest.fixture
def rig():
    return Rig()


def test_first_message_opens_nothing(rig):
    assert rig.message(1) == 0


def test_short_messages_one_after_another_open_slots_when_they_go_on(rig):
    opened = []
    while rig.now < PATIENCE_SECONDS + 0.01:
        opened.append(rig.message(1))
        rig.work(0.01)
    assert opened[-1] == 3
    assert set(opened[:-1]) == {0}


def test_one_long_message_opens_slots(rig):
    assert rig.message(1) == 0
    rig.now += PATIENCE_SECONDS
    assert rig.demand.wanted(1) == 3


@pytest.mark.parametrize(("slots", "opened"), [(1, 3), (2, 6), (4, 4), (7, 1), (8, 0)])
def test_slots_are_four_times_as_many_up_to_the_limit(rig, slots, opened):
    for _ in range(slots):
        assert rig.message(slots) == 0
    rig.now += PATIENCE_SECONDS
    assert rig.demand.wanted(slots) == opened


def test_next_step_takes_as_long_again(rig):
    rig.message(1)
    rig.now += PATIENCE_SECONDS
    assert rig.demand.wanted(1) == 3
    for _ in range(3):
        assert rig.message(4) == 0
    rig.now += PATIENCE_SECONDS * 0.9
    assert rig.demand.wanted(4) == 0
    rig.now += PATIENCE_SECONDS * 0.1
    assert rig.demand.wanted(4) == 4


def test_long_message_opens_nothing_beside_a_slot_that_is_free(rig):
    assert rig.message(2) == 0
    rig.now += 100.0
    assert rig.demand.wanted(2) == 0


def test_messages_with_pauses_between_them_open_nothing(rig):
    for _ in range(20):
        assert rig.message(1, after=AT_ONCE_SECONDS * 1.01) == 0
        rig.work(PATIENCE_SECONDS * 0.9)


def test_slot_that_asked_in_vain_begins_the_patience_anew(rig):
    rig.message(1)
    rig.work(PATIENCE_SECONDS * 0.9)
    rig.demand.on_answer(rig.now, has_message=False)
    assert rig.message(1) == 0
    rig.now += PATIENCE_SECONDS * 0.9
    assert rig.demand.wanted(1) == 0


def test_messages_from_a_broker_far_away_count_as_waiting(rig):
    opened = [rig.message(1)]
    while not opened[-1]:
        rig.work(0.001)
        opened.append(rig.message(1, after=0.15))
    assert rig.now < 2 * PATIENCE_SECONDS
