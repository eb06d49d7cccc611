"""The claimed tasks of one message: which has begun is decided once, whoever asks first."""

import time
from types import SimpleNamespace
from uuid import uuid4

import pytest

from core.announcing.windows import StageWindows
from core.errors import StoreUnavailable
from core.fan_in import reader
from core.models import StageDefinition
from core.models.transition import ClaimedRow, ClaimOutcome
from core.running.attempts import Attempts
from core.running.drain import Drain
from core.running.leases import LeaseKeeper
from core.running.message_runner import MessageRunner
from core.running.patience import Patience
from core.running.task_slots import TaskSlots

JOB = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
STAGE = StageDefinition(number=1, name="s", task_type="work", parallelism="fan_out", lease_seconds=3600)


def catalog_of(handler):
    return SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=handler, queue="tasks"))


def rows(*names):
    return [ClaimedRow(name, ClaimOutcome.CLAIMED, 1, 0, "work", place, None, {}) for place, name in enumerate(names)]


def attempts_of(handler, *names, results=None, keeper=None):
    keeper = keeper or LeaseKeeper(SimpleNamespace())
    return Attempts(JOB, STAGE, uuid4(), rows(*names), catalog=catalog_of(handler), results=results, keeper=keeper)


def test_abandoned_tasks_are_those_that_have_begun_and_those_that_now_never_do():
    abandoned = []

    def handler(_, context):
        abandoned.extend([*attempts.abandon(), context.is_cancelled])

    attempts = attempts_of(handler, "a", "b", "c")
    assert attempts.run_next().task.task_id == "a"
    waiting, running, is_asked_to_stop = abandoned
    assert ({task.task_id for task in waiting}, [task.task_id for task in running]) == ({"b", "c"}, ["a"])
    assert is_asked_to_stop
    assert attempts.run_next() is None


def test_outcome_of_a_handler_that_stopped_for_abandon_is_not_written_but_any_other_is():
    def handler(_, context):
        if context.task_id == "b":
            attempts.abandon()
        context.check_cancelled()

    attempts = attempts_of(handler, "a", "b", "c")
    assert attempts.run_next().result == "{}"
    assert attempts.run_next() is None


def test_handler_reads_results_from_the_store_of_its_message_and_nobody_after_it():
    seen, store = [], SimpleNamespace()
    attempts = attempts_of(lambda *_: seen.append(reader.get()), "a", results=store)
    attempts.run_next()
    assert (seen, reader.get()) == ([store], None)


def test_lease_of_a_task_that_was_taken_back_is_renewed_no_more():
    keeper = LeaseKeeper(SimpleNamespace())
    keeper._start = lambda: None
    with attempts_of(lambda *_: None, "a", "b", keeper=keeper) as attempts:
        attempts.run_next()
        assert [task.task_id for task in attempts.take_back()] == ["b"]
        assert [held.task_id for held in keeper.held()] == ["a"]
    assert keeper.held() == []


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["one", "several"])
def test_tasks_claimed_too_late_are_released_and_a_slot_is_never_kept(names):
    """The process drains, and the database is away: what runs is nobody's, and the slot would be missing for ever."""
    ran, released, drain, slots = [], [], Drain(), TaskSlots(1)
    keeper = LeaseKeeper(SimpleNamespace())
    keeper._start = lambda: None
    parts = SimpleNamespace(
        catalog=catalog_of(lambda _, context: ran.append(context.task_id)),
        results=None,
        keeper=keeper,
        drain=drain,
        slots=slots,
        state=None,
        owner="w",
        clock=time.monotonic,
        patience=Patience(0, drain.wait),
        orchestration=SimpleNamespace(role=SimpleNamespace(most_bytes=1000)),
    )

    def release(tasks):
        released.extend(sorted(task.task_id for task in tasks))
        raise StoreUnavailable("away")

    writer = SimpleNamespace(job=JOB, stage=STAGE, lease_id=uuid4(), release=release)
    drain.drain()
    with pytest.raises(StoreUnavailable):
        MessageRunner(parts, None, None, StageWindows(None, None)).run_claimed(writer, rows(*names), is_ahead=False)
    assert (ran, released, slots.taken, keeper.held()) == ([], names, 0, [])
