"""Limits that stages share: never more tasks run or begin than they allow, and none that waits is forgotten."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from core.models import Lease, StageRef
from core.models.control import RerunMode, RerunRequest
from core.models.limit import Rate
from core.running import message_runner
from core.running.task_slots import TaskSlots
from infrastructure.janitor_store import JanitorRepository
from infrastructure.retention import RetentionRepository
from infrastructure.verify import verify
from tests.databases import connect

from .machine_suite import Rig, ShapesJob
from .test_janitor import pass_time, run_to_tasks

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
ERROR = {"type": "OSError", "message": "not yet", "retryable": True}


def limited(engine, count, *limits, **settings):
    """A job whose only stage has these limits and so many tasks, all of which wait."""
    job_id = engine.submit(stages=1, limits=list(limits), **settings)
    engine.plan(job_id, 1, count, first_window=32, is_limited=True)
    return StageRef(job_id, 1, 1)


def ids(count):
    return [f"s1-{number:05d}" for number in range(count)]


def claim(engine, ref, *task_ids):
    lease = Lease(uuid4(), "w")
    rows = engine.tasks.claim_tasks(ref, task_ids, lease=lease)
    return lease.lease_id, {row.task_id: str(row.outcome) for row in rows}


def complete(engine, ref, lease_id, *task_ids):
    return engine.stages.complete_task_and_check_stage(
        ref, lease_id=lease_id, results={task_id: {} for task_id in task_ids}
    )


def take(engine, ref):
    return [task.task_id for task in engine.tasks.take_limited_tasks(ref)]


def turn_clock(engine, seconds):
    """The database's clock stands still there; for an engine with one connection."""
    engine.execute("select set_config('app.fake_now', %s, false)", str(MIDNIGHT + timedelta(seconds=seconds)))


def places(engine, name="api"):
    return engine.query("select * from app.limit_places where limit_name = %s order by task_id", name)


def starts(engine, name="api"):
    """How many the limit's rate counts."""
    (row,) = engine.query(
        "select coalesce(sum(count), 0)::integer as n from app.limit_starts where limit_name = %s", name
    )
    return row["n"]


def set_limit(engine, name, at_once=None, count=None, seconds=None):
    engine.execute("select app.set_limit(%s, %s, %s, %s, null, null)", name, at_once, count, seconds)


def declare(monkeypatch, **settings):
    first, second, third = ShapesJob.stages
    own = {name: value for name, value in second.items() if name != "tasks_per_message"}
    monkeypatch.setattr(ShapesJob, "stages", [first, own | settings, third])


def test_what_is_announced_is_what_may_run(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 3}])
    first, second = run_to_tasks(rig, n=12), run_to_tasks(rig, n=12)
    most = 0
    while rig.queues.deliver(rig.machine):
        waiting = [json.loads(entry.body) for entry in rig.queues._entries]
        most = max(most, sum(message["stage"] == 2 and "task_ids" in message for message in waiting))
    assert most <= 3
    assert {rig.job(job_id).status for job_id in (first, second)} == {"completed"}
    assert rig.behave.calls.total() == 2 * (12 + 2)
    assert places(rig.engine) == []
    assert verify(rig.engine.pool) == []


def test_jobs_that_share_a_limit_have_it_in_turn(rig, monkeypatch):
    """The second one came when the first had all places, and ends when the first is half done."""
    declare(monkeypatch, limits=[{"name": "api", "at_once": 2}])
    first, second = run_to_tasks(rig, n=40), run_to_tasks(rig, n=10)
    while not rig.job(second).status.is_terminal:
        assert rig.queues.deliver(rig.machine)
    ended = Counter(task["status"] for task in rig.tasks(first, 2))["completed"]
    assert 8 <= ended <= 16


def test_a_job_of_high_priority_has_more_of_it(engine):
    low, high = limited(engine, 60, {"name": "api", "at_once": 5}), limited(engine, 60, "api")
    engine.execute(
        'update app.jobs set definition = definition || \'{"priority": "high"}\' where job_id = %s', high.job_id
    )
    served = Counter()
    for _ in range(10):
        for ref in engine.tasks.find_limit_waiters(["api"], 16)[:1]:
            for task_id in take(engine, ref):
                lease, _ = claim(engine, ref, task_id)
                complete(engine, ref, lease, task_id)
                served[ref] += 1
    assert served[high] >= 2 * served[low] > 0


