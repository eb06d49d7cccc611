"""Large stages are announced in windows: little of them is in the queue, and nothing of them is forgotten."""

import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from core.announcing.windows import LOOK_SECONDS
from core.basics.canonical import encode_storable
from core.errors import StoreUnavailable
from core.models import Lease, StageRef
from core.models.control import AdjustOutcome, AdjustRequest, RerunMode, RerunRequest
from core.models.message import read_job_message, read_task_message
from core.models.status import JobPriority
from core.models.submission import SubmitRequest
from core.operating.explain import explain
from core.running import message_runner, task_batch
from core.running.task_batch import TaskBatch
from core.running.task_slots import TaskSlots
from infrastructure.insight import InsightQueries
from infrastructure.janitor_store import JanitorRepository
from infrastructure.verify import verify

from .machine_suite import FAST_RETRY, Rig, ShapesJob
from .test_janitor import pass_time, run_to_tasks

PER_MESSAGE = ShapesJob.stages[1]["tasks_per_message"]
# A first window of 32 messages, of which a stage of a thousand tasks has 143.
FIRST = 32 * PER_MESSAGE
MANY = 1_000
# More than two first windows.
SOME = 500
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def stage_row(rig, job_id, stage=2):
    (row,) = rig.engine.query("select * from app.stages where job_id = %s and stage = %s", job_id, stage)
    return row


def statuses(rig, job_id):
    """How many tasks of the second stage have each status; counted by the server, since most tests ask many times."""
    rows = rig.engine.query(
        "select status, count(*)::integer as n from app.tasks where job_id = %s and stage = 2 group by 1", job_id
    )
    return Counter({row["status"]: row["n"] for row in rows})


def messages_of(rig):
    """The bodies of the messages that wait, as they will come."""
    return [json.loads(entry.body) for entry in sorted(rig.queues._entries)]


def declare(monkeypatch, **settings):
    first, second, third = ShapesJob.stages
    monkeypatch.setattr(ShapesJob, "stages", [first, second | settings, third])


def test_a_large_stage_has_few_messages_in_the_queue_and_ends(rig):
    job_id = run_to_tasks(rig, n=MANY)
    assert statuses(rig, job_id) == {"queued": FIRST, "pending": MANY - FIRST}
    most = 0
    while rig.queues.deliver(rig.machine):
        most = max(most, len(rig.queues._entries))
    assert rig.job(job_id).result["total"] == sum(number**2 for number in range(MANY))
    assert most <= 100
    assert rig.behave.calls.total() == MANY + 2
    assert verify(rig.engine.pool) == []


def test_a_small_stage_is_announced_as_a_whole(rig):
    job_id = run_to_tasks(rig, n=100)
    assert statuses(rig, job_id) == {"queued": 100}
    assert stage_row(rig, job_id)["window_after"] is None
    assert {message["takes_next"] for message in messages_of(rig)} == {None}


def test_one_message_in_half_a_window_and_the_last_look_for_more(rig):
    run_to_tasks(rig, n=MANY)
    marks = [message["takes_next"] for message in messages_of(rig)]
    assert [place for place, mark in enumerate(marks, start=1) if mark] == [16, 32]
    assert marks.count(False) == 30


@pytest.mark.parametrize(
    ("settings", "function"),
    [
        ({}, "windows.StageWindows.fill"),
        ({"limits": [{"name": "api", "at_once": 500}]}, "limit_turns.LimitTurns.serve"),
    ],
)
def test_claimed_tasks_run_where_the_database_refuses_to_announce_more(rig, monkeypatch, settings, function):
    """They waited until their lease ended, and counted as interrupted."""
    declare(monkeypatch, **settings)
    job_id = run_to_tasks(rig, n=SOME)

    def refuse(*_, **__):
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(f"core.announcing.{function}", refuse)
        for _ in range(20):
            with suppress(StoreUnavailable):
                rig.queues.deliver(rig.machine)
    assert set(statuses(rig, job_id)) <= {"completed", "queued", "pending"}
    assert statuses(rig, job_id)["completed"] >= PER_MESSAGE


def test_a_small_job_waits_for_one_window_and_not_for_the_backlog(engine):
    rig = Rig(engine, on_the_spot=True)
    large = run_to_tasks(rig, n=MANY)
    small = rig.submit(n=3)
    while not rig.job(small).status.is_terminal:
        assert rig.queues.deliver(rig.machine)
    assert rig.job(small).status == "completed"
    assert statuses(rig, large)["completed"] <= FIRST
    assert rig.job(large).status == "processing"


def shares_of(rig, *job_ids, share):
    """How many tasks of each have ended when the first has come to this share of its tasks."""
    while True:
        ended = [statuses(rig, job_id)["completed"] for job_id in job_ids]
        if max(ended) >= share * MANY:
            return ended
        for _ in range(10):
            assert rig.queues.deliver(rig.machine)


def test_two_large_jobs_share_the_queue(engine):
    """The second one came when the first had a queue of its own, which did not grow with the speed of this machine."""
    engine.execute(
        "create or replace function app.window_size(p_running integer, p_rate double precision, p_per_message integer) "
        f"returns integer language sql immutable as $$ select {FIRST} $$"
    )
    # However slow this machine is: nobody looks again because time has passed.
    rig = Rig(engine, on_the_spot=True, clock=lambda: 100.0)
    first = run_to_tasks(rig, n=MANY)
    for _ in range(20):
        rig.queues.deliver(rig.machine)
    second = run_to_tasks(rig, n=MANY)
    before = statuses(rig, first)["completed"]
    ended = shares_of(rig, first, second, share=0.75)
    assert ended[1] >= (ended[0] - before) / 3


def test_a_job_of_high_priority_is_ahead_of_one_of_low(rig, monkeypatch):
    monkeypatch.setattr(ShapesJob, "priority", "low")
    low = run_to_tasks(rig, n=MANY)
    assert statuses(rig, low)["queued"] == FIRST / 4
    monkeypatch.setattr(ShapesJob, "priority", "high")
    high = run_to_tasks(rig, n=MANY)
    assert statuses(rig, high)["queued"] == FIRST * 4
    ended = shares_of(rig, low, high, share=0.75)
    assert ended[1] > 3 * ended[0]
    rig.queues.run(rig.machine)
    assert {rig.job(job_id).status for job_id in (low, high)} == {"completed"}


