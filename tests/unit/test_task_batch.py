"""The tasks of one message while they run."""

import queue
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest

from core.errors import StoreUnavailable
from core.isolation.pool import ProcessPool
from core.models import StageDefinition
from core.models.lease import LeaseOutcome
from core.models.transition import ClaimedRow, ClaimOutcome
from core.running import task_batch, task_slots
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


def attempts_of(count, work):
    """Attempts of a message of this number of tasks, whose handler is `work`, without parameters."""
    catalog = SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=lambda _parameters, _context: work()))
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="fan_out")
    tasks = [task(f"t{number}") for number in range(count)]
    return Attempts(
        job, stage, uuid4(), tasks, catalog=catalog, results=SimpleNamespace(), keeper=LeaseKeeper(AllRenewed())
    )


def test_a_message_that_waits_for_its_first_slot_keeps_its_place_in_line(monkeypatch):
    """Each look whether it should be split cost it its place, so a small job waited until a large one had ended."""
    monkeypatch.setattr(task_batch, "ROOM_SECONDS", 0.0)
    slots, order = TaskSlots(1), []
    held = slots.take(0.0)
    with attempts_of(1, lambda: order.append("first")) as attempts:
        outcomes = TaskBatch(attempts, slots).outcomes()
        assert next(outcomes) == []
        with slots.line_up() as second:
            assert next(outcomes) == []
            slots.release(held)
            assert sum(map(len, outcomes)) == 1
            order.append("second")
            slots.release(second.wait(60))
    assert order == ["first", "second"]
    assert slots.taken == 0


def test_a_message_that_lets_others_have_its_slot_keeps_its_place_in_line(monkeypatch):
    monkeypatch.setattr(task_batch, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr(task_batch, "SLICE_SECONDS", 0.0)
    slots, order, others = TaskSlots(1), [], []

    def work():
        if not order:
            others.append(slots.line_up())
        order.append("own")

    def be_others():
        with others[0] as first:
            slot = first.wait(60)
            while not slots.is_wanted():
                pass
            with slots.line_up() as second:
                order.append("first")
                slots.release(slot)
                slots.release(second.wait(60))
                order.append("second")

    with attempts_of(2, work) as attempts:
        outcomes = TaskBatch(attempts, slots, slots.take(0.0)).outcomes()
        assert len(next(group for group in outcomes if group)) == 1
        thread = threading.Thread(target=be_others)
        thread.start()
        assert sum(map(len, outcomes)) == 1
        thread.join()
    assert order == ["own", "first", "own", "second"]


def test_a_young_message_keeps_its_slot_while_older_ones_have_not_waited_for_long():
    slots, seen, older = TaskSlots(1), [], []

    def work():
        if not older:
            older.append(slots.line_up())
        seen.append(older[0].is_served)

    with attempts_of(2, work) as attempts:
        assert sum(map(len, TaskBatch(attempts, slots, slots.take(0.0), is_ahead=True).outcomes())) == 2
    assert seen == [False, False]
    with older[0] as place:
        assert place.wait(60)


@pytest.mark.parametrize(("seconds", "gives_way"), [(60.0, False), (-1.0, True)])
def test_a_young_message_keeps_its_slot_for_a_time_slice_whatever_has_waited(monkeypatch, seconds, gives_way):
    """Else a job of three short tasks waits for a slot three times."""
    monkeypatch.setattr(task_batch, "SLICE_SECONDS", seconds)
    monkeypatch.setattr(task_slots, "PASSED_OVER_SECONDS", -1.0)
    slots, seen = TaskSlots(1), []
    held = slots.take(0.0)

    with slots.line_up() as older, attempts_of(2, lambda: seen.append(older.is_served)) as attempts:
        batch = TaskBatch(attempts, slots, held, is_ahead=True)
        monkeypatch.setattr(batch, "_step_aside", lambda slot: slots.release(slot) or older.wait(60))
        assert sum(map(len, batch.outcomes())) == 2
    assert seen == [False, gives_way]


def test_what_is_to_be_done_as_a_message_begins_is_done_beside_its_first_task():
    """It had its slot for nothing meanwhile."""
    began, is_done = threading.Event(), threading.Event()

    def work():
        began.set()
        is_done.wait(60)

    def begin():
        assert began.wait(60)
        is_done.set()

    slots = TaskSlots(1)
    with attempts_of(1, work) as attempts:
        assert sum(map(len, TaskBatch(attempts, slots, slots.take(0.0), begin).outcomes())) == 1
    assert is_done.is_set()


def test_a_message_without_a_slot_says_nothing_of_how_long_tasks_last(monkeypatch):
    monkeypatch.setattr(task_batch, "ROOM_SECONDS", 0.0)
    slots, begun = TaskSlots(1), []
    held = slots.take(0.0)
    with attempts_of(2, lambda: None) as attempts:
        batch = TaskBatch(attempts, slots, None, lambda: begun.append(1))
        outcomes = batch.outcomes()
        assert next(outcomes) == []
        assert not batch.has_begun
        assert begun == []
        slots.release(held)
        assert sum(map(len, outcomes)) == batch.count == 2
        assert batch.has_begun
        assert begun == [1]


def test_tasks_in_processes_have_room_in_the_order_of_the_line_for_slots(monkeypatch):
    """Each looked for room twice a second: a small job's task waited with all those of a large one for good luck."""
    pool = ProcessPool(1)
    monkeypatch.setattr(task_batch, "process_pool", lambda: pool)
    may_end = {name: threading.Event() for name in ("first", "old", "older", "young")}
    began = queue.SimpleQueue()

    def work(parameters, context):
        began.put(context.task_id)
        may_end[context.task_id].wait(60)

    catalog = SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=work))
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="fan_out")
    slots = TaskSlots(4)

    def run(name, is_ahead):
        attempts = Attempts(
            job,
            stage,
            uuid4(),
            [task(name)],
            catalog=catalog,
            results=SimpleNamespace(),
            keeper=LeaseKeeper(AllRenewed()),
        )
        attempts.has_process = True
        with attempts:
            for _ in TaskBatch(attempts, slots, slots.take_spare(), is_ahead=is_ahead).outcomes():
                pass

    threads = []
    for name, is_ahead in (("first", False), ("older", False), ("old", False), ("young", True)):
        threads.append(threading.Thread(target=run, args=(name, is_ahead)))
        threads[-1].start()
        if name == "first":
            assert began.get(timeout=30) == "first"
        else:
            room = task_batch._rooms[pool]
            while len(room._line) + len(room._ahead) < len(threads) - 1:
                time.sleep(0.01)
            assert slots.taken == 1
    order = []
    for name in ("first", "young", "older", "old"):
        may_end[name].set()
        if name != "old":
            order.append(began.get(timeout=30))
    assert order == ["young", "older", "old"]
    for thread in threads:
        thread.join(30)