def test_racing_claims_never_get_more_than_there_are_places(engine, crowd):
    """Messages of all tasks come at one moment, though none was announced in its turn."""
    first, second = limited(engine, 8, {"name": "api", "at_once": 3}), limited(engine, 8, "api")
    calls = [
        lambda ref=ref, task_id=task_id: claim(engine, ref, task_id) for ref in (first, second) for task_id in ids(8)
    ]
    outcomes = Counter(outcome for _, answer in crowd(*calls) for outcome in answer.values())
    assert outcomes == {"claimed": 3, "held": 13}
    assert len(places(engine)) == 3


def test_a_message_of_many_tasks_gets_the_places_that_there_are(engine):
    ref = limited(engine, 5, {"name": "api", "at_once": 2})
    _, answer = claim(engine, ref, *ids(5))
    assert Counter(answer.values()) == {"claimed": 2, "held": 3}
    assert [row["held_for"] for row in engine.query("select held_for from app.tasks order by task_id")] == [
        *[None] * 2,
        *["api"] * 3,
    ]


@pytest.mark.parametrize("ending", ["complete", "fail", "retry", "release", "lease_over", "timed_out"])
def test_a_place_is_free_however_the_attempt_ends(engine, ending):
    ref = limited(engine, 2, {"name": "api", "at_once": 1}, failure={"on_failure": "continue"})
    (first,) = take(engine, ref)
    assert take(engine, ref) == []
    lease, _ = claim(engine, ref, first)
    match ending:
        case "complete":
            complete(engine, ref, lease, first)
        case "fail":
            engine.stages.fail_task_and_check_stage(ref, lease_id=lease, errors={first: ERROR})
        case "retry":
            engine.stages.increment_task_retry_count(ref, first, lease_id=lease, error=ERROR, delay_seconds=60)
        case "release":
            engine.tasks.release_tasks(ref, lease_id=lease, task_ids=[first], started=True)
        case "lease_over" | "timed_out":
            timed_out = "now()" if ending == "timed_out" else "null"
            engine.execute(
                f"update app.tasks set lease_expires_at = now(), timed_out_at = {timed_out} where task_id = %s",  # noqa: S608
                first,
            )
            assert take(engine, ref) == []  # not before the janitor has taken the lease back
            for stage in JanitorRepository(engine.pool).find_expired_stages(10):
                engine.stages.take_back_tasks(stage)
    assert places(engine) == []
    assert take(engine, ref)


def test_places_of_tasks_that_are_cut_off_stay_until_their_leases_end(engine):
    """They learn of it only at a heartbeat, and may still be at what the limit protects."""
    ref, other = limited(engine, 2, {"name": "api", "at_once": 1}), limited(engine, 1, "api")
    (first,) = take(engine, ref)
    claim(engine, ref, first)
    assert engine.jobs.cancel_job(ref.job_id, None, grace_seconds=0, actor=None) == "cancelled"
    assert take(engine, other) == []
    engine.execute("update app.limit_places set ends_at = now()")
    assert take(engine, other)


def test_a_place_that_is_kept_for_a_message_ends_if_nobody_comes(engine):
    """An app without workers keeps no other from what they share."""
    dead, other = limited(engine, 5, {"name": "api", "at_once": 2}), limited(engine, 2, "api")
    assert take(engine, dead) == ids(2)
    assert take(engine, other) == []
    engine.execute("update app.limit_places set ends_at = now()")
    assert take(engine, other) == ids(2)
    _, answer = claim(engine, dead, ids(2)[0])
    assert set(answer.values()) == {"held"}


def test_a_place_that_was_kept_for_a_job_that_is_cancelled_is_another_jobs_at_once(rig, monkeypatch):
    """It stayed for 30 s, and the other job began at the next sweep after that."""
    declare(monkeypatch, limits=[{"name": "api", "at_once": 1}])
    first, second = run_to_tasks(rig, n=5), run_to_tasks(rig, n=5)
    assert [place["job_id"] for place in places(rig.engine)] == [first]
    rig.machine.cancel_job(first, None)
    rig.queues.run(rig.machine)
    assert (rig.job(first).status, rig.job(second).status) == ("cancelled", "completed")
    assert places(rig.engine) == []