def test_jobs_that_share_a_queue_have_it_by_the_weights_of_their_priorities(clocked_engine):
    """4, 1 and 1/4. What a stage gets makes its window larger, too: so its share was the square of its weight."""
    engine, refs = clocked_engine, {}
    # Each has more than it comes to.
    for priority, tasks in (("low", 1_000), ("normal", 2_000), ("high", 4_500)):
        job_id = engine.submit(stages=1)
        engine.execute(
            "update app.jobs set priority = %s, definition = definition #- '{stages,0,tasks_per_message}'"
            " where job_id = %s",
            priority,
            job_id,
        )
        engine.plan(job_id, 1, tasks, first_window=32)
        refs[priority] = StageRef(job_id, 1, 1)
    # Sixteen slots, tasks of a tenth of a second, and one queue, first in, first out.
    queue, ended, running = [], Counter(), []
    for tick in range(260):
        engine.execute("select set_config('app.fake_now', %s, false)", str(MIDNIGHT + timedelta(seconds=tick / 10)))
        for priority, lease_id, ids in running:
            results = {task_id: {} for task_id in ids}
            engine.stages.complete_task_and_check_stage(refs[priority], lease_id=lease_id, results=results)
            ended[priority] += len(ids) if tick >= 100 else 0
        for priority, ref in refs.items():
            queue += [(priority, task.task_id) for task in engine.tasks.take_next_tasks(ref, 0.1)]
        now, queue = queue[:16], queue[16:]
        running = []
        for priority, ref in refs.items():
            if ids := [task_id for each, task_id in now if each == priority]:
                lease = Lease(uuid4(), "w")
                engine.tasks.claim_tasks(ref, ids, lease=lease)
                running.append((priority, lease.lease_id, ids))
    assert sum(ended.values()) == 16 * 160
    assert 2.5 <= ended["high"] / ended["normal"] <= 5.5
    assert 2.5 <= ended["normal"] / ended["low"] <= 5.5


def adjust(rig, job_id, *, stage=None, **changes):
    return rig.machine.adjust_job(job_id, AdjustRequest(changes, stage=stage, reason="now", actor="kim"))


def test_priority_of_a_submission_counts_and_not_that_of_the_class(rig, monkeypatch):
    monkeypatch.setattr(ShapesJob, "priority", "high")
    job_id = rig.machine.submit_job(SubmitRequest("shapes", {"n": MANY}, priority=JobPriority.LOW)).job_id
    rig.queues.deliver(rig.machine)
    rig.queues.deliver(rig.machine)
    assert statuses(rig, job_id)["queued"] == FIRST / 4
    assert rig.job(job_id).effective_priority == "low"


def test_a_job_that_gets_a_higher_priority_takes_more_at_once(rig):
    job_id = run_to_tasks(rig, n=MANY)
    assert adjust(rig, job_id, priority="normal").outcome is AdjustOutcome.ADJUSTED
    assert statuses(rig, job_id)["queued"] == FIRST
    # Until its window is one that was measured.
    for _ in range(40):
        assert rig.queues.deliver(rig.machine)
    before = statuses(rig, job_id)["queued"]
    answer = adjust(rig, job_id, priority="high")
    assert (answer.outcome, answer.priority) == (AdjustOutcome.ADJUSTED, "high")
    assert statuses(rig, job_id)["queued"] > 1.3 * before
    assert adjust(rig, job_id, priority="high").outcome is AdjustOutcome.UNCHANGED
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert adjust(rig, job_id, priority="low").outcome is AdjustOutcome.REFUSED


def test_max_parallel_may_change_while_the_stage_runs(rig, monkeypatch):
    declare(monkeypatch, max_parallel=2, tasks_per_message=1)
    job_id = run_to_tasks(rig, n=60)

    def most_open(count):
        """The largest number of open tasks in the queue while this number of messages comes."""
        seen = []
        for _ in range(count):
            seen.append(statuses(rig, job_id)["queued"])
            assert rig.queues.deliver(rig.machine)
        return max(seen)

    assert most_open(5) == 2
    answer = adjust(rig, job_id, max_parallel=5, stage=2)
    assert (answer.outcome, answer.max_parallel) == (AdjustOutcome.ADJUSTED, 5)
    assert most_open(15) == 5
    assert adjust(rig, job_id, max_parallel=1).max_parallel == 1
    most_open(5)
    assert most_open(5) == 1
    assert adjust(rig, job_id, max_parallel=None).max_parallel is None
    assert most_open(10) > 5
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert verify(rig.engine.pool) == []


def test_max_parallel_changes_nothing_where_nothing_waits(rig, monkeypatch):
    declare(monkeypatch, max_parallel=2, tasks_per_message=1)
    job_id = rig.submit(n=3)
    assert adjust(rig, job_id, max_parallel=3).outcome is AdjustOutcome.NOTHING_WAITS
    rig.queues.deliver(rig.machine)
    rig.queues.deliver(rig.machine)
    assert statuses(rig, job_id) == {"queued": 2, "pending": 1}
    rig.queues.deliver(rig.machine)
    assert adjust(rig, job_id, max_parallel=3).outcome is AdjustOutcome.NOTHING_WAITS


def test_max_parallel_of_another_stage_changes_nothing(rig, monkeypatch):
    declare(monkeypatch, max_parallel=2, tasks_per_message=1)
    job_id = run_to_tasks(rig, n=30)
    before = stage_row(rig, job_id)["settings"]
    assert adjust(rig, job_id, max_parallel=9, stage=3).outcome is AdjustOutcome.OTHER_STAGE
    assert adjust(rig, "ab" * 32, max_parallel=9) is None
    assert stage_row(rig, job_id)["settings"] == before
    rows = rig.engine.query("select * from app.audit_log where action = 'adjust'")
    assert rows == []


def test_an_adjustment_is_in_the_timeline_and_in_the_audit_log(rig):
    job_id = run_to_tasks(rig, n=MANY)
    adjust(rig, job_id, priority="low", max_parallel=40)
    (event,) = rig.engine.query("select * from app.job_events where event = 'job_adjusted'")
    assert event["detail"] == {"priority": "low", "max_parallel": 40, "reason": "now", "actor": "kim"}
    (row,) = rig.engine.query("select * from app.audit_log where action = 'adjust'")
    assert (row["job_id"], row["actor"], row["reason"]) == (job_id, "kim", "now")
    assert row["detail"] == {"run": 1, "stage": 2, "from": {}, "to": {"priority": "low", "max_parallel": 40}}


