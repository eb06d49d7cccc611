"""A message of one short task goes on with the next tasks of its stage, which have no message; each commits alone."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from core.basics.canonical import encode_storable
from core.errors import StoreUnavailable
from core.models import Lease, StageRef
from core.models.control import AdjustRequest
from core.models.transition import ClaimOutcome, Completion, NextTask, NextTasks
from core.running import time_slice
from core.state_manager import StateManager
from infrastructure.verify import verify
from tests.databases import connect

from .machine_suite import Rig
from .test_costs import blocks
from .test_janitor import KilledMidway, pass_time, run_to_tasks
from .test_windows import declare, stage_row, statuses

# A first window of 32 messages, of one task each.
FIRST, MANY = 32, 60
# In the order in which they are taken.
IDS = sorted(f"s2-n{number}" for number in range(MANY))
FUNCTION = "app.complete_tasks_and_claim_next(%s, 1, 1, %s, %s, %s, %s, %s, %s, 'w')"
CALL = f"select task_id from {FUNCTION}"  # noqa: S608 - of this file


@pytest.fixture
def singles(monkeypatch):
    """The second stage has one task per message, and time does not end a slice."""
    declare(monkeypatch, tasks_per_message=1)
    monkeypatch.setattr(time_slice, "SLICE_SECONDS", 3600.0)


def begun(rig):
    """Tasks of the second stage whose handlers began, in order."""
    return [task_id for task_id in rig.behave.calls if task_id.startswith("s2")]


def end_and_take(engine, ref, lease_id, *task_ids, limit=1, types=("t",)):
    """What a process does that goes on: the check, and the ids that it has now."""
    results = {task_id: encode_storable({}, "result") for task_id in task_ids}
    wanted = NextTasks(types, limit, Lease(uuid4(), "w"))
    check, rows = engine.stages.complete_tasks_and_claim_next(ref, [Completion(lease_id, results)], wanted)
    return check, [row.task_id for row in rows]


@pytest.fixture
def stage(engine):
    """The last of two stages: 12 tasks, 4 of which are in the window, and the first of these is claimed."""
    job_id = engine.submit(stages=1, tasks_per_message=1)
    engine.plan(job_id, 1, 12, first_window=4)
    ref = StageRef(job_id, 1, 1)
    assert len(engine.tasks.take_next_tasks(ref)) == 4
    return ref, engine.claim(job_id, 1, task(0))


def task(index):
    return f"s1-{index:05d}"


def statuses_of(engine):
    rows = engine.query("select status, count(*) from app.tasks group by status")
    return {row["status"]: row["count"] for row in rows}


@pytest.mark.usefixtures("singles")
def test_one_message_runs_its_task_and_all_that_wait_for_their_turn(rig):
    job_id = run_to_tasks(rig, n=MANY)
    assert rig.queues.deliver(rig.machine)
    assert begun(rig) == [IDS[0], *IDS[FIRST:]]
    assert statuses(rig, job_id) == {"queued": FIRST - 1, "completed": MANY - FIRST + 1}
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result["total"] == sum(number**2 for number in range(MANY))
    assert set(rig.behave.calls.values()) == {1}
    assert rig.janitor.sweep().repairs == 0
    assert verify(rig.engine.pool) == []


@pytest.mark.usefixtures("singles")
def test_each_task_is_committed_before_the_next_begins(rig):
    seen = []
    rig.behave.before[IDS[FIRST + 2]] = lambda context: seen.append(statuses(rig, context.job_id))
    run_to_tasks(rig, n=MANY)
    rig.queues.deliver(rig.machine)
    assert seen == [{"completed": 3, "processing": 1, "queued": FIRST - 1, "pending": MANY - FIRST - 3}]


@pytest.mark.usefixtures("singles")
def test_the_queue_has_messages_as_long_as_tasks_wait(rig):
    """What scales workers by its length sees that there is work, however much of it one message does."""
    job_id = run_to_tasks(rig, n=200, bad=list(range(0, 200, 5)))  # what failed ends its message
    while statuses(rig, job_id)["pending"]:
        # How many depends on how quick this machine is.
        assert rig.queues.deliver(rig.machine)
    assert stage_row(rig, job_id)["window_after"] > "s2-n150"


@pytest.mark.parametrize("stop", ["pause", "cancel", "fail"])
@pytest.mark.usefixtures("singles")
def test_nothing_is_begun_of_a_job_that_was_stopped_meanwhile(rig, stop):
    def act(context):
        match stop:
            case "pause":
                rig.machine.pause_job(context.job_id)
            case "cancel":
                rig.machine.cancel_job(context.job_id, None)
            case "fail":
                rig.engine.execute("select app.fail_job(%s, 1, '{}')", context.job_id)

    rig.behave.before[IDS[FIRST + 1]] = act
    job_id = run_to_tasks(rig, n=MANY)
    while rig.queues.deliver(rig.machine):
        pass
    assert begun(rig) == [IDS[0], IDS[FIRST], IDS[FIRST + 1]]
    if stop == "pause":
        rig.machine.resume_job(job_id)
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status == "completed"
        assert set(rig.behave.calls.values()) == {1}
    assert verify(rig.engine.pool) == []


@pytest.mark.usefixtures("singles")
def test_max_parallel_that_is_set_meanwhile_holds_from_the_next_task_on(rig):
    def act(context):
        rig.machine.adjust_job(context.job_id, AdjustRequest({"max_parallel": 2}, stage=2, reason=None, actor=None))

    rig.behave.before[IDS[FIRST]] = act
    job_id = run_to_tasks(rig, n=MANY)
    rig.queues.deliver(rig.machine)
    assert begun(rig) == [IDS[0], IDS[FIRST]]
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


@pytest.mark.usefixtures("singles")
def test_a_message_does_not_go_on_while_a_stage_is_about_that_has_had_little(rig, monkeypatch):
    """A small job waited for the time of each message of the large one that was before its own."""
    monkeypatch.setattr(time_slice, "YOUNG_TASKS", 5)
    monkeypatch.setattr(time_slice, "PRESENT_SECONDS", 3600.0)

    def submit_another(_context):
        rig.submit(n=5)
        for _ in range(3):  # the job's message, then that of its first task, then one of the second stage's
            newest = max(rig.queues._entries)
            rig.queues._entries.remove(newest)
            rig.queues._entries.insert(0, replace(newest, due=0.0))
            rig.queues.deliver(rig.machine)

    rig.behave.before[IDS[FIRST + 8]] = submit_another
    job_id = run_to_tasks(rig, n=MANY)
    rig.queues.deliver(rig.machine)
    assert begun(rig) == [IDS[0], *IDS[FIRST : FIRST + 9]]
    rig.queues.deliver(rig.machine)
    assert begun(rig)[10:] == [IDS[1]]
    monkeypatch.setattr(time_slice, "PRESENT_SECONDS", 0.0)
    rig.queues.deliver(rig.machine)
    assert statuses(rig, job_id) == {"queued": FIRST - 3, "completed": MANY - FIRST + 3}


@pytest.mark.usefixtures("singles")
def test_a_failed_attempt_is_tried_again_by_a_message_of_its_own(rig):
    def fail_once(context):
        if context.attempt == 1:
            raise OSError("not yet")

    rig.behave.before[IDS[FIRST]] = fail_once
    job_id = run_to_tasks(rig, n=MANY)
    rig.queues.deliver(rig.machine)
    assert begun(rig) == [IDS[0], IDS[FIRST]]
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert Counter(rig.behave.calls.values()) == {1: MANY + 1, 2: 1}


@pytest.mark.usefixtures("singles")
def test_a_message_that_came_twice_takes_nothing_more(rig, monkeypatch):
    monkeypatch.setattr(time_slice, "SLICE_SECONDS", -1.0)
    run_to_tasks(rig, n=MANY)
    first = min(rig.queues._entries)
    rig.queues.deliver(rig.machine)
    monkeypatch.setattr(time_slice, "SLICE_SECONDS", 3600.0)
    rig.queues.deliver_to(lambda *_: None)  # another message, so that the next is the first once more
    rig.queues._entries.insert(0, first)
    rig.queues.deliver(rig.machine)
    assert begun(rig) == ["s2-n0"]


@pytest.mark.usefixtures("singles")
@pytest.mark.parametrize("survives", [True, False])
def test_what_a_process_had_taken_when_it_died_is_done_by_others(rig, monkeypatch, survives):
    """Its message comes again, or is lost with its broker: the row is enough."""
    job_id = run_to_tasks(rig, n=MANY)
    complete = rig.state.complete_tasks

    def die_after(*arguments, **options):
        _, claim = complete(*arguments, **options)
        assert claim is not None
        raise KilledMidway

    monkeypatch.setattr(rig.state, "complete_tasks", die_after)
    with pytest.raises(KilledMidway):
        rig.queues.deliver(rig.machine)
    monkeypatch.undo()
    assert rig.engine.task(job_id, IDS[FIRST])["status"] == "processing"
    if not survives:
        rig.queues.clear()
    other = Rig(rig.engine, rig.queues, behave=rig.behave)
    for _ in range(
        3
    ):  # a lease that ended is one sweep's, a window that is idle, or a message that is lost, the next's
        pass_time(other)
        other.janitor.sweep()
        other.queues.run(other.machine)
    assert other.job(job_id).status == "completed"
    assert rig.engine.task(job_id, IDS[FIRST])["interruptions"] == 1
    assert set(rig.behave.calls.values()) == {1}
    assert verify(rig.engine.pool) == []


@pytest.mark.usefixtures("singles")
def test_what_was_taken_by_a_process_that_drains_is_released_unbegun(rig, monkeypatch):
    job_id = run_to_tasks(rig, n=MANY)
    complete = rig.state.complete_tasks

    def drain_after(*arguments, **options):
        answer = complete(*arguments, **options)
        rig.machine.drain()
        return answer

    monkeypatch.setattr(rig.state, "complete_tasks", drain_after)
    rig.queues.deliver(rig.machine)
    row = rig.engine.task(job_id, IDS[FIRST])
    assert (row["status"], row["attempt"], row["interruptions"]) == ("pending", 0, 0)
    other = Rig(rig.engine, rig.queues, behave=rig.behave)
    other.queues.run(other.machine)
    assert other.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}


def test_windows_and_processes_that_go_on_never_have_the_same_task(engine, crowd):
    job_id = engine.submit(stages=1, tasks_per_message=1)
    engine.plan(job_id, 1, 400, first_window=16)
    ref = StageRef(job_id, 1, 1)
    announced = [one.task_id for one in engine.tasks.take_next_tasks(ref)]
    claimed = list(announced)

    def go_on(task_id):
        lease, found = engine.claim(job_id, 1, task_id), []
        for _ in range(12):
            wanted = Lease(uuid4(), "w")
            results = {task_id: encode_storable({}, "result")}
            _, rows = engine.stages.complete_tasks_and_claim_next(
                ref, [Completion(lease, results)], NextTasks(("t",), 1, wanted)
            )
            if not rows:
                break
            lease, task_id = wanted.lease_id, rows[0].task_id
            found.append(task_id)
        return found

    def fill():
        return [one.task_id for _ in range(12) for one in engine.tasks.take_next_tasks(ref)]

    found = crowd(*(lambda task_id=task_id: go_on(task_id) for task_id in announced[:8]), *[fill] * 4)
    claimed += [task_id for ids in found for task_id in ids]
    assert len(claimed) == len(set(claimed))
    assert sum(map(len, found[:8])) > 8
    assert sum(map(len, found[8:])) > 0


def test_a_task_that_a_window_is_taking_is_skipped_and_one_that_is_claimed_is_waited_for(engine, stage, database_url):
    ref, lease = stage
    take = "select task_id from app.take_next_tasks(%s, 1, 1, null)"
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
        engine.execute("update app.stages set window_size = 6")
        taken = [task_id for (task_id,) in holder.execute(take, (ref.job_id,)).fetchall()]
        assert taken == [task(index) for index in range(4, 4 + len(taken))]
        first_left = 4 + len(taken)
        assert end_and_take(engine, ref, lease, task(0))[1] == [task(first_left)]
        holder.commit()
        lease = engine.claim(ref.job_id, 1, task(1))
        holder.execute(CALL, (ref.job_id, [lease], [task(1)], [Jsonb({})], ["t"], 1, uuid4()))
        late = executor.submit(engine.tasks.take_next_tasks, ref)
        engine.wait_for_lock("transactionid")
        holder.commit()
        assert late.result(timeout=60)[0].task_id == task(first_left + 2)
    assert engine.task(ref.job_id, task(first_left + 1))["status"] == "processing"


def test_only_tasks_of_the_types_that_the_process_runs_are_taken(engine, stage):
    ref, lease = stage
    engine.execute("update app.tasks set task_type = 'other' where task_id = %s", task(4))
    _, rows = end_and_take(engine, ref, lease, task(0), limit=2)
    assert rows == [task(5), task(6)]


@pytest.mark.parametrize(
    "change",
    [
        "update app.tasks set attempt = 1, interruptions = 1 where task_index = 4",
        "update app.tasks set due_at = now() + interval '1 minute' where task_index = 4",
        "update app.tasks set parked_at = now() where task_index = 4",
    ],
)
def test_a_task_that_is_not_new_is_left_to_its_message(engine, stage, change):
    ref, lease = stage
    engine.execute(change)
    assert end_and_take(engine, ref, lease, task(0))[1] == [task(5)]


@pytest.mark.parametrize(
    "change",
    [
        "update app.jobs set paused_at = now()",
        "update app.jobs set status = 'cancelling'",
        "update app.jobs set deadline_at = now()",
        "update app.stages set deadline_at = now()",
        "update app.stages set queue_deadline_at = now()",
        """update app.stages set settings = settings || '{"max_parallel": 9}'""",
        """update app.stages set settings = settings || '{"tasks_per_message": 2}'""",
    ],
)
def test_nothing_is_taken_of_a_stage_that_does_not_go_on(engine, stage, change):
    ref, lease = stage
    engine.execute(change)
    check, rows = end_and_take(engine, ref, lease, task(0))
    assert (check.updated_ids, rows) == ((task(0),), [])
    rows = engine.query("select status from app.tasks where task_index > 0")
    assert {row["status"] for row in rows} <= {"pending", "cancelled"}


def test_a_process_whose_lease_is_lost_may_go_on_and_its_task_is_left_alone(engine, stage):
    ref, _ = stage
    check, rows = end_and_take(engine, ref, uuid4(), task(0))
    assert (check.updated_ids, rows) == ((), [task(4)])
    assert engine.task(ref.job_id, task(0))["status"] == "processing"


def test_the_last_task_of_a_stage_ends_it_and_takes_nothing(engine):
    job_id = engine.submit(stages=1, tasks_per_message=1)
    engine.plan(job_id, 1, 2, first_window=1)
    ref = StageRef(job_id, 1, 1)
    engine.tasks.take_next_tasks(ref)
    lease, wanted = engine.claim(job_id, 1, task(0)), Lease(uuid4(), "w")
    results = {task(0): encode_storable({}, "result")}
    check, (row,) = engine.stages.complete_tasks_and_claim_next(
        ref, [Completion(lease, results)], NextTasks(("t",), 1, wanted)
    )
    assert (check.is_last_task_in_stage, row.task_id) == (False, task(1))
    check, rows = end_and_take(engine, ref, wanted.lease_id, task(1))
    assert (check.is_last_task_in_stage, check.job_status, rows) == (True, "finalizing", [])


def test_processes_that_end_together_share_a_call_and_get_a_task_each(engine, stage):
    """Ten wait for eight tasks; whoever wants none gets none."""
    ref, lease = stage
    joined = StateManager(engine.jobs, engine.tasks, engine.stages)
    asked = [Completion(lease, {task(0): encode_storable({}, "result")})]
    asked += [
        Completion(uuid4(), {f"s1-9{n:04d}": encode_storable({}, "result")}, NextTask("t", "w")) for n in range(10)
    ]
    answers = joined._complete_all(ref, asked)
    assert answers[0][0].updated_ids == (task(0),)
    claims = [claim for _, claim in answers]
    assert claims[0] is None
    assert claims[9:] == [None, None]
    rows = [row for claim in claims[1:9] for row in claim.rows]
    assert sorted(row.task_id for row in rows) == [task(index) for index in range(4, 12)]
    assert {(row.outcome, row.attempt) for row in rows} == {(ClaimOutcome.CLAIMED, 1)}
    assert len({claim.lease_id for claim in claims[1:9]}) == 1


def test_the_commit_is_waited_for_and_serializable_transactions_are_refused(engine, stage, database_url):
    ref, lease = stage
    values = (ref.job_id, [lease], [task(0)], [Jsonb({})], ["t"], 1, uuid4())
    with connect(database_url) as connection:
        assert connection.execute(CALL, values).fetchall() == [(task(4),)]
        assert connection.execute("show synchronous_commit").fetchone() == ("on",)
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(CALL, values)
        assert refused.value.sqlstate == "CM005"


def test_going_on_reads_no_more_of_a_large_stage_than_of_a_small_one(engine, database_url):
    """Plans are made for empty tables, and stay."""
    counts = {}
    with connect(database_url, autocommit=True) as connection:
        connection.execute("vacuum analyze app.tasks, app.stages, app.jobs")
        for tasks in (20, 20_000):
            job_id = engine.submit(tasks_per_message=1)
            engine.plan(job_id, 1, tasks, first_window=4)
            engine.tasks.take_next_tasks(StageRef(job_id, 1, 1))
            lease = engine.claim(job_id, 1, task(0))
            values = (job_id, [lease], [task(0)], [Jsonb({})], ["t"], 4, uuid4())
            counts[tasks] = blocks(connection, FUNCTION, *values)
            assert engine.task(job_id, task(7))["status"] == "processing"
    assert counts[20_000] < 2 * counts[20]


@pytest.mark.usefixtures("singles")
def test_an_outage_while_a_task_ends_keeps_its_message(rig, monkeypatch):
    """Whether the call was made is not known: the task of the message is a duplicate, or it runs again."""
    job_id = run_to_tasks(rig, n=MANY)
    take = rig.engine.stages.__class__.complete_tasks_and_claim_next

    def lost_answer(*arguments):
        take(*arguments)
        monkeypatch.undo()
        raise StoreUnavailable("complete_tasks_and_claim_next", "the connection was cut")

    monkeypatch.setattr(rig.engine.stages.__class__, "complete_tasks_and_claim_next", lost_answer)
    with pytest.raises(StoreUnavailable):
        rig.queues.deliver(rig.machine)
    for _ in range(3):
        pass_time(rig)
        rig.janitor.sweep()
        rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}


def test_a_call_whose_answer_was_lost_finds_the_task_that_it_took(engine, stage):
    """A second one would stay leased, with nobody to run it."""
    ref, lease = stage
    completion = [Completion(lease, {task(0): encode_storable({}, "result")})]
    wanted = NextTasks(("t",), 2, Lease(uuid4(), "w"))
    _, first = engine.stages.complete_tasks_and_claim_next(ref, completion, wanted)
    check, again = engine.stages.complete_tasks_and_claim_next(ref, completion, wanted)
    assert (check.updated_ids, again) == ((), first)
    assert [row.task_id for row in again] == [task(4), task(5)]
    assert statuses_of(engine) == {"completed": 1, "processing": 2, "pending": 9}


def test_tasks_are_claimed_in_the_order_of_their_ids_wherever_their_rows_lie(engine, stage):
    """As those of a call whose answer was lost are found again, and as their logs are read."""
    ref, lease = stage
    for index in (4, 1):
        engine.execute("update app.tasks set name = 'moved' where task_id = %s", task(index))
    wanted = NextTasks(("t",), 2, Lease(uuid4(), "w"))
    completion = [Completion(lease, {task(0): encode_storable({}, "result")})]
    _, taken = engine.stages.complete_tasks_and_claim_next(ref, completion, wanted)
    assert [row.task_id for row in taken] == [task(4), task(5)]
    claimed = engine.tasks.claim_tasks(ref, [task(1), task(2)], lease=Lease(uuid4(), "w"))
    assert [row.task_id for row in claimed] == [task(1), task(2)]


def test_a_claim_whose_answer_was_lost_finds_what_it_claimed(engine, stage):
    ref, _ = stage
    lease = Lease(uuid4(), "w")
    first = engine.tasks.claim_tasks(ref, [task(1), task(2)], lease=lease)
    assert engine.tasks.claim_tasks(ref, [task(1), task(2)], lease=lease) == first
    alone = engine.tasks.claim_tasks(ref, [task(2)], lease=lease)
    assert [(row.task_id, row.outcome, row.attempt) for row in alone] == [(task(2), ClaimOutcome.CLAIMED, 1)]
    (other,) = engine.tasks.claim_tasks(ref, [task(2)], lease=Lease(uuid4(), "w"))
    assert other.outcome is ClaimOutcome.DUPLICATE