def test_a_cancel_frees_what_is_kept_and_leaves_what_runs(engine):
    running = limited(engine, 3, {"name": "api", "at_once": 2})
    first, second = take(engine, running)
    claim(engine, running, first)
    assert engine.jobs.cancel_job(running.job_id, None, grace_seconds=60) == "cancelling"
    assert [(place["task_id"], place["has_begun"]) for place in places(engine)] == [(first, True)]
    other = limited(engine, 3, "api")
    assert take(engine, other) == ids(1)
    assert second == ids(2)[1]


def test_what_was_held_back_comes_again_when_there_is_room(rig, monkeypatch):
    """Five retries are due at one moment, and two places are there."""
    declare(monkeypatch, limits=[{"name": "api", "at_once": 2}], failure={"on_failure": "continue"})
    failed = set()

    def fail_once(context):
        if context.task_id not in failed:
            failed.add(context.task_id)
            raise OSError("not yet")

    rig.behave.before = {f"s2-n{number}": fail_once for number in range(6)}
    job_id = rig.run(n=6)
    assert rig.job(job_id).status == "completed"
    assert rig.job(job_id).result["total"] == sum(number**2 for number in range(6))
    assert places(rig.engine) == []


def test_a_killed_worker_loses_nothing(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 2}])
    job_id = run_to_tasks(rig, n=6)
    ref = StageRef(job_id, 1, 2)
    for task in rig.tasks(job_id, 2)[:2]:
        claim(rig.engine, ref, task["task_id"])
    rig.queues._entries.clear()
    rig.janitor.sweep()
    assert len(places(rig.engine)) == 2
    pass_time(rig)
    while not rig.job(job_id).status.is_terminal:
        rig.janitor.sweep()
        assert rig.queues.run(rig.machine) is None
    assert rig.job(job_id).status == "completed"
    assert verify(rig.engine.pool) == []


def test_a_limit_of_zero_lets_none_begin_and_a_new_number_counts_at_once(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 0}])
    job_id = run_to_tasks(rig, n=4)
    rig.queues.run(rig.machine)
    rig.janitor.sweep()
    assert Counter(task["status"] for task in rig.tasks(job_id, 2)) == {"pending": 4}
    set_limit(rig.engine, "api", 2)
    rig.janitor.sweep()
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_a_lower_number_leaves_what_runs_alone(engine):
    ref = limited(engine, 6, {"name": "api", "at_once": 3})
    running = {task_id: claim(engine, ref, task_id)[0] for task_id in take(engine, ref)}
    set_limit(engine, "api", 1)
    for left in (2, 1):
        task_id, lease = running.popitem()
        complete(engine, ref, lease, task_id)
        assert len(places(engine)) == left
        assert take(engine, ref) == []
    task_id, lease = running.popitem()
    complete(engine, ref, lease, task_id)
    assert len(take(engine, ref)) == 1


def test_a_rate_holds_in_every_period(clocked_engine):
    """Ten in ten seconds: some at once, and never more than ten in any ten seconds."""
    engine = clocked_engine
    turn_clock(engine, 0)
    ref = limited(engine, 60, {"name": "api", "rate": "10/10s"})
    begun, planned = [], []
    for tenth in range(450):
        now = tenth / 10
        due = [each for each in planned if each[0] <= now]
        if tenth % 5 and not due:
            continue
        turn_clock(engine, now)
        for moment, task_id in due:
            planned.remove((moment, task_id))
            lease, answer = claim(engine, ref, task_id)
            if answer[task_id] == "claimed":
                begun.append(now)
                complete(engine, ref, lease, task_id)
        taken = engine.tasks.take_limited_tasks(ref)
        planned += [(now + task.wait_seconds, task.task_id) for task in taken]
    assert begun[:10] == begun[:1] * 10
    assert all(later - earlier >= 10 for earlier, later in zip(begun, begun[10:], strict=False))
    assert len(begun) >= 40