def test_windows_are_taken_while_max_parallel_changes(engine, monkeypatch, crowd):
    """Both take the window's lock: whatever comes first, the smaller number holds from then on."""
    declare(monkeypatch, max_parallel=8, tasks_per_message=1)
    rig = Rig(engine)
    job_id = run_to_tasks(rig, n=100)
    ref = StageRef(job_id, 1, 2)
    rig.queues.deliver(rig.machine)
    crowd(*(lambda: rig.state.take_next_tasks(ref) for _ in range(3)), lambda: adjust(rig, job_id, max_parallel=2))
    assert statuses(rig, job_id)["queued"] + statuses(rig, job_id)["processing"] <= 8
    assert rig.state.take_next_tasks(ref) == []
    assert stage_row(rig, job_id)["settings"]["max_parallel"] == 2


@pytest.mark.parametrize("per_message", [1, 7])
@pytest.mark.parametrize("most", [1, 5])
def test_no_more_tasks_are_open_at_a_time_than_max_parallel(rig, monkeypatch, most, per_message):
    """Retries count, too: some attempts fail at first."""
    declare(monkeypatch, max_parallel=most, tasks_per_message=per_message)
    running, seen, lock = [0], [], threading.Lock()

    def act(context):
        with lock:
            running[0] += 1
            seen.append(running[0])
        try:
            if context.attempt == 1 and context.task_index % 7 == 0:
                raise OSError("not yet")
        finally:
            with lock:
                running[0] -= 1

    for number in range(60):
        rig.behave.before[f"s2-n{number}"] = act
    job_id = rig.submit(n=60)
    while rig.queues.deliver(rig.machine, skip_delays=True):
        announced = statuses(rig, job_id)
        assert announced["queued"] + announced["processing"] + announced["pending_retry"] <= most
    assert rig.job(job_id).status == "completed"
    assert max(seen) <= most
    # Each time all that may run has been sent: nothing waited for a sweep.
    assert rig.janitor.sweep().repairs == 0


def test_max_parallel_holds_over_several_workers(engine, monkeypatch, crowd):
    declare(monkeypatch, max_parallel=3, tasks_per_message=1)
    rig = Rig(engine)
    running, seen, lock = [0], [], threading.Lock()
    met = threading.Barrier(3)

    def act(context):
        with lock:
            running[0] += 1
            seen.append(running[0])
        if context.task_index < 3:
            met.wait(timeout=30)  # three do run at a time
        with lock:
            running[0] -= 1

    for number in range(40):
        rig.behave.before[f"s2-n{number}"] = act
    job_id = rig.submit(n=40)
    others = [Rig(engine, rig.queues, behave=rig.behave) for _ in range(2)]
    rig.queues.deliver(rig.machine)
    crowd(*(lambda other=other: other.queues.run(other.machine, threads=4) for other in others))
    assert rig.job(job_id).status == "completed"
    assert max(seen) == 3


def test_tasks_that_wait_for_another_attempt_keep_no_place_from_others(rig, monkeypatch):
    """A window full of them stood still until they were due."""
    declare(monkeypatch, retry=FAST_RETRY | {"base_delay_seconds": 3600, "max_delay_seconds": 3600})

    def fail(_context):
        raise OSError("not yet")

    for number in range(SOME):
        if number % 3:
            rig.behave.before[f"s2-n{number}"] = fail
    job_id = run_to_tasks(rig, n=SOME)
    while rig.queues.deliver(rig.machine):
        pass
    found = statuses(rig, job_id)
    assert found["completed"] == -(-SOME // 3)
    assert found["pending_retry"] == SOME - found["completed"]


def test_paused_stage_takes_nothing_and_goes_on_when_it_is_resumed(rig):
    job_id = run_to_tasks(rig, n=SOME)
    rig.machine.pause_job(job_id)
    while rig.queues.deliver(rig.machine):
        pass
    assert statuses(rig, job_id) == {"queued": FIRST, "pending": SOME - FIRST}
    pass_time(rig)
    assert rig.janitor.sweep().repairs == 0
    rig.machine.resume_job(job_id)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.behave.calls.total() == SOME + 2


def test_stage_whose_window_emptied_during_a_pause_goes_on(rig):
    """All tasks of the window ended after the pause began, so none of them took the next."""
    job_id = run_to_tasks(rig, n=SOME)
    rig.behave.before["s2-n0"] = lambda context: rig.machine.pause_job(context.job_id)
    while rig.queues.deliver(rig.machine):
        pass
    for text in (
        "set parked_at = null, status = 'processing', lease_id = gen_random_uuid(), lease_expires_at = now()",
        "set status = 'completed', lease_id = null, lease_expires_at = null, finished_at = now(), result = '{}'",
    ):
        rig.engine.execute(f"update app.tasks {text} where stage = 2 and status in ('queued', 'processing')")
    rig.machine.resume_job(job_id)
    assert statuses(rig, job_id)["queued"] > 0


def test_few_messages_of_a_cancelled_job_are_left(rig):
    job_id = run_to_tasks(rig, n=SOME)
    assert rig.machine.cancel_job(job_id, "no longer needed") == "cancelled"
    assert len(rig.queues._entries) <= 32
    while rig.queues.deliver(rig.machine):
        pass
    assert rig.behave.calls.total() == 1
    assert rig.janitor.sweep().repairs == 0


def test_rerun_of_many_failed_tasks_is_announced_in_windows(rig, monkeypatch):
    declare(monkeypatch, retry=FAST_RETRY | {"max_attempts": 1}, failure={"on_failure": "continue"})
    bad = list(range(0, SOME, 2))
    job_id = rig.run(n=SOME, bad=bad)
    assert rig.job(job_id).status == "completed_with_errors"
    answer = rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.FAILED))
    assert answer.fresh_count == len(bad)
    rows = [row for row in rig.tasks(job_id, 2) if row["run"] == 2]
    assert {row["parked_at"] for row in rows} == {None}
    found = Counter(row["status"] for row in rows)
    assert found == {"completed": SOME - len(bad), "queued": FIRST, "pending": len(bad) - FIRST}
    rig.queues.run(rig.machine)
    assert rig.job(job_id).run == 2
    assert rig.job(job_id).status.is_terminal
    assert verify(rig.engine.pool) == []


