"""One look for all who ask, none of whom waits for longer than the bound."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.basics.shared_look import NoAnswer, SharedLook


def test_all_who_ask_at_one_time_get_the_answer_of_one_look():
    calls = []
    go = threading.Event()

    def look():
        calls.append(1)
        go.wait(30)
        return len(calls)

    shared = SharedLook("look", look, 30)
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(shared.ask) for _ in range(4)]
        while not calls:
            time.sleep(0.01)
        go.set()
        assert {each.result() for each in asked} <= {1, 2, 3, 4}
    assert shared.ask() == len(calls)


def test_look_that_hangs_keeps_nobody_waiting_and_is_not_made_twice():
    calls = []
    go = threading.Event()

    def look():
        calls.append(1)
        go.wait(30)
        return "found"

    shared = SharedLook("look", look, 0.05)
    for _ in range(3):
        with pytest.raises(NoAnswer):
            shared.ask()
    assert len(calls) == 1
    go.set()
    while True:
        try:
            assert shared.ask() == "found"
        except NoAnswer:
            continue
        break


def test_error_of_a_look_is_raised_and_the_next_look_is_another():
    errors = [ValueError("first")]

    def look():
        if errors:
            raise errors.pop()
        return 7

    shared = SharedLook("look", look, 30)
    with pytest.raises(ValueError, match="first"):
        shared.ask()
    assert shared.ask() == 7
