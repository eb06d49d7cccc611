"""How many tasks run at once in a process: the slots, and who gets the next one."""

import threading

import pytest

from core.running import task_slots
from core.running.task_slots import TaskSlots


def wait_until_in_line(slots, count):
    """The line is what a thread joins as the last thing before it waits."""
    while len(slots._line) + len(slots._ahead) < count:
        pass


def test_a_process_has_at_least_one_slot():
    with pytest.raises(ValueError, match="expected at least 1, found 0"):
        TaskSlots(0)


def test_spare_slots_are_those_that_nobody_has():
    slots = TaskSlots(2)
    held = [slots.take_spare(), slots.take_spare()]
    assert all(held)
    assert slots.take_spare() is None
    assert slots.take(0.0) is None
    slots.release(held[0])
    assert slots.take_spare() is not None


def test_a_second_release_frees_nothing():
    slots = TaskSlots(1)
    slot = slots.take(0.0)
    slots.release(slot)
    slots.release(slot)
    assert slots.take_spare() is not None
    assert slots.take_spare() is None


def test_a_slot_that_was_handed_over_is_the_others_to_release():
    slots = TaskSlots(1)
    first = slots.take(0.0)
    second = first.hand_over()
    slots.release(first)
    assert slots.take_spare() is None
    slots.release(second)
    assert slots.take_spare() is not None
    with pytest.raises(AssertionError, match="was released"):
        first.hand_over()


def test_who_waits_longest_is_next_and_a_spare_slot_is_none_of_theirs():
    slots = TaskSlots(1)
    held = slots.take(0.0)
    order = []

    def work(name):
        slot = slots.take(60)
        order.append(name)
        slots.release(slot)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until_in_line(slots, count)
    assert slots.is_wanted()
    assert slots.take_spare() is None
    slots.release(held)
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"]
    assert not slots.is_wanted()
    assert slots.take_spare() is not None


@pytest.mark.parametrize(("seconds", "found"), [(1e9, ["y", "z", "a", "b"]), (-1.0, ["a", "y", "b", "z"])])
def test_who_is_young_goes_ahead_of_those_that_have_not_waited_for_long(monkeypatch, seconds, found):
    """Nobody waits for ever, however many small jobs come.

    Where tasks last for seconds all have waited for long, and small jobs had their slots last of all: now in turns.
    """
    monkeypatch.setattr(task_slots, "PASSED_OVER_SECONDS", seconds)
    slots = TaskSlots(1)
    held = slots.take(0.0)
    order = []

    def work(name):
        slot = slots.take(60, is_ahead=name in "yz")
        order.append(name)
        slots.release(slot)

    threads = [threading.Thread(target=work, args=(name,)) for name in "aybz"]
    for count, thread in enumerate(threads, 1):
        thread.start()
        wait_until_in_line(slots, count)
    slots.release(held)
    for thread in threads:
        thread.join()
    assert order == found


def test_who_looks_whether_the_process_ends_keeps_its_place(monkeypatch):
    """With a new place at each look, a message would wait behind all that came after it."""
    monkeypatch.setattr(task_slots, "_LOOK_SECONDS", 0.001)
    slots, looks, order = TaskSlots(1), threading.Semaphore(0), []
    held = slots.take(0.0)

    def work(name, *refuse):
        slot = slots.take(60, *refuse)
        order.append(name)
        slots.release(slot)

    first = threading.Thread(target=work, args=("first", looks.release))
    second = threading.Thread(target=work, args=("second",))
    first.start()
    wait_until_in_line(slots, 1)
    second.start()
    wait_until_in_line(slots, 2)
    for _ in range(20):
        looks.acquire()
    slots.release(held)
    first.join()
    second.join()
    assert order == ["first", "second"]


def test_who_gives_up_costs_nobody_a_slot():
    slots = TaskSlots(1)
    held = slots.take(0.0)
    assert slots.take(0.001) is None
    slots.release(held)
    assert slots.take_spare() is not None


def test_a_thread_that_waits_leaves_when_its_process_ends():
    slots = TaskSlots(1)
    slots.take(0.0)

    def refuse():
        raise SystemExit

    with pytest.raises(SystemExit):
        slots.take(60, refuse)
    assert not slots.is_wanted()


@pytest.mark.parametrize(("seconds", "is_wanted"), [(1e9, False), (-1.0, True)])
def test_who_is_young_gives_way_to_those_that_have_waited_for_long(monkeypatch, seconds, is_wanted):
    monkeypatch.setattr(task_slots, "PASSED_OVER_SECONDS", seconds)
    slots = TaskSlots(1)
    held = slots.take(0.0)
    with slots.line_up():
        assert slots.is_wanted()
        assert slots.is_wanted(is_ahead=True) is is_wanted
        with slots.line_up(is_ahead=True):
            assert slots.is_wanted(is_ahead=True)
    assert not slots.is_wanted(is_ahead=True)
    slots.release(held)
    assert slots.taken == 0


def test_a_message_gives_its_slot_to_others_after_a_time_slice_and_to_young_ones_at_once():
    slots = TaskSlots(1)
    held = slots.take(0.0)
    with slots.line_up():
        assert not slots.is_wanted(is_over=False)
        assert slots.is_wanted()
        with slots.line_up(is_ahead=True):
            assert slots.is_wanted(is_over=False)
            assert not slots.is_wanted(is_ahead=True, is_over=False)
    slots.release(held)
    assert slots.taken == 0


def test_a_place_that_is_left_when_its_turn_has_come_lets_the_next_one_have_the_slot():
    slots = TaskSlots(1)
    with slots.line_up(), slots.line_up() as second:
        assert second.wait(0.0) is None
    assert slots.taken == 0
    with slots.line_up() as second:
        assert second.wait(0.0)
        assert slots.taken == 1
