"""Shared and exclusive runs of one process."""

import threading
from contextlib import ExitStack

import pytest

from core.errors import Draining
from core.running.task_slots import ProcessGate, RunsAlone


class Threads:
    """Threads that pass a gate and stay until they are let go."""

    def __init__(self, gate):
        self.gate = gate
        self.inside = []
        self.changed = threading.Condition()
        self.threads = []
        self.errors = []

    def enter(self, name, *, alone=False):
        leave = threading.Event()

        def run():
            try:
                with self.gate.exclusive() if alone else self.gate.shared() as is_alone:
                    self._note(name, is_alone)
                    assert leave.wait(30)
            except Draining as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

        def let_go():
            leave.set()
            thread.join(30)

        return let_go

    def _note(self, name, is_alone):
        with self.changed:
            self.inside.append((name, is_alone))
            self.changed.notify_all()

    def wait_for(self, *expected):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.inside) >= len(expected), 30), self.inside
            assert self.inside == list(expected)

    def wait_for_waiting(self, count):
        with self.gate._changed:
            assert self.gate._changed.wait_for(lambda: self.gate._waiting == count, 30)


def never():
    return None


def test_many_run_together():
    threads = Threads(ProcessGate(never))
    ends = [threads.enter("a")]
    threads.wait_for(("a", None))
    ends.append(threads.enter("b"))
    threads.wait_for(("a", None), ("b", None))
    for end in ends:
        end()


def test_one_who_waits_to_be_alone_goes_before_whoever_comes_later():
    threads = Threads(ProcessGate(never))
    end_first = threads.enter("first")
    threads.wait_for(("first", None))
    end_suspect = threads.enter("suspect", alone=True)
    threads.wait_for_waiting(1)
    end_late = threads.enter("late")
    end_first()
    threads.wait_for(("first", None), ("suspect", True))
    end_suspect()
    threads.wait_for(("first", None), ("suspect", True), ("late", None))
    end_late()


def test_two_who_must_be_alone_are_never_together():
    threads = Threads(ProcessGate(never, patience_seconds=0.0))
    end_one = threads.enter("one", alone=True)
    threads.wait_for(("one", True))
    end_two = threads.enter("two", alone=True)
    threads.wait_for_waiting(1)
    end_one()
    threads.wait_for(("one", True), ("two", True))
    end_two()


def test_handler_that_hangs_keeps_nobody_from_the_process():
    threads = Threads(ProcessGate(never, patience_seconds=0.0))
    end_hanging = threads.enter("hanging")
    threads.wait_for(("hanging", None))
    end_suspect = threads.enter("suspect", alone=True)
    threads.wait_for(("hanging", None), ("suspect", False))
    end_late = threads.enter("late")
    threads.wait_for(("hanging", None), ("suspect", False), ("late", None))
    for end in (end_hanging, end_suspect, end_late):
        end()


def test_whoever_waits_in_a_process_that_ends_is_sent_away():
    draining = threading.Event()

    def refuse():
        if draining.is_set():
            raise Draining

    gate = ProcessGate(refuse)
    threads = Threads(gate)
    end_first = threads.enter("first")
    threads.wait_for(("first", None))
    end_waiting = threads.enter("suspect", alone=True)
    threads.wait_for_waiting(1)
    draining.set()
    end_waiting()
    assert (len(threads.errors), threads.inside) == (1, [("first", None)])
    end_first()

    draining.clear()
    end_alone = threads.enter("alone", alone=True)
    threads.wait_for(("first", None), ("alone", True))
    end_late = threads.enter("late")
    draining.set()
    end_late()
    assert (len(threads.errors), len(threads.inside)) == (2, 2)
    end_alone()


def test_whoever_meets_a_run_alone_is_sent_away_soon():
    gate = ProcessGate(never, most_wait_seconds=0.05)
    threads = Threads(gate)
    end_alone = threads.enter("alone", alone=True)
    threads.wait_for(("alone", True))
    for enter in (gate.shared, gate.exclusive):
        with pytest.raises(RunsAlone), enter():
            pytest.fail("it went in")
    end_alone()
    with gate.shared():
        pass


def test_whoever_comes_while_a_suspect_waits_for_the_others_is_sent_away_soon():
    gate = ProcessGate(never, most_wait_seconds=0.05)
    threads = Threads(gate)
    end_first = threads.enter("first")
    threads.wait_for(("first", None))
    end_suspect = threads.enter("suspect", alone=True)
    threads.wait_for_waiting(1)
    with pytest.raises(RunsAlone), gate.shared():
        pytest.fail("it went in")
    end_first()
    end_suspect()


def test_gate_opens_when_what_runs_alone_has_ended_in_its_row():
    """Its thread may hang for hours after its attempt timed out. The next suspect is alone all the same."""
    held = {"hung before": True}
    gate = ProcessGate(never, lambda: held, most_wait_seconds=0.05)
    threads = Threads(gate)
    end_hanging = threads.enter("hanging", alone=True)
    threads.wait_for(("hanging", True))
    with pytest.raises(RunsAlone), gate.shared():
        pytest.fail("before the claim nothing has ended")
    held["its task"] = False
    with pytest.raises(RunsAlone), gate.shared():
        pytest.fail("its attempt runs")

    held["its task"] = True
    with gate.shared():
        pass
    end_next = threads.enter("next", alone=True)
    threads.wait_for(("hanging", True), ("next", True))
    end_hanging()
    with pytest.raises(RunsAlone), gate.shared():
        pytest.fail("the end of the one that hung let others to the next one")
    end_next()
    with gate.shared():
        pass


def test_error_inside_leaves_the_process_to_others():
    gate = ProcessGate(never)
    for enter in (gate.shared, gate.exclusive):
        with pytest.raises(ZeroDivisionError), enter():
            raise ZeroDivisionError
    with ExitStack() as entered:
        assert entered.enter_context(gate.exclusive())