def test_workers_of_the_release_before_are_helped_by_the_janitor(rig):
    """They do not know what the mark in a message means; each sweep fills the window."""
    job_id = run_to_tasks(rig, n=SOME)

    def as_before(queue, body):
        if queue == "tasks":
            message = read_task_message(queue, body)
            rig.machine.process_task_message(message.model_copy(update={"takes_next": None}))
        else:
            rig.machine.process_job_message(read_job_message(queue, body))

    while not rig.job(job_id).status.is_terminal:
        if not rig.queues.deliver_to(as_before):
            assert statuses(rig, job_id)["queued"] == 0
            pass_time(rig)
            assert rig.janitor.sweep().taken_tasks > 0
    assert rig.job(job_id).status == "completed"
    assert rig.behave.calls.total() == SOME + 2


def test_many_who_take_at_once_take_no_task_twice_and_fill_the_window_once(rig, crowd):
    job_id = run_to_tasks(rig, n=MANY)
    ref = StageRef(job_id, 1, 2)
    for _ in range(10):
        rig.queues.deliver(rig.machine)
    pass_time(rig, 1)
    before = statuses(rig, job_id)
    taken = [task.task_id for tasks in crowd(*[lambda: rig.state.take_next_tasks(ref)] * 8) for task in tasks]
    assert len(taken) == len(set(taken))
    assert len(taken) + before["queued"] <= FIRST
    assert [rig.state.take_next_tasks(ref) for _ in range(3)] == [[], [], []]


def test_a_take_reads_as_many_rows_whatever_the_size_of_its_stage(engine):
    found = []
    for tasks in (500, 5_000):
        job_id = engine.submit()
        ref = StageRef(job_id, 1, 1)
        engine.plan(job_id, 1, tasks, first_window=100)
        assert len(engine.tasks.take_next_tasks(ref)) == 100
        lease = engine.claim(job_id, 1, *(f"s1-{number:05d}" for number in range(60)))
        results = {f"s1-{number:05d}": {} for number in range(60)}
        engine.stages.complete_task_and_check_stage(ref, lease_id=lease, results=results)
        read = "select sum(seq_tup_read + idx_tup_fetch) as n from pg_stat_xact_user_tables where relname = 'tasks'"
        with engine.pool.connection() as connection, connection.transaction():
            before = connection.execute(read).fetchone()["n"]
            taken = connection.execute("select * from app.take_next_tasks(%s, 1, 1, null)", (job_id,)).fetchall()
            found.append(connection.execute(read).fetchone()["n"] - before - len(taken))
        assert taken[0]["task_id"] == "s1-00100"
    assert 0 < found[1] <= found[0] + 60, found


class LooksFirst(TaskBatch):
    """The look for more tasks has ended when the first handler begins: beside it, it may come at any time."""

    def __init__(self, attempts, slots, slot, begin, *, is_ahead):
        if begin is not None:
            begin()
        super().__init__(attempts, slots, slot, is_ahead=is_ahead)


@pytest.mark.parametrize(("per_message", "count"), [(1, 200), (PER_MESSAGE, SOME)])
def test_a_stage_goes_on_while_those_that_look_for_more_last_longest(engine, monkeypatch, per_message, count):
    """All other messages end at once. The stage waited for the next sweep, with idle workers."""
    declare(monkeypatch, tasks_per_message=per_message)
    monkeypatch.setattr(message_runner, "TaskBatch", LooksFirst)
    rig = Rig(engine, clock=lambda: 100.0)
    job_id = run_to_tasks(rig, n=count)
    left = []

    def last(_context):
        while rig.queues.deliver(rig.machine):
            pass
        left.append(statuses(rig, job_id)["pending"])

    for message in messages_of(rig):
        if message["takes_next"]:
            rig.behave.before[message["task_ids"][0]] = last
    rig.queues.deliver(rig.machine)
    while not left:
        assert rig.queues.deliver(rig.machine)
    assert left
    assert not any(left)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.janitor.sweep().repairs == 0


def test_message_that_is_not_marked_looks_only_if_nobody_has_lately(engine):
    now = [100.0]
    rig = Rig(engine, clock=lambda: now[0])
    run_to_tasks(rig, n=MANY)
    takes = []
    take = rig.state.take_next_tasks
    rig.state.take_next_tasks = lambda *given: takes.append(given) or take(*given)
    rig.queues.deliver(rig.machine)
    assert takes == []
    now[0] += 2 * LOOK_SECONDS
    for _ in range(3):
        rig.queues.deliver(rig.machine)
    assert len(takes) == 1


def explained(rig, job_id):
    return explained_by(rig.engine, StageRef(job_id, 1, 2))


def explained_by(engine, ref):
    facts = InsightQueries(engine.pool).get_job_facts(ref.job_id)
    return {finding.code: finding.message for finding in explain(facts)}


def test_explain_says_that_tasks_wait_in_line(rig, monkeypatch):
    job_id = run_to_tasks(rig, n=SOME)
    found = explained(rig, job_id)
    assert f"waiting in line: {SOME - FIRST} tasks of stage 2; {FIRST} tasks announced" in found["waits_for_turn"]
    assert "tasks_not_announced" not in found
    monkeypatch.setattr("core.announcing.windows.StageWindows.fill", lambda *_: 0)
    rig.queues.run(rig.machine)
    # One look does not say whether tasks go on: it may be one between two claims.
    told = explained(rig, job_id)["waits_for_turn"]
    assert "none was announced or running at the moment of this look; if that stays so, the janitor's next" in told


def test_tasks_of_a_window_lack_a_message_since_they_were_taken_into_it(rig):
    """In a stage of ten minutes each look said that they wait since it was planned, and that the janitor is late."""
    job_id = run_to_tasks(rig, n=MANY)
    rig.engine.execute("update app.tasks set created_at = created_at - interval '10 minutes' where stage = 2")
    rig.engine.execute(
        "update app.tasks set status = 'pending', announced_at = null where job_id = %s and stage = 2"
        " and status = 'queued' and task_id in (select task_id from app.tasks where status = 'queued' limit 45)",
        job_id,
    )
    rig.engine.execute("update app.stages set window_at = app.clock() - interval '5 seconds' where stage = 2")
    found = explained(rig, job_id)
    assert "waits_for_turn" in found
    assert not {"tasks_not_announced", "janitor_late"} & found.keys()
    rig.engine.execute("update app.stages set window_at = app.clock() - interval '31 seconds' where stage = 2")
    assert "45 tasks of stage 2" in explained(rig, job_id)["tasks_not_announced"]