def test_what_was_claimed_and_not_begun_costs_no_start(clocked_engine):
    """A message that found no slot, or an app that does not know the work, gives its tasks back."""
    engine = clocked_engine
    turn_clock(engine, 0.3)
    ref = limited(engine, 3, {"name": "api", "rate": "2/1h"}, {"name": "disk", "at_once": 3})
    begun, _ = claim(engine, ref, "s1-00000")
    lease, _ = claim(engine, ref, *ids(3)[1:])
    turn_clock(engine, 300)
    assert engine.tasks.release_tasks(ref, lease_id=lease, task_ids=ids(3)[1:], started=False) == ["s1-00001"]
    lease, answer = claim(engine, ref, "s1-00001")
    assert answer == {"s1-00001": "claimed"}
    engine.tasks.release_tasks(ref, lease_id=lease, task_ids=["s1-00001"], started=True)
    assert claim(engine, ref, "s1-00001")[1] == {"s1-00001": "held"}
    assert engine.query("select sum(count)::integer as n from app.limit_starts") == [{"n": 2}]
    complete(engine, ref, begun, "s1-00000")


@pytest.mark.parametrize(("rate", "frees_after"), [(8, None), (7, 15), (4, 15), (3, 18), (1, 27)])
def test_a_rate_that_was_lowered_waits_for_as_many_starts_as_are_too_many(engine, rate, frees_after):
    """Four starts 15 s ago, one 12 s ago, two 3 s ago: those that are left may still be more than the rate permits."""
    limited(engine, 3, {"name": "api", "rate": f"{rate}/30s"})
    now = engine.query("select now()")[0]["now"]
    for seconds, count in ((15, 4), (12, 1), (3, 2)):
        engine.execute(
            "insert into app.limit_starts (limit_name, ends_at, count) values ('api', %s, %s)",
            now - timedelta(seconds=seconds),
            count,
        )
    (found,) = engine.query("select * from app.look_at_limits(array['api'], 'x', 1, '{}', %s)", now)
    expected = None if frees_after is None else now + timedelta(seconds=frees_after, milliseconds=1)
    assert (found["begun"], found["frees_at"]) == (7, expected)


def test_one_message_is_scheduled_for_the_time_when_a_rate_has_room(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "rate": "3/20s"}])
    job_id = run_to_tasks(rig, n=8)
    for _ in range(3):
        assert rig.queues.deliver(rig.machine)
    (pilot,) = [task for task in rig.tasks(job_id, 2) if task["status"] == "pending_retry"]
    assert pilot["held_for"] == "api"
    assert pilot["attempt"] == 0
    (started,) = rig.engine.query("select min(started_at) as at from app.tasks where stage = 2")
    assert 18 < (pilot["due_at"] - started["at"]).total_seconds() < 22
    assert Counter(task["status"] for task in rig.tasks(job_id, 2)) == {
        "completed": 3,
        "pending_retry": 1,
        "pending": 4,
    }


def test_a_message_that_finds_no_slot_leaves_its_place_and_its_start_to_others(engine, monkeypatch):
    """It is claimed to be given back: that is no start, of which the rate allows one an hour."""
    declare(monkeypatch, limits=[{"name": "api", "at_once": 1, "rate": "1/h"}])
    monkeypatch.setattr(message_runner, "SLOT_SECONDS", 0.01)
    slots = TaskSlots(1)
    rig = Rig(engine, slots=slots)
    job_id = run_to_tasks(rig, n=1)
    held = slots.take(0.0)
    for _ in range(3):
        assert rig.queues.deliver(rig.machine)
        (task,) = rig.tasks(job_id, 2)
        assert (task["status"], task["attempt"], task["held_for"]) == ("queued", 0, None)
        assert not any(place["has_begun"] for place in places(rig.engine))
        assert starts(rig.engine) == 0
    slots.release(held)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert starts(rig.engine) == 1


