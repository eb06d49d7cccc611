"""The janitor's timer."""

import logging
import threading
from dataclasses import dataclass, field

import pytest

from core.errors import StoreUnavailable
from triggers.timers import SweepIncomplete, sweep
from triggers.webhook_thread import SenderThread


@dataclass
class FakeReport:
    repairs: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    outages: int = 0
    latest_tick_seconds: float = 0.0
    duration_seconds: float = 0.25


class FakeJanitor:
    def __init__(self, **report) -> None:
        self.report, self.sweeps = FakeReport(**report), 0

    def sweep(self) -> FakeReport:
        self.sweeps += 1
        return self.report


def test_one_tick_is_one_sweep_and_its_report_is_logged(caplog):
    janitor = FakeJanitor(repairs=3, latest_tick_seconds=12.5001, duration_seconds=0.07367503699788358)
    with caplog.at_level(logging.INFO):
        sweep(past_due=True, get_janitor=lambda: janitor, wake=lambda: None)
    assert janitor.sweeps == 1
    (record,) = [record for record in caplog.records if record.message == "sweep_ended"]
    assert (record.repairs, record.failed_steps, record.past_due) == (3, [], True)
    assert (record.latest_tick_seconds, record.duration_seconds) == (12.5, 0.074)


def test_failed_step_fails_the_invocation_after_the_report(caplog):
    """Half of the janitor never worked, and nobody was told (lesson D25)."""
    janitor = FakeJanitor(errors={"announce_tasks": "StoreUnavailable: no answer"})
    with caplog.at_level(logging.INFO), pytest.raises(SweepIncomplete, match="announce_tasks: StoreUnavailable"):
        sweep(past_due=False, get_janitor=lambda: janitor, wake=lambda: None)
    assert caplog.records[0].failed_steps == ["announce_tasks"]


def test_each_sweep_wakes_the_sender_of_webhooks_which_keeps_it_waiting_for_nothing():
    """A receiver that does not answer is the sender's matter: the sweep goes on, and one sender is enough."""
    began, may_end, runs = threading.Semaphore(0), threading.Event(), []

    def send():
        runs.append(1)
        began.release()
        assert may_end.wait(60)

    thread, janitor = SenderThread(send), FakeJanitor()
    for _ in range(3):
        sweep(past_due=False, get_janitor=lambda: janitor, wake=thread.wake)
    assert began.acquire(timeout=60)
    assert (janitor.sweeps, len(runs)) == (3, 1)
    may_end.set()
    while thread.is_running:
        pass
    thread.wake()
    assert began.acquire(timeout=60)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("broken")])
def test_a_sender_that_fails_is_started_again_by_the_next_sweep(caplog, error):
    ended = threading.Semaphore(0)

    def send():
        ended.release()
        raise error

    thread = SenderThread(send)
    for _ in range(2):
        thread.wake()
        assert ended.acquire(timeout=60)
        while thread.is_running:
            pass
    assert ("webhook_sender_ended" in caplog.text) == isinstance(error, RuntimeError)