def test_explain_between_two_claims_says_what_a_look_shows(rig, monkeypatch):
    """While 200 short tasks a second went on, it claimed that nothing runs before the janitor's next sweep."""
    declare(monkeypatch, max_parallel=2, tasks_per_message=1)
    job_id = run_to_tasks(rig, n=SOME)
    facts = InsightQueries(rig.engine.pool).get_job_facts(job_id)
    between = replace(facts, in_line=facts.open_count, leases=())
    (finding,) = [each for each in explain(between) if each.code == "waits_for_turn"]
    assert "none was announced or running at the moment of this look; if that stays so" in finding.message
    assert "max_parallel lets 2 of them run at a time" in finding.advice
    assert "priority" not in finding.advice


def test_explain_names_the_limit_and_who_holds_it(rig, monkeypatch):
    declare(monkeypatch, max_parallel=2, tasks_per_message=1)
    seen = []
    rig.behave.before["s2-n0"] = lambda context: seen.append(explained(rig, context.job_id))
    job_id = run_to_tasks(rig, n=50)
    waiting = explained(rig, job_id)["waits_for_limit"]
    assert waiting.endswith("48 tasks of stage 2; 2 tasks announced, none of which a worker has now")
    rig.queues.run(rig.machine)
    (found,) = seen
    assert "max_parallel 2 of the stage: 48 tasks" in found["waits_for_limit"]
    assert found["waits_for_limit"].endswith("held by test-process (1)")


def sizes_of(rig):
    """How many tasks each message names that waits, as they will come."""
    return [len(message["task_ids"]) for message in messages_of(rig)]


def test_messages_of_a_stage_that_declares_no_size_grow_while_it_runs(rig, monkeypatch):
    """Nothing was known of its tasks: the first run of a job was twenty times slower than the second."""
    declare(monkeypatch, tasks_per_message=None)
    job_id = run_to_tasks(rig, n=MANY)
    assert set(sizes_of(rig)) == {10}
    largest = 0
    while rig.queues.deliver(rig.machine):
        largest = max([largest, *sizes_of(rig)])
    assert largest == 100
    assert rig.job(job_id).result["total"] == sum(number**2 for number in range(MANY))
    assert max(rig.behave.calls.values()) == 1


def test_messages_of_tasks_that_last_become_small(rig, monkeypatch):
    declare(monkeypatch, tasks_per_message=None)
    job_id = run_to_tasks(rig, n=MANY)
    seconds = [0.05]
    monkeypatch.setattr(TaskBatch, "mean_seconds", property(lambda _: seconds[0]))
    while 2 not in sizes_of(rig):
        assert rig.queues.deliver(rig.machine)
    assert set(sizes_of(rig)) <= {2, 10}
    assert stage_row(rig, job_id)["settings"]["tasks_per_message"] == 2


def test_a_declared_size_is_the_most_that_a_message_has(rig, monkeypatch):
    """Small jobs waited behind hundreds of seconds of work in few messages."""
    declare(monkeypatch, tasks_per_message=20)
    job_id = run_to_tasks(rig, n=MANY)
    seconds = [1.0]
    monkeypatch.setattr(TaskBatch, "mean_seconds", property(lambda _: seconds[0]))
    while 1 not in sizes_of(rig):
        assert rig.queues.deliver(rig.machine)
    assert set(sizes_of(rig)) <= {1, 10, 20}
    seconds[0] = 0.001
    while rig.queues.deliver(rig.machine):
        assert max([*sizes_of(rig), 1]) <= 20
    assert stage_row(rig, job_id)["settings"]["tasks_per_message"] >= 10
    assert set(rig.behave.calls.values()) == {1}


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 400), ({"limits": [{"name": "api", "at_once": 60}]}, 120), ({"max_parallel": 100}, 200)],
)
def test_what_lasts_goes_back_into_the_line_and_not_into_the_queue(engine, monkeypatch, settings, count):
    """The parts of large messages lay before a job that came then, which waited for half a minute."""
    declare(monkeypatch, tasks_per_message=10, **settings)
    monkeypatch.setattr(task_batch, "SLICE_SECONDS", 0.0)
    rig = Rig(engine, slots=TaskSlots(1), clock=lambda: 100.0)
    released = threading.Event()
    release = rig.state.release_tasks_into_line

    def note(*given, **named):
        answer = release(*given, **named)
        released.set()
        return answer

    monkeypatch.setattr(rig.state, "release_tasks_into_line", note)
    monkeypatch.setattr(
        TaskBatch, "mean_seconds", property(lambda batch: 1.0 if batch._since and not released.is_set() else 0.0)
    )
    job_id = run_to_tasks(rig, n=count)
    # A queue drops a message whose id it knows.
    sent = []
    send = rig.queues.send_messages
    monkeypatch.setattr(
        rig.queues, "send_messages", lambda *given: sent.extend(each.message_id for each in given[1]) or send(*given)
    )
    before = messages_of(rig)
    for task_id in before[0]["task_ids"]:
        rig.behave.before[task_id] = lambda _: None if released.wait(60) else {}
    assert rig.queues.deliver(rig.machine)
    # A limit has room for them at once.
    assert messages_of(rig)[: len(before) - 1] == before[1:]
    assert len(messages_of(rig)) == len(before) - 1 or "limits" in settings
    rows = [engine.task(job_id, task_id) for task_id in before[0]["task_ids"]]
    waits = ("queued", 0) if "limits" in settings else ("pending", 0)
    assert Counter((row["status"], row["attempt"]) for row in rows) == {("completed", 1): 1, waits: 9}
    if not settings:
        assert "tasks_not_announced" not in explained(rig, job_id)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}
    assert len(set(sent)) == len(sent)
    assert rig.janitor.sweep().repairs == 0
    assert verify(engine.pool) == []