def test_only_starts_of_tasks_that_did_not_begin_come_back(engine):
    ref = limited(engine, 6, {"name": "api", "rate": "4/h"}, {"name": "disk", "at_once": 5, "rate": "5/day"})
    taken = take(engine, ref)
    lease, answer = claim(engine, ref, *taken)
    assert Counter(answer.values()) == {"claimed": 4}
    assert take(engine, ref) == []
    engine.tasks.release_tasks(ref, lease_id=lease, task_ids=taken[:2], started=False)
    engine.tasks.release_tasks(ref, lease_id=lease, task_ids=taken[:2], started=False)
    engine.tasks.release_tasks(ref, lease_id=lease, task_ids=taken[2:3], started=True)
    assert (starts(engine), starts(engine, "disk")) == (2, 2)
    _, answer = claim(engine, ref, *taken[:3])
    assert Counter(answer.values()) == {"claimed": 2, "held": 1}


def test_racing_releases_and_claims_of_crossed_limits_end(engine, crowd):
    one = limited(engine, 8, {"name": "a", "rate": "100/h"}, {"name": "b", "rate": "100/h"})
    two = limited(engine, 8, {"name": "b", "rate": "100/h"}, {"name": "a", "rate": "100/h"})

    def claim_and_release(ref, task_id):
        lease, _ = claim(engine, ref, task_id)
        engine.tasks.release_tasks(ref, lease_id=lease, task_ids=[task_id], started=False)

    crowd(
        *[lambda ref=ref, task_id=task_id: claim_and_release(ref, task_id) for ref in (one, two) for task_id in ids(8)]
    )
    assert (starts(engine, "a"), starts(engine, "b")) == (0, 0)


def test_a_stage_waits_for_each_of_its_limits_and_blocks_no_other(engine):
    both = limited(engine, 4, {"name": "a", "at_once": 4}, {"name": "b", "at_once": 1})
    only = limited(engine, 4, "a")
    assert take(engine, both) == ids(1)
    assert take(engine, both) == []
    assert engine.tasks.find_limit_waiters(["a"], 16) == [only]
    assert take(engine, only) == ids(3)


def test_racing_stages_with_crossed_limits_end(engine, crowd):
    """Each claim locks its limits in one order, whatever the order of their declaration."""
    one = limited(engine, 8, {"name": "a", "at_once": 2}, {"name": "b", "at_once": 2})
    two = limited(engine, 8, {"name": "b", "at_once": 2}, {"name": "a", "at_once": 2})
    calls = [
        lambda ref=ref, task_id=task_id: claim(engine, ref, task_id) for ref in (one, two) for task_id in ids(6)
    ] + [lambda ref=ref: take(engine, ref) for ref in (one, two)]
    crowd(*calls)
    assert len(places(engine, "a")) == len(places(engine, "b")) <= 2


def test_take_that_waits_for_a_task_does_not_have_the_row_of_its_stage(engine, database_url):
    """A cancel has the task and wants the stage's row: the take had that and wanted the task, a deadlock."""
    ref = limited(engine, 3, {"name": "api", "rate": "1/20s"})
    first, second = ids(2)
    assert take(engine, ref) == [first]
    claim(engine, ref, first)
    with connect(database_url) as holder, ThreadPoolExecutor(1) as executor:
        holder.execute("select from app.tasks where task_id = %s for update", (second,))
        waiting = executor.submit(take, engine, ref)
        engine.wait_for_lock()
        try:
            holder.execute("select from app.stages where job_id = %s for update nowait", (ref.job_id,))
        finally:
            holder.rollback()
        assert waiting.result(timeout=60) == [second]


def test_a_paused_job_lets_others_have_its_turn_and_goes_on_later(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 1}])
    first, second = run_to_tasks(rig, n=5), run_to_tasks(rig, n=5)
    rig.machine.pause_job(first)
    while not rig.job(second).status.is_terminal:
        if not rig.queues.deliver(rig.machine):
            # The place that was kept for the paused job.
            rig.engine.execute("update app.limit_places set ends_at = now() where not has_begun")
            rig.janitor.sweep()
    rig.machine.resume_job(first)
    rig.queues.run(rig.machine)
    assert rig.job(first).status == "completed"


