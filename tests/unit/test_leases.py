"""The heartbeat: when it asks, and what it tells whom."""

import threading
from uuid import uuid4

import pytest

from core.context import TaskContext
from core.errors import RetryableTaskError, TaskCancelled, TaskTimedOut, classify
from core.models.lease import HeldTask, LeaseOutcome
from core.running import leases
from core.running.leases import LeaseKeeper


class ScriptedStore:
    """Answers each renewal with the next outcome; the last stays."""

    def __init__(self, *outcomes):
        self.outcomes = [LeaseOutcome(outcome) for outcome in outcomes]
        self.renewals = 0
        self.asked = threading.Event()
        self.stopping = set()
        self.looked = threading.Event()

    def renew_leases(self, held):
        self.renewals += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        self.asked.set()
        return {(lease.lease_id, lease.task_id): outcome for lease in held if outcome != "lost"}

    def is_any_stopping(self, job_ids):
        found = bool(self.stopping.intersection(job_ids))
        self.looked.set()
        return found


def lease_of(lease_seconds=3600.0, **settings):
    return HeldTask("j", 1, "t", uuid4(), lease_seconds, **settings)


def context_of(lease):
    return TaskContext(
        job_id="j",
        job_type="x",
        stage=1,
        task_id="t",
        task_index=0,
        attempt=1,
        job_parameters={},
        _stop_requested=lambda: lease.is_stop_requested,
        _timed_out=lambda: lease.is_timed_out,
    )


@pytest.mark.parametrize(
    ("outcome", "raised"), [("timed_out", TaskTimedOut), ("stop", TaskCancelled), ("lost", TaskCancelled)]
)
def test_handler_hears_why_it_is_to_stop(outcome, raised):
    keeper, lease = LeaseKeeper(ScriptedStore(outcome)), lease_of()
    context = context_of(lease)
    keeper.hold([lease])
    context.check_cancelled()
    keeper.renew_now()
    with pytest.raises(TaskCancelled) as told:
        context.check_cancelled()
    assert type(told.value) is raised
    keeper.drop([lease])


def test_first_reason_stays():
    """A task that was told of its timeout and then loses its lease has still failed by time."""
    keeper, lease = LeaseKeeper(ScriptedStore("timed_out", "lost")), lease_of()
    keeper.hold([lease])
    keeper.renew_now()
    keeper.renew_now()
    assert lease.is_timed_out
    keeper.drop([lease])


def test_timed_out_attempt_is_tried_again_and_a_cancelled_one_is_not():
    assert classify(TaskTimedOut("too long")).retryable
    assert classify(TaskTimedOut("too long")).error_type == "TaskTimedOut"
    assert isinstance(TaskTimedOut("too long"), RetryableTaskError)
    assert not classify(TaskCancelled("no")).retryable


def test_keeper_asks_when_an_attempts_time_is_over():
    store = ScriptedStore("timed_out")
    keeper, lease = LeaseKeeper(store), lease_of(timeout_seconds=0.01)
    keeper.hold([lease])
    assert store.asked.wait(30)
    keeper.drop([lease])
    assert lease.ask_at is None


def test_keeper_that_waits_for_a_long_lease_is_woken_for_a_short_time():
    """There was no heartbeat; death was guessed from age (lesson D27)."""
    store = ScriptedStore("renewed")
    keeper, long, short = LeaseKeeper(store), lease_of(), lease_of(timeout_seconds=0.01)
    keeper.hold([long])
    keeper.hold([short])
    assert store.asked.wait(30)
    keeper.drop([long, short])


def test_time_is_asked_for_once_not_in_a_circle():
    keeper, lease = LeaseKeeper(ScriptedStore("renewed")), lease_of(timeout_seconds=3600)
    keeper.hold([lease])
    lease.ask_at = 0.0
    keeper.renew_now()
    assert lease.ask_at is None
    keeper.drop([lease])


def no_thread(_thread):
    raise RuntimeError("can't start new thread")


def test_keeper_that_got_no_thread_asks_for_one_again(monkeypatch, caplog):
    """After one refusal no lease of the process was ever renewed."""
    store = ScriptedStore("renewed")
    keeper, first, second = LeaseKeeper(store), lease_of(timeout_seconds=0.01), lease_of()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        keeper.hold([first])
    assert "heartbeat_not_started" in caplog.text
    keeper.hold([second])
    assert store.asked.wait(30)
    keeper.drop([first, second])


def test_heartbeat_that_ends_is_begun_again(monkeypatch):
    """A handler may have changed what its thread needs; for as long as the process lives, no lease would be renewed."""
    store = ScriptedStore("renewed")
    keeper, lease, next_lease = LeaseKeeper(store), lease_of(), lease_of(0.001)
    with monkeypatch.context() as broken:
        broken.setattr(leases, "RENEWALS_PER_LEASE", 0)
        keeper.hold([lease])
        thread = keeper._thread
        if thread is not None:
            thread.join()
    assert not store.asked.is_set()
    keeper.hold([next_lease])
    assert store.asked.wait(60)
    keeper.drop([lease, next_lease])


def test_task_of_a_long_lease_learns_soon_that_its_job_is_cancelled(monkeypatch):
    """It learned with the next renewal: 15 s after the cancel, with the usual lease."""
    monkeypatch.setattr(leases, "LOOK_SECONDS", 0.001)
    store = ScriptedStore("stop")
    keeper, lease, lease_stopped = LeaseKeeper(store), lease_of(), threading.Event()
    stop = lease.stop
    lease.stop = lambda outcome: (stop(outcome), lease_stopped.set())
    keeper.hold([lease])
    assert store.looked.wait(30)
    assert store.renewals == 0
    store.stopping.add("j")
    assert store.asked.wait(30)
    assert lease_stopped.wait(30)
    assert store.renewals == 1
    keeper.drop([lease])


def test_task_that_knows_is_not_asked_about_again():
    store = ScriptedStore("stop")
    store.stopping.add("j")
    keeper, lease = LeaseKeeper(store), lease_of()
    keeper.hold([lease])
    assert keeper._is_any_job_stopping()
    keeper.renew_now()
    assert not keeper._is_any_job_stopping()
    keeper.drop([lease])