def test_a_process_that_knows_that_tasks_last_releases_no_more_of_them(engine, monkeypatch):
    """Each first message was claimed as a whole and released, since the last job's tasks took a tenth of the time."""
    declare(monkeypatch, tasks_per_message=100)
    monkeypatch.setattr("infrastructure.results.ResultRepository.mean_task_seconds", lambda *_: 0.001)
    rig = Rig(engine, slots=TaskSlots(2))
    counts = Counter()

    def count(name, call):
        monkeypatch.setattr(rig.state, name, lambda *given, **named: counts.update([name]) or call(*given, **named))

    for name in ("release_tasks_into_line", "return_tasks_to_line"):
        count(name, getattr(rig.state, name))
    job_id = run_to_tasks(rig, n=300)
    assert sizes_of(rig) == [100, 100, 100]
    rig.behave.before = {f"s2-n{number}": lambda _: time.sleep(0.01) for number in range(300)}
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}
    assert counts == {"release_tasks_into_line": 1, "return_tasks_to_line": 2}
    assert rig.janitor.sweep().repairs == 0
    assert verify(engine.pool) == []


def released(engine, count, *, late_mark=False):
    """A stage of 40, of which this number were announced, claimed and released into the line again."""
    job_id = engine.submit(stages=1, tasks_per_message=5)
    engine.plan(job_id, 1, 40, first_window=10)
    ref = StageRef(job_id, 1, 1)
    ids = [task.task_id for task in engine.tasks.take_next_tasks(ref)][:count]
    lease = engine.claim(job_id, 1, *ids)
    found = engine.tasks.release_tasks_into_line(ref, lease_id=lease, task_ids=ids, started=False)
    assert (list(found.task_ids), found.is_in_line) == (ids, True)
    if late_mark:
        assert engine.tasks.mark_tasks_announced(ref.job_ref, ids) == 0
    return ref, ids


@pytest.mark.parametrize("late_mark", [False, True])
def test_what_went_back_into_the_line_is_taken_once_before_what_is_new(engine, late_mark):
    ref, ids = released(engine, 10, late_mark=late_mark)
    found = engine.tasks.take_next_tasks(ref)
    taken = [task.task_id for task in found]
    assert taken[:10] == ids
    assert [task.task_id for task in found if task.is_again] == ids
    assert len(set(taken)) == len(taken)
    assert engine.tasks.take_next_tasks(ref) == []
    engine.tasks.mark_tasks_announced(ref.job_ref, taken)
    assert {engine.task(ref.job_id, task_id)["status"] for task_id in taken} == {"queued"}


def test_what_went_back_into_the_line_is_found_by_a_sweep_if_its_process_dies(engine):
    ref, ids = released(engine, 10)
    janitor = JanitorRepository(engine.pool)
    assert janitor.find_unannounced_tasks(1000, 0.0, 0.0) == []
    assert janitor.find_idle_windows(100, 0.0, 0.0) == [ref]
    assert {task.task_id for task in engine.tasks.take_next_tasks(ref)} >= set(ids)


def test_tasks_of_a_paused_job_go_back_into_the_line_and_are_cancelled_with_it(engine):
    ref, ids = released(engine, 10)
    engine.execute("update app.jobs set paused_at = now() where job_id = %s", ref.job_id)
    assert engine.tasks.take_next_tasks(ref) == []
    engine.jobs.cancel_job(ref.job_id, None)
    assert {engine.task(ref.job_id, task_id)["status"] for task_id in ids} == {"cancelled"}
    assert verify(engine.pool) == []


ERROR = {"type": "OSError", "message": "not yet", "retryable": True}


def retried(engine, count=10, *, delay_seconds=0.0, **settings):
    """A stage of 40, ten of which were announced and claimed; this number failed. Its answers and their ids."""
    job_id = engine.submit(stages=1, **{"tasks_per_message": 5, "retry": FAST_RETRY} | settings)
    engine.plan(job_id, 1, 40, first_window=10)
    ref = StageRef(job_id, 1, 1)
    ids = [task.task_id for task in engine.tasks.take_next_tasks(ref)]
    lease = engine.claim(job_id, 1, *ids)
    answers = [
        engine.stages.increment_task_retry_count(ref, task_id, lease_id=lease, error=ERROR, delay_seconds=delay_seconds)
        for task_id in ids[:count]
    ]
    return ref, ids[:count], [answer.is_in_line for answer in answers]


def test_tasks_that_are_due_for_another_attempt_wait_in_line_and_are_taken_first(engine):
    """Each had a message of its own: small jobs waited for thousands of them."""
    ref, ids, are_in_line = retried(engine)
    assert are_in_line == [True] * 10
    janitor = JanitorRepository(engine.pool)
    assert janitor.find_unannounced_tasks(1000, 0.0, 0.0) == []
    assert janitor.find_idle_windows(100, 0.0, 0.0) == [ref]
    found = engine.tasks.take_next_tasks(ref)
    assert [task.task_id for task in found][:10] == ids
    assert {task.attempt for task in found if task.is_again} == {1}
    assert engine.tasks.take_next_tasks(ref) == []
    engine.tasks.mark_tasks_announced(ref.job_ref, [task.task_id for task in found])
    rows = [engine.task(ref.job_id, task_id) for task_id in ids]
    assert {(row["status"], row["attempt"], row["due_at"]) for row in rows} == {("queued", 1, None)}
    assert verify(engine.pool) == []


def test_tasks_that_are_not_due_yet_are_not_taken(engine):
    ref, ids, _ = retried(engine, 5, delay_seconds=3600.0)
    assert not set(ids) & {task.task_id for task in engine.tasks.take_next_tasks(ref)}
    assert {engine.task(ref.job_id, task_id)["status"] for task_id in ids} == {"pending_retry"}


def test_a_retry_that_has_a_message_is_not_taken(engine):
    ref, ids, _ = retried(engine)
    # A whole message of five is left, so that the window has room for it whatever it has grown to.
    engine.tasks.mark_tasks_announced(ref.job_ref, ids[:5])
    assert {task.task_id for task in engine.tasks.take_next_tasks(ref) if task.is_again} == set(ids[5:])


def test_retries_that_max_parallel_counts_have_messages_of_their_own(engine):
    ref, ids, are_in_line = retried(engine, max_parallel=10)
    assert are_in_line == [False] * 10
    engine.tasks.mark_tasks_announced(ref.job_ref, ids)
    assert engine.tasks.take_next_tasks(ref) == []


