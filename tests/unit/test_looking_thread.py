"""A thread that looks as long as there is something to look after."""

import threading

import pytest

from core.basics import threads
from core.basics.threads import LookingThread

WAIT = 30


@pytest.fixture
def looks(monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0)
    return threading.Semaphore(0)


def test_a_look_that_raises_is_logged_and_the_next_one_comes(looks, caplog):
    def look():
        looks.release()
        raise SystemExit

    is_needed = threading.Event()
    is_needed.set()
    thread = LookingThread("looks", 0.001, look, is_needed.is_set)
    thread.need()
    for _ in range(2):
        assert looks.acquire(timeout=WAIT)
    is_needed.clear()
    assert "background_call_failed" in caplog.text


def test_a_thread_without_work_ends_and_comes_back(looks):
    thread = LookingThread("ends", 0.001, looks.release, lambda: False)
    for _ in range(2):
        thread.need()
        (alive,) = [each for each in threading.enumerate() if each.name == "ends"] or [None]
        assert looks.acquire(timeout=WAIT)
        if alive is not None:
            alive.join(WAIT)
        assert not any(each.name == "ends" for each in threading.enumerate())


def test_one_is_started_however_often_it_is_needed(looks):
    is_needed = threading.Event()
    is_needed.set()
    thread = LookingThread("once", 0.001, looks.release, is_needed.is_set)
    for _ in range(3):
        thread.need()
    assert [each.name for each in threading.enumerate()].count("once") == 1
    is_needed.clear()


def test_a_system_without_threads_is_asked_again(looks, monkeypatch, caplog):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    thread = LookingThread("refused", 0.001, looks.release, lambda: False)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        thread.need()
    assert "thread_not_started" in caplog.text
    thread.need()
    assert looks.acquire(timeout=WAIT)