def test_a_rerun_of_failed_tasks_waits_for_the_limit_too(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 2}], failure={"on_failure": "continue"})
    job_id = rig.run(n=6, bad=[0, 1, 2, 3])
    assert rig.job(job_id).status == "completed_with_errors"
    assert rig.machine.rerun_job(job_id, RerunRequest(RerunMode.FAILED, parameters={"bad": []})).has_changed
    assert len([task for task in rig.tasks(job_id, 2) if task["run"] == 2 and task["status"] == "queued"]) == 2
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_numbers_of_an_operator_stay_until_they_are_forgotten(engine):
    limited(engine, 1, {"name": "api", "at_once": 2})
    set_limit(engine, "api", 7)
    ref = limited(engine, 9, {"name": "api", "at_once": 3})
    (row,) = engine.query("select at_once, is_edited from app.limits where name = 'api'")
    assert row == {"at_once": 7, "is_edited": True}
    (answer,) = engine.query("select app.forget_limit('api', 'over', 'me') as was_edited")
    assert answer["was_edited"]
    assert len(take(engine, ref)) == 3
    actions = [row["action"] for row in engine.query("select action from app.audit_log order by audit_id")]
    assert actions == ["set_limit", "forget_limit"]


def test_limits_that_nobody_needs_are_deleted(engine):
    """A name with a parameter in it makes a limit for each value."""
    retention = RetentionRepository(engine.pool)
    for number in range(30):
        ref = limited(engine, 1, {"name": f"server:{number}", "at_once": 1})
        (task_id,) = take(engine, ref)
        lease, _ = claim(engine, ref, task_id)
        complete(engine, ref, lease, task_id)
    kept = limited(engine, 2, {"name": "kept", "rate": "5/day"})
    lease, _ = claim(engine, kept, *take(engine, kept))
    engine.jobs.cancel_job(kept.job_id, None, grace_seconds=0, actor=None)
    set_limit(engine, "chosen", 1)
    engine.execute("update app.limits set used_at = now() - interval '2 hours'")
    engine.execute("update app.limit_places set ends_at = now()")
    assert retention.prune_limits(3600, most=None) == 30
    assert [row["name"] for row in engine.query("select name from app.limits order by 1")] == ["chosen", "kept"]
    left = "select count(*) as n from app.limit_places union all select count(*) from app.limit_waiters"
    assert [row["n"] for row in engine.query(left)] == [0, 0]


def test_the_claim_of_a_stage_without_limits_makes_no_place(engine):
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 2)
    claim(engine, StageRef(job_id, 1, 1), *ids(2))
    assert engine.query("select * from app.limit_places") == []


def test_a_rate_is_written_as_it_is_read():
    for text in ("10/s", "5/30s", "100/min", "7/90s", "1000/h", "3/2day"):
        assert str(Rate.model_validate(Rate.read(text))) == text


@pytest.mark.parametrize("is_declared", [False, True])
def test_a_shorter_period_counts_from_the_change_on(clocked_engine, is_declared):
    """Starts are counted at the end of a twentieth of their period: three minutes of an hour, an hour of a day."""
    engine = clocked_engine
    turn_clock(engine, 1)
    ref = limited(engine, 40, {"name": "api", "rate": "5/1h"})
    lease, _ = claim(engine, ref, *ids(5))
    complete(engine, ref, lease, *ids(5))
    turn_clock(engine, 10)
    if is_declared:
        limited(engine, 1, {"name": "api", "rate": "5/1s"})
    else:
        set_limit(engine, "api", count=5, seconds=1)
    assert Counter(claim(engine, ref, *ids(40)[5:15])[1].values()) == {"held": 10}
    turn_clock(engine, 11.1)
    assert Counter(claim(engine, ref, *ids(40)[5:15])[1].values()) == {"claimed": 5, "held": 5}
    assert starts(engine) == 5


def test_a_longer_period_counts_what_the_shorter_one_counted(clocked_engine):
    engine = clocked_engine
    turn_clock(engine, 1)
    ref = limited(engine, 40, {"name": "api", "rate": "5/1s"})
    lease, _ = claim(engine, ref, *ids(5))
    set_limit(engine, "api", count=7, seconds=3600)
    assert Counter(claim(engine, ref, *ids(40)[5:15])[1].values()) == {"claimed": 2, "held": 8}
    turn_clock(engine, 3500)
    assert Counter(claim(engine, ref, *ids(40)[5:15])[1].values()) == {"duplicate": 2, "held": 8}
    complete(engine, ref, lease, *ids(5))