def set_max_parallel(engine, ref, number):
    answer = engine.jobs.adjust_job(ref.job_id, AdjustRequest({"max_parallel": number}, stage=1))
    assert answer.outcome is AdjustOutcome.ADJUSTED


def test_retries_in_line_go_on_under_a_max_parallel_that_is_set_then(engine):
    """They waited for a sweep, and it announced all of them at once, however few may run at a time."""
    ref, ids, are_in_line = retried(engine)
    assert are_in_line == [True] * 10
    set_max_parallel(engine, ref, 3)
    janitor = JanitorRepository(engine.pool)
    assert janitor.find_unannounced_tasks(1000, 0.0, 0.0) == []
    assert explained_by(engine, ref)["waits_for_turn"].startswith("waiting in line: 40 tasks of stage 1; none")
    assert janitor.find_idle_windows(100, 0.0, 0.0) == [ref]
    for place in range(0, 9, 3):
        taken = [task.task_id for task in engine.tasks.take_next_tasks(ref)]
        assert taken == ids[place : place + 3]
        assert engine.tasks.take_next_tasks(ref) == []
        assert "max_parallel 3 of the stage: " in explained_by(engine, ref)["waits_for_limit"]
        results = {task_id: encode_storable({}, "result") for task_id in taken}
        lease = engine.claim(ref.job_id, 1, *taken)
        engine.stages.complete_task_and_check_stage(ref, lease_id=lease, results=results)
    assert verify(engine.pool) == []


def test_retries_that_are_not_due_count_for_a_max_parallel_that_is_set_then(engine):
    ref, ids, _ = retried(engine, 4, delay_seconds=3600.0)
    set_max_parallel(engine, ref, 10)
    assert engine.tasks.take_next_tasks(ref) == []  # six are claimed
    set_max_parallel(engine, ref, 13)
    assert [task.task_id for task in engine.tasks.take_next_tasks(ref)] == [f"s1-{n:05d}" for n in (10, 11, 12)]
    assert {engine.task(ref.job_id, task_id)["status"] for task_id in ids} == {"pending_retry"}


def test_a_mark_that_comes_late_hides_no_retry_from_the_line(engine):
    """An attempt that failed before its message was marked counted as announced, and waited for a sweep to miss it."""
    ref, ids, _ = retried(engine, 5)
    assert engine.tasks.mark_taken_tasks_announced(ref.job_ref, ids) == 0
    assert {task.task_id for task in engine.tasks.take_next_tasks(ref) if task.is_again} == set(ids)


def test_a_sweep_finds_what_a_dead_process_had_when_max_parallel_was_set(engine):
    """It was the one task that may run, nobody took any since, and no sweep looked at it: the stage stood still."""
    ref, ids = taken(engine)
    lost = engine.claim(ref.job_id, 1, ids[-1])
    results = {task_id: encode_storable({}, "result") for task_id in ids[:-1]}
    lease = engine.claim(ref.job_id, 1, *ids[:-1])
    engine.stages.complete_task_and_check_stage(ref, lease_id=lease, results=results)
    set_max_parallel(engine, ref, 1)
    engine.execute("update app.tasks set lease_expires_at = now() where lease_id = %s", lost)
    assert engine.stages.take_back_tasks(ref).taken_back == 1
    assert engine.tasks.take_next_tasks(ref) == []
    found = JanitorRepository(engine.pool).find_unannounced_tasks(1000, 20.0, 0.0)
    assert [task.task_id for task in found] == ids[-1:]


def taken(engine, **settings):
    """A stage of 40, ten of which were announced."""
    job_id = engine.submit(stages=1, **{"tasks_per_message": 5} | settings)
    engine.plan(job_id, 1, 40, first_window=10)
    ref = StageRef(job_id, 1, 1)
    ids = [task.task_id for task in engine.tasks.take_next_tasks(ref)]
    assert engine.tasks.mark_taken_tasks_announced(ref.job_ref, ids) == len(ids)
    return ref, ids


def test_tasks_of_a_message_that_is_too_large_go_back_into_the_line_unclaimed(engine):
    ref, ids = taken(engine)
    assert engine.tasks.return_tasks_to_line(ref, ids[1:5], 1.0) == ids[1:5]
    rows = {(row["status"], row["attempt"]) for row in (engine.task(ref.job_id, task_id) for task_id in ids[1:5])}
    assert rows == {("pending", 0)}
    engine.claim(ref.job_id, 1, ids[0], *ids[5:])
    found = [task.task_id for task in engine.tasks.take_next_tasks(ref, 1.0) if task.is_again]
    assert found == ids[1:5][: len(found)] != []
    # The message comes a second time, after others for the same tasks were sent.
    engine.tasks.mark_taken_tasks_announced(ref.job_ref, found)
    assert engine.tasks.return_tasks_to_line(ref, ids[1:5], 1.0) == ids[1:5]
    assert [task.task_id for task in engine.tasks.take_next_tasks(ref, 1.0)][: len(found)] == found
    assert verify(engine.pool) == []


def test_only_what_waits_goes_back_into_the_line(engine):
    ref, ids = taken(engine)
    engine.claim(ref.job_id, 1, ids[1])
    assert engine.tasks.return_tasks_to_line(ref, ids[1:3], 1.0) == ids[2:3]
    engine.jobs.pause_job(ref.job_id, reason=None, actor=None)
    assert engine.tasks.return_tasks_to_line(ref, ids[3:5], 1.0) == []
    engine.jobs.resume_job(ref.job_id, reason=None, actor=None)
    engine.jobs.cancel_job(ref.job_id, None)
    assert engine.tasks.return_tasks_to_line(ref, ids, 1.0) == []
    limited, ids = taken(engine, limits=[{"name": "api", "at_once": 50}])
    assert engine.tasks.return_tasks_to_line(limited, ids, 1.0) == []
    small = engine.submit(stages=1)
    engine.plan(small, 1, 5)
    assert engine.tasks.return_tasks_to_line(StageRef(small, 1, 1), ["s1-00000"], 1.0) == []
    assert verify(engine.pool) == []


