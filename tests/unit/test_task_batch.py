"""The tasks of one message while they run."""

import threading
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest

from core.errors import StoreUnavailable
from core.models import StageDefinition
from core.models.lease import LeaseOutcome
from core.models.transition import ClaimedRow, ClaimOutcome
from core.running import task_batch
from core.running.attempts import Attempts
from core.running.leases import LeaseKeeper
from core.running.task_batch import TaskBatch
from core.running.task_slots import TaskSlots


class AllRenewed:
    def renew_leases(self, held):
        return {(lease.lease_id, lease.task_id): LeaseOutcome.RENEWED for lease in held}

    def is_any_stopping(self, job_ids):
        del job_ids
        return False


def task(task_id):
    return ClaimedRow(task_id, ClaimOutcome.CLAIMED, 1, 0, "work", 0, None, {})


def test_no_more_tasks_run_at_once_than_the_setting_says(monkeypatch):
    """Too many raster tasks at once ran out of memory (lesson D41)."""
    workers = []
    monkeypatch.setattr(task_batch, "_reserve", SimpleNamespace(start=workers.append))
    ran = []
    catalog = SimpleNamespace(
        find_handler=lambda _: SimpleNamespace(function=lambda _, context: ran.append(context.task_id))
    )
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="fan_out")
    tasks = [task(f"t{number}") for number in range(20)]
    attempts = Attempts(
        job, stage, uuid4(), tasks, catalog=catalog, results=SimpleNamespace(), keeper=LeaseKeeper(AllRenewed())
    )
    batch = TaskBatch(attempts, TaskSlots(3))
    batch._patience_seconds = 0.01
    with attempts:
        outcomes = batch.outcomes()
        # None of the workers runs yet: the batch would ask for more of them if it might.
        assert next(outcomes) == []
        assert next(outcomes) == []
        assert len(workers) == 3
        for work in workers:
            work()
        assert sum(len(group) for group in outcomes) == 20
    assert (len(workers), len(ran)) == (3, 20)


def test_lease_of_a_settled_task_is_not_renewed_while_its_message_goes_on():
    """Its row has ended in order, and a renewal of it would be told as a lost lease (lesson D16)."""
    may_end = threading.Event()

    def work(parameters, context):
        if context.task_id == "slow":
            may_end.wait(60)

    catalog = SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=work, queue="tasks"))
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single", lease_seconds=3600)
    keeper = LeaseKeeper(AllRenewed())
    held = []
    attempts = Attempts(
        job, stage, uuid4(), [task("quick"), task("slow")], catalog=catalog, results=SimpleNamespace(), keeper=keeper
    )
    batch = TaskBatch(attempts, TaskSlots(2))
    with attempts:
        for group in batch.outcomes():
            ended = {outcome.task.task_id for outcome in group}
            held.append((ended, {lease.task_id for lease in keeper.held()}))
            if "quick" in ended:
                may_end.set()
    assert held == [({"quick"}, {"quick", "slow"}), ({"slow"}, {"slow"})]
    assert keeper.held() == []


def test_what_an_error_leaves_behind_begins_no_more(monkeypatch):
    """The database was away as an outcome was written: the other tasks' leases run out, and they take no slots."""
    workers, ran = [], []
    monkeypatch.setattr(task_batch, "_reserve", SimpleNamespace(start=workers.append))
    catalog = SimpleNamespace(
        find_handler=lambda _: SimpleNamespace(function=lambda _, context: ran.append(context.task_id))
    )
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="fan_out")
    slots = TaskSlots(1)
    attempts = Attempts(
        job,
        stage,
        uuid4(),
        [task("first"), task("second")],
        catalog=catalog,
        results=SimpleNamespace(),
        keeper=LeaseKeeper(AllRenewed()),
    )
    batch = TaskBatch(attempts, slots)
    batch._patience_seconds = 0.01
    outcomes = batch.outcomes()
    with suppress(StoreUnavailable), attempts:
        assert next(outcomes) == []
        raise StoreUnavailable("away")
    (work,) = workers
    work()
    assert ran == []
    assert slots.taken == 0


@pytest.mark.parametrize(
    ("seconds", "ended", "running", "waiting", "is_split"),
    [
        (0.05, [0.01], [0.04], 98, False),  # too early
        (0.11, [0.01] * 10, [], 90, True),
        (0.11, [0.001] * 50, [], 49, False),  # short tasks, however many
        (0.11, [], [0.11], 7, True),  # none has ended, and none can be shorter
        (0.11, [], [0.11], 4, False),
        (0.11, [], [0.11] * 8, 0, False),
        (2.1, [0.001], [], 1, True),  # they find no slot
    ],
)
def test_a_message_whose_tasks_last_is_split_after_a_time_slice(
    monkeypatch, seconds, ended, running, waiting, is_split
):
    now = 1000.0
    monkeypatch.setattr(task_batch.time, "monotonic", lambda: now)
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single")
    attempts = SimpleNamespace(tasks=range(100), has_process=False, stage=stage, waiting_count=waiting)
    batch = TaskBatch(attempts, TaskSlots(8))
    batch._began = now - seconds
    batch._ended, batch._seconds = len(ended), sum(ended)
    batch._since = dict(enumerate(now - each for each in running))
    assert batch.is_to_be_split is is_split