def test_a_stage_whose_tasks_all_fail_once_has_few_messages_for_them(rig, monkeypatch):
    declare(monkeypatch, retry=FAST_RETRY | {"base_delay_seconds": 0.05, "max_delay_seconds": 0.05})

    def fail_once(context):
        if context.attempt == 1:
            raise OSError("not yet")

    rig.behave.before = {f"s2-n{number}": fail_once for number in range(230)}
    delayed = []
    send = rig.queues.send_message_with_delay
    monkeypatch.setattr(
        rig.queues, "send_message_with_delay", lambda *given: delayed.append(given[1].takes_next) or send(*given)
    )
    job_id = rig.run(n=300)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) <= {1, 2}
    assert set(delayed) == {True}
    assert len(delayed) < 150
    assert rig.janitor.sweep().repairs == 0
    assert verify(rig.engine.pool) == []


def test_max_parallel_that_is_set_on_a_stage_that_runs_leaves_nothing_to_the_janitor(engine):
    """Its messages were sent before, unmarked. A process that had looked a moment ago ended the last: nobody looked."""
    now = [100.0]
    rig = Rig(engine, clock=lambda: now[0])
    job_id = run_to_tasks(rig, n=SOME)
    messages = sorted(messages_of(rig), key=lambda message: not message["takes_next"])
    rig.queues.clear()
    adjust(rig, job_id, max_parallel=20)
    for message in messages:
        rig.machine.process_task_message(read_task_message("tasks", json.dumps(message)))
    assert statuses(rig, job_id)["queued"] == 0
    rig.machine._windows.look_now()
    assert statuses(rig, job_id)["queued"] == 0
    now[0] += LOOK_SECONDS
    rig.machine._windows.look_now()
    assert statuses(rig, job_id)["queued"] == 20
    while rig.queues.deliver(rig.machine):
        assert statuses(rig, job_id)["queued"] <= 20
    assert rig.job(job_id).status == "completed"
    assert rig.janitor.sweep().repairs == 0


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(each, marks=pytest.mark.long) for each in range(4, 20))])
def test_a_stage_needs_no_sweep_whatever_its_tasks_and_people_do(engine, monkeypatch, seed):
    """Attempts fail together, some tasks last, and people pause, resume and adjust it: each look that is owed comes."""
    chance = random.Random(seed)
    ahead = [0.0]
    declare(
        monkeypatch,
        tasks_per_message=chance.choice([None, 1, 7, 20]),
        max_parallel=chance.choice([None, None, 3]),
        retry=FAST_RETRY | {"max_attempts": 9},
    )
    monkeypatch.setattr("core.advancing.stage_planner.first_window", lambda *_: 3 if seed % 2 else 30)
    monkeypatch.setattr("core.advancing.stage_planner.fewest_in_first_window", lambda *_: 3)
    monkeypatch.setattr(TaskBatch, "mean_seconds", property(lambda _: chance.choice([0.0, 0.001, 0.3])))
    rig = Rig(engine, slots=TaskSlots(chance.choice([1, 4])), clock=lambda: time.monotonic() + ahead[0])

    def act(context):
        if chance.random() < 0.3 and context.attempt < 6:
            raise OSError("not yet")
        if chance.random() < 0.02:
            rig.machine.pause_job(context.job_id)
        if chance.random() < 0.03:
            adjust(rig, context.job_id, max_parallel=chance.choice([None, 1, 2, 9]))
        if chance.random() < 0.03:
            adjust(rig, context.job_id, priority=chance.choice(["low", "normal", "high"]))

    rig.behave.before = {f"s2-n{number}": act for number in range(120)}
    job_id = run_to_tasks(rig, n=120)
    until = time.monotonic() + 60
    while not rig.job(job_id).status.is_terminal and time.monotonic() < until:
        if rig.queues.deliver(rig.machine):
            continue
        if rig.queues._entries:
            time.sleep(0.002)
            continue
        ahead[0] += LOOK_SECONDS
        rig.machine._windows.look_now()
        if not rig.queues._entries:
            assert rig.machine.resume_job(job_id).has_changed, statuses(rig, job_id)
    assert rig.job(job_id).status == "completed"
    assert max(statuses(rig, job_id).values()) == 120
    assert rig.janitor.sweep().repairs == 0
    assert verify(engine.pool) == []


def test_a_declared_size_stays(rig):
    job_id = run_to_tasks(rig, n=SOME)
    rig.queues.run(rig.machine)
    assert stage_row(rig, job_id)["settings"]["tasks_per_message"] == PER_MESSAGE


@pytest.mark.parametrize(
    ("size", "most", "mean_seconds", "found"),
    [
        (10, 100, None, 10),
        (10, 100, 0.0, 100),
        (1, 100, 0.0, 10),
        (100, 100, 0.005, 100),  # half a second
        (100, 100, 0.00501, 19),
        (100, 100, 1.0, 1),
        (10, 100, 600.0, 1),
        (1, 1, 0.0, 1),
        (8, 8, 0.06, 8),
        (8, 8, 0.07, 1),
        (10, 100, 0.008, 10),  # twelve is not much more
        (10, 100, 0.006, 16),
        (10, 100, 0.012, 10),
        (10, 100, 0.02, 5),
    ],
)
def test_next_size_of_messages(engine, size, most, mean_seconds, found):
    query = "select app.next_message_size(%s::integer, %s::integer, %s::double precision) as size"
    (row,) = engine.query(query, size, most, mean_seconds)
    assert row["size"] == found


def test_tasks_of_a_message_share_its_time(engine):
    """Three messages of four tasks, of which the second and third were claimed in one call: 8, 4 and 4 seconds."""
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 12)
    task_ids = [f"s1-{index:05d}" for index in range(12)]
    lease = engine.claim(job_id, 1, *task_ids)
    engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease, results=dict.fromkeys(task_ids, encode_storable({}, "result"))
    )
    for index in range(12):
        began, seconds = 0 if index < 4 else 100, {3: 8, 11: 4}.get(index, 1)
        engine.execute(
            "update app.tasks set started_at = to_timestamp(%s), finished_at = to_timestamp(%s)"
            " where job_id = %s and task_index = %s",
            began,
            began + seconds,
            job_id,
            index,
        )
    mean = "select app.mean_task_seconds(%s, 1, 1, 's1-', 's1.', 4, 100) as seconds"
    assert engine.query(mean, job_id) == [{"seconds": (8 + 4) / (4 + 4)}]
    assert engine.query("select app.mean_task_seconds(%s, 1, 2, '', 't', 4, 100) as seconds", job_id) == [
        {"seconds": None}
    ]
