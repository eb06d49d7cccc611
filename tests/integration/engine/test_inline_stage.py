"""A stage that is wholly in one process's hands ends in one transaction with what follows: all of it, or nothing."""

import json
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.advancing.steps import QUICK_SECONDS, StepTimes
from core.announcing.announcer import step_message
from core.basics.canonical import as_stored, encode_storable
from core.errors import StoreUnavailable
from core.models import JobRef, Lease, StageRef, TaskDefinition
from core.models.transition import PlannedTask, SmallStage
from core.running import overtime
from infrastructure.base import RepositoryError
from infrastructure.jobs_tasks import StageCompletionRepository
from jobs.registry import Handler
from tests.databases import connect
from tests.stories import examples

from .machine_suite import Rig, ShapesJob

RESULT = {"n": 1}
WHO = {"reason": None, "actor": "ada"}

storable_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(storable_text, inner, max_size=4),
    max_leaves=12,
)


@examples(60)
@given(value=values)
def test_result_in_hand_is_what_the_database_would_give_back(engine, value):
    """Types of numbers and order of names too: a planner must not see a difference."""
    text = encode_storable(value)
    (row,) = engine.query("select %s::jsonb as value", text)
    assert json.dumps(as_stored(text)) == json.dumps(row["value"])


@pytest.mark.parametrize("value", [1e16, 1e300, -1.5e22, 5e-324, -0.0, 1.0, 0.1, {"bb": 1, "a": 2, "é": 3, "A": 4}])
def test_numbers_and_names_as_jsonb_writes_them(engine, value):
    (row,) = engine.query("select %s::jsonb as value", json.dumps(value))
    found = as_stored(encode_storable(value))
    assert json.dumps(found) == json.dumps(row["value"])
    assert type(found) is type(row["value"])
    assert not (isinstance(found, float) and found == 0 and math.copysign(1, found) < 0)


def small_stage(job_id, stage, count, lease_id=None):
    rows = [
        PlannedTask(job_id, 1, f"s{stage}-{at:05d}", stage, at, "t", "q", None, encode_storable({}))
        for at in range(count)
    ]
    return SmallStage(rows, Lease(lease_id, "w") if lease_id else None, 5)


@pytest.fixture(params=[1, 3], ids=["one_task", "three_tasks"])
def count(request):
    return request.param


class Held:
    """A job whose stage of so many tasks is under one lease."""

    def __init__(self, engine, count, stages=2, **settings):
        self.engine, self.next_lease = engine, uuid4()
        self.job_id = engine.submit(stages=stages, **settings)
        engine.plan(self.job_id, 1, count)
        self.ids = [f"s1-{at:05d}" for at in range(count)]
        self.lease = engine.claim(self.job_id, 1, *self.ids)
        self.is_last = stages == 1

    def go_on(self, *, lease=None, ids=None, run=1, stage=1, next_lease=None):
        """What follows: a stage of two tasks, or the job's end."""
        ids = self.ids if ids is None else ids
        what = {"lease_id": lease or self.lease, "results": dict.fromkeys(ids, RESULT)}
        if self.is_last:
            return self.engine.stages.complete_stage_and_finalize(
                StageRef(self.job_id, run, stage), **what, summary={"all": "well"}
            )
        following = small_stage(self.job_id, 2, 2, next_lease or self.next_lease)
        return self.engine.stages.complete_stage_and_plan_next(
            StageRef(self.job_id, run, stage), **what, following=following
        )


def test_next_stage_is_planned_with_the_last_results(engine, count):
    held = Held(engine, count)
    assert held.go_on() is True

    job = engine.jobs.find_job(held.job_id)
    assert (job.status, job.stage, job.attempt) == ("processing", 2, 0)
    for task_id in held.ids:
        task = engine.task(held.job_id, task_id)
        assert (task["status"], task["result"], task["lease_id"], task["is_watched"]) == (
            "completed",
            RESULT,
            None,
            False,
        )
    first, second = engine.query("select * from app.stages where job_id = %s order by stage", held.job_id)
    assert (first["status"], first["finished_at"] is not None) == ("completed", True)
    assert (second["status"], second["expected_count"], second["settings"]["tasks_per_message"]) == ("processing", 2, 5)
    born = engine.query("select * from app.tasks where job_id = %s and stage = 2 order by task_index", held.job_id)
    assert [(row["status"], row["lease_id"], row["attempt"]) for row in born] == [
        ("processing", held.next_lease, 1)
    ] * 2
    assert [row["is_watched"] for row in born] == [False, True]
    lease = timedelta(seconds=second["settings"]["lease_seconds"])
    assert {row["lease_expires_at"] - row["started_at"] for row in born} == {lease}


def test_job_ends_with_the_last_results(engine, count):
    held = Held(engine, count, stages=1)
    assert held.go_on() == "completed"

    job = engine.jobs.find_job(held.job_id)
    assert (job.status, job.result, job.finished_at is not None) == ("completed", {"all": "well"}, True)
    assert {engine.task(held.job_id, task_id)["status"] for task_id in held.ids} == {"completed"}


def test_it_is_written_as_if_step_by_step(engine):
    """The timeline and the rows are those of three calls, but for times and leases."""

    def told(job_id):
        events = engine.query(
            "select run, stage, task_id, event, detail from app.job_events where job_id = %s order by event_id", job_id
        )
        stages = engine.query(
            "select stage, status, settings, expected_count, failed_count, is_unwatched from app.stages "
            "where job_id = %s order by stage",
            job_id,
        )
        jobs = engine.query(
            "select status, stage, result, error, attempt, due_at, announced_at, paused_at from app.jobs "
            "where job_id = %s",
            job_id,
        )
        tasks = engine.query(
            "select task_id, status, is_watched, result, attempt, lease_owner from app.tasks where job_id = %s "
            "order by task_id",
            job_id,
        )
        return events, stages, jobs, tasks

    one = Held(engine, 1)
    assert one.go_on()
    ends = {"lease_id": one.next_lease, "results": dict.fromkeys(["s2-00000", "s2-00001"], RESULT)}
    assert (
        engine.stages.complete_stage_and_finalize(StageRef(one.job_id, 1, 2), **ends, summary={"a": 1}) == "completed"
    )

    other = Held(engine, 1)
    engine.stages.complete_task_and_check_stage(
        StageRef(other.job_id, 1, 1), lease_id=other.lease, results=dict.fromkeys(other.ids, RESULT)
    )
    following = small_stage(other.job_id, 2, 2, other.next_lease)
    assert engine.tasks.plan_small_stage(StageRef(other.job_id, 1, 2), following) == "planned"
    engine.stages.complete_task_and_check_stage(StageRef(other.job_id, 1, 2), **ends | {"lease_id": other.next_lease})
    engine.jobs.finalize_job(JobRef(other.job_id, 1), {"a": 1})

    assert told(one.job_id) == told(other.job_id)


def end_one(held):
    held.engine.stages.complete_task_and_check_stage(
        StageRef(held.job_id, 1, 1), lease_id=held.lease, results={held.ids[-1]: {"n": "other"}}
    )


UNEXPECTED = {
    "lease_of_another": (lambda _: None, {"lease": uuid4()}),
    "earlier_run": (lambda _: None, {"run": 2}),
    "other_stage": (lambda _: None, {"stage": 2}),
    "one_ended_already": (end_one, {}),
    "paused": (lambda held: held.engine.jobs.pause_job(held.job_id, **WHO), {}),
    "being_cancelled": (lambda held: held.engine.jobs.cancel_job(held.job_id, None), {}),
    "failed": (lambda held: held.engine.jobs.fail_job(JobRef(held.job_id, 1), {"type": "E", "message": "m"}), {}),
    "job_overdue": (
        lambda held: held.engine.execute("update app.jobs set deadline_at = now() where job_id = %s", held.job_id),
        {},
    ),
}


@pytest.mark.parametrize("stages", [1, 2], ids=["finalize", "plan_next"])
@pytest.mark.parametrize("name", UNEXPECTED)
def test_nothing_is_written_if_anything_is_not_as_expected(engine, count, stages, name):
    meddle, how = UNEXPECTED[name]
    held = Held(engine, count, stages=stages, failure={"on_failure": "continue"})
    meddle(held)
    before = engine.rows_of(held.job_id)
    assert not held.go_on(**how)
    assert engine.rows_of(held.job_id) == before


@pytest.mark.parametrize("one_failed", [False, True])
def test_part_of_a_stage_is_not_its_end(engine, one_failed):
    held = Held(engine, 3, failure={"on_failure": "continue"})
    if one_failed:
        errors = {held.ids[2]: {"type": "E", "message": "m"}}
        engine.stages.fail_task_and_check_stage(StageRef(held.job_id, 1, 1), lease_id=held.lease, errors=errors)
    before = engine.rows_of(held.job_id)
    assert not held.go_on(ids=held.ids[:2])
    assert engine.rows_of(held.job_id) == before


@pytest.mark.parametrize(("stages", "ending"), [(1, "plan_next"), (2, "finalize")])
def test_last_stage_has_none_after_it_and_no_other_ends_the_job(engine, stages, ending):
    held = Held(engine, 1, stages=stages)
    held.is_last = ending == "finalize"
    before = engine.rows_of(held.job_id)
    assert not held.go_on()
    assert engine.rows_of(held.job_id) == before


@pytest.mark.parametrize("stages", [1, 2], ids=["finalize", "plan_next"])
@pytest.mark.parametrize(
    ("verb", "status"), [("cancel_job", "cancelling"), ("pause_job", "processing"), ("fail_job", "failed")]
)
def test_it_waits_for_whoever_holds_the_job_and_then_sees_what_he_did(engine, database_url, stages, verb, status):
    held = Held(engine, 1, stages=stages)
    calls = {
        "cancel_job": ("select app.cancel_job(%s, null, 60, null)", 1),
        "pause_job": ("select app.pause_job(%s, null, null)", 1),
        "fail_job": ("""select app.fail_job(%s, 1, '{"type": "E", "message": "m"}')""", 1),
    }
    answers = []
    with connect(database_url) as meddler:
        meddler.execute(calls[verb][0], (held.job_id,))
        late = threading.Thread(target=lambda: answers.append(held.go_on()))
        late.start()
        engine.wait_for_lock()
        meddler.commit()
        late.join(30)
    assert [bool(answer) for answer in answers] == [False]
    job = engine.jobs.find_job(held.job_id)
    assert (job.status, job.stage) == (status, 1)


def test_the_same_call_again_finds_the_tasks_that_it_planned(engine):
    """After an answer that was lost they had a lease, and nobody to run them."""
    held = Held(engine, 2)
    assert [held.go_on(), held.go_on(), held.go_on(next_lease=uuid4())] == [True, True, False]


def test_one_of_many_simultaneous_calls_does_it(engine, crowd):
    for _ in range(10):
        held = Held(engine, 3)
        assert Counter(crowd(*[lambda held=held: held.go_on(next_lease=uuid4())] * 8)) == {True: 1, False: 7}


def test_commit_is_waited_for_though_the_next_tasks_are_born_claimed(engine, database_url):
    """A claim may be forgotten by a crash of the server, a result may not."""
    held = Held(engine, 1)
    with connect(database_url) as connection:
        connection.execute(
            "select app.complete_stage_and_plan_next(%s, 1, 1, %s, %s, array['{}'::jsonb], array['s2-0'], array['t'], "
            "array['q'], array[null], array['{}'::jsonb], %s, 'w', 1)",
            (held.job_id, held.lease, held.ids, uuid4()),
        )
        assert connection.execute("show synchronous_commit").fetchone() == ("on",)


# The engine: the steps of an author are prepared before the results that they need are written, if they are quick.


@pytest.fixture
def quick(monkeypatch):
    """Every step counts as quick, the first one of a process too."""
    monkeypatch.setattr(StepTimes, "is_quick", lambda *_: True)


@pytest.fixture
def warm_rig(engine, quick):
    return Rig(engine, on_the_spot=True)


def test_job_runs_to_its_end_in_few_statements(warm_rig, monkeypatch):
    """Submission and its mark, a look at the job, and a call a stage and one more."""
    calls = []
    execute = psycopg.Cursor.execute

    def counted(self, query, *arguments, **options):
        calls.append(str(query).split("(")[0].replace("select * from ", "").replace('"', ""))
        return execute(self, query, *arguments, **options)

    warm_rig.run(n=3)  # opens connections, learns durations
    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    job_id = warm_rig.run(n=3)
    monkeypatch.undo()

    assert warm_rig.job(job_id).result == {"total": 5, "failed": 0}
    assert [call for call in calls if call.startswith("app.")] == [
        "app.submit_job",
        "app.mark_job_announced",
        "app.plan_small_stage",
        "app.complete_stage_and_plan_next",
        "app.complete_stage_and_plan_next",
        "app.complete_stage_and_finalize",
    ]
    # Beside these: the job's row, and a page of completed and one of failed tasks for the fan-in.
    assert len(calls) == 6 + 3


@pytest.mark.parametrize("bad", [[], [1]])
def test_outcome_is_the_same_as_step_by_step(engine, monkeypatch, bad):
    """With a failed task, whose stage is to go on: its results are not all, so the rows are asked."""
    found = []
    for is_quick in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(StepTimes, "is_quick", lambda *_, quick=is_quick: quick)
            rig = Rig(engine, on_the_spot=True)
            job_id = rig.run(n=3, bad=bad)
        job = rig.job(job_id)
        events = engine.query("select event, stage, task_id from app.job_events where job_id = %s", job_id)
        found.append((job.status, job.result, sorted(map(str, events))))
    assert found[0] == found[1]
    assert found[0][0] == ("completed_with_errors" if bad else "completed")


def test_planner_and_finalizer_see_what_they_would_see_in_the_rows(engine, monkeypatch):
    odd = {"square": 4, "big": 1e16, "zero": -0.0, "é": [1.0, {"bb": 1, "a": None}]}
    seen = []

    def plan(stage, job_params, job_id, previous):
        kept = list(previous)
        seen.append(json.dumps([(t.task_id, t.task_index, t.name, t.parameters, t.result) for t in kept]))
        return [TaskDefinition(name="n0", parameters={"number": 0, "x": 1e20})] if stage > 1 else [TaskDefinition()]

    def finalize(context):
        seen.append(str(context.stages))
        seen.extend(json.dumps([(t.task_id, t.parameters, t.result) for t in context.results(n)]) for n in (1, 2, 3))
        return {}

    monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(plan))
    monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(finalize))
    runs = []
    for is_quick in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(StepTimes, "is_quick", lambda *_, quick=is_quick: quick)
            rig = Rig(engine, on_the_spot=True)
            rig.behave.before["s2-n0"] = lambda _: odd
            seen.clear()
            job_id = rig.run(n=1)
            assert rig.job(job_id).status == "completed"
            runs.append([text.replace(job_id, "") for text in seen])
    assert runs[0] == runs[1]
    assert len(runs[0]) == 6


def test_handler_that_changes_what_it_was_given_changes_nothing_for_the_planner(engine, quick, monkeypatch):
    seen = []

    def plan(stage, job_params, job_id, previous):
        seen.extend(task.parameters for task in previous)
        return [TaskDefinition(name="n0", parameters={"number": 0, "list": [1]})]

    monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(plan))
    rig = Rig(engine, on_the_spot=True)
    find = rig.registry.find_handler

    def meddle(params, context):
        params["list"].append(2)
        return {"count": 1}

    meddler = Handler("list", meddle, queue="tasks")
    monkeypatch.setattr(rig.registry, "find_handler", lambda name: meddler if name == "list" else find(name))
    rig.run(n=1)
    assert seen == [{"number": 0, "list": [1]}]


@pytest.mark.parametrize("step", ["create_tasks_for_stage", "finalize_job"])
def test_author_who_raises_is_asked_once_and_the_results_are_kept(warm_rig, monkeypatch, step):
    original, calls = getattr(ShapesJob, step), []

    def broken(*given):
        if step == "create_tasks_for_stage" and given[0] == 1:
            return original(*given)
        calls.append(given)
        raise ValueError("no plan")

    monkeypatch.setattr(ShapesJob, step, staticmethod(broken))
    job_id = warm_rig.run(n=2)
    job = warm_rig.job(job_id)
    assert (job.status, job.error["message"], len(calls)) == ("failed", "no plan", 1)
    ended = warm_rig.tasks(job_id, 1 if step == "create_tasks_for_stage" else 3)
    assert {task["status"] for task in ended} == {"completed"}


def test_stage_that_the_database_refuses_fails_the_job_and_not_the_results(warm_rig, monkeypatch):
    def plan(stage, job_params, job_id, previous):
        return [TaskDefinition(name="n0", task_type=None if stage == 1 else "t\x00", parameters={"number": 0})]

    monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(plan))
    monkeypatch.setattr(warm_rig.orchestration, "queue_for", lambda _stage, _task_type: "tasks")
    find = warm_rig.registry.find_handler
    monkeypatch.setattr(warm_rig.registry, "find_handler", lambda name: find("square" if name == "t\x00" else name))
    job_id = warm_rig.run(n=1)
    assert warm_rig.job(job_id).status == "failed"
    assert warm_rig.job(job_id).error["step"] == "plan_stage"
    assert [task["status"] for task in warm_rig.tasks(job_id, 1)] == ["completed"]


@pytest.mark.parametrize("verb", ["complete_stage_and_plan_next", "complete_stage_and_finalize"])
def test_passing_trouble_with_what_follows_costs_neither_the_results_nor_the_job(warm_rig, monkeypatch, caplog, verb):
    """The results are written alone, and what was prepared is written after them: the author is asked once."""
    original, asked = getattr(StageCompletionRepository, verb), []
    finalize = ShapesJob.finalize_job

    def troubled(self, *arguments, **options):
        monkeypatch.setattr(StageCompletionRepository, verb, original)
        raise RepositoryError(verb, "out of memory")

    def counted(context):
        asked.append(context.job_id)
        return finalize(context)

    monkeypatch.setattr(StageCompletionRepository, verb, troubled)
    monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(counted))
    job_id = warm_rig.run(n=3)
    assert warm_rig.job(job_id).result == {"total": 5, "failed": 0}
    assert asked == [job_id]
    assert "stage_not_ended_with_next_step" in caplog.messages
    events = warm_rig.engine.query("select event from app.job_events where event like 'job_step%%' order by event_id")
    assert events == []


def test_slow_steps_wait_until_the_results_are_written(engine, monkeypatch):
    """A planner of minutes must not hold back, or cost, the work that it plans from."""
    found, original = [], ShapesJob.create_tasks_for_stage
    seconds = iter([QUICK_SECONDS * 2, QUICK_SECONDS / 2])

    def plan(stage, job_params, job_id, previous):
        if stage == 2:
            found.extend(
                engine.query("select status from app.tasks where job_id = %s and task_id = 's1-000000'", job_id)
            )
        return original(stage, job_params, job_id, previous)

    monkeypatch.setattr(ShapesJob, "create_tasks_for_stage", staticmethod(plan))
    rig = Rig(engine, on_the_spot=True)
    times = rig.machine._advancer._times
    for took in (None, *seconds):
        if took is not None:
            times._seconds.put(("shapes", 2), took)
        rig.run(n=1)
    # Never seen, slow when last seen, quick when last seen.
    assert [row["status"] for row in found] == ["completed", "completed", "processing"]


class Lasting:
    """A rig of which the planner of stage 2, or the finalizer, lasts until the test lets it end; it counts its calls.

    The author runs in a thread; `meanwhile` is what the process does beside it.
    """

    def __init__(self, rig, monkeypatch, step):
        self.rig, self.calls = rig, 0
        self.called, self.go_on = threading.Event(), threading.Event()
        original = getattr(ShapesJob, step)

        def lasting(*given):
            if step == "finalize_job" or given[0] == 2:
                self.calls += 1
                self.called.set()
                assert self.go_on.wait(60)
            return original(*given)

        monkeypatch.setattr(ShapesJob, step, staticmethod(lasting))
        monkeypatch.setattr(overtime, "LONG_SECONDS", 0.0)
        self.stage, self.status = (3, "finalizing") if step == "finalize_job" else (2, "queued")
        self.ended_stage = 3 if step == "finalize_job" else 1

    def run(self, meanwhile):
        """Submit a job, and call `meanwhile` with its id while the author's code lasts. Returns the job as it ends."""
        with ThreadPoolExecutor(1) as thread:
            try:
                job_id = self.rig.submit(n=2)
                ran = thread.submit(self.rig.queues.run, self.rig.machine)
                assert self.called.wait(60)
                meanwhile(job_id)
            finally:
                self.go_on.set()
            ran.result(60)
        return self.rig.job(job_id)

    def look(self):
        self.rig.machine._advancer._overtime.look_now()


@pytest.fixture(params=["create_tasks_for_stage", "finalize_job"], ids=["planner", "finalizer"])
def lasting(request, warm_rig, monkeypatch):
    return Lasting(warm_rig, monkeypatch, request.param)


def test_results_do_not_wait_for_an_author_who_was_quick_and_lasts_this_time(lasting):
    """The tasks had ended, and ran into their timeout; a process that died then ran them again."""
    rig = lasting.rig

    def meanwhile(job_id):
        lasting.look()
        lasting.look()  # nothing is left to be done
        assert {task["status"] for task in rig.tasks(job_id, lasting.ended_stage)} == {"completed"}
        job = rig.job(job_id)
        assert (job.status, job.stage) == (lasting.status, lasting.stage)
        assert rig.keeper.held() == []
        # The step is this process's: its message changes nothing.
        assert rig.machine._steps.is_taken(job)
        rig.machine.process_job_message(step_message(job, "again"))

    job = lasting.run(meanwhile)
    assert (job.result, lasting.calls) == ({"total": 1, "failed": 0}, 1)
    assert {task["attempt"] for stage in (1, 2, 3) for task in rig.tasks(job.job_id, stage)} == {1}
    assert not rig.machine._steps._held


def test_error_of_an_author_who_lasts_is_the_step_s(lasting, monkeypatch):
    wait = lasting.go_on.wait

    def fail(timeout):
        wait(timeout)
        raise ValueError("no plan")

    monkeypatch.setattr(lasting.go_on, "wait", fail)
    job = lasting.run(lambda _: lasting.look())
    assert (job.status, job.error["message"], lasting.calls) == ("failed", "no plan", 1)
    assert {task["status"] for task in lasting.rig.tasks(job.job_id, lasting.ended_stage)} == {"completed"}


def test_results_that_cannot_be_written_meanwhile_are_written_later(lasting, monkeypatch):
    rig, complete = lasting.rig, StageCompletionRepository.complete_task_and_check_stage

    def is_away(*_, **__):
        monkeypatch.setattr(StageCompletionRepository, "complete_task_and_check_stage", complete)
        raise StoreUnavailable("away")

    def meanwhile(job_id):
        monkeypatch.setattr(StageCompletionRepository, "complete_task_and_check_stage", is_away)
        lasting.look()
        lasting.look()
        assert {task["status"] for task in rig.tasks(job_id, lasting.ended_stage)} == {"completed"}

    assert lasting.run(meanwhile).status == "completed"
    assert lasting.calls == 1


def test_job_that_is_cancelled_while_an_author_lasts_gets_no_step(lasting):
    def meanwhile(job_id):
        lasting.look()
        lasting.rig.machine.cancel_job(job_id, None)

    job = lasting.run(meanwhile)
    assert (job.status, lasting.calls) == ("cancelled", 1)
    assert {task["status"] for task in lasting.rig.tasks(job.job_id, lasting.ended_stage)} == {"completed"}
    assert not lasting.rig.machine._steps._held


def let_another_complete(engine, job_id, task_id, result):
    """A task of stage 2 loses its lease, and its new holder leaves this result."""
    where = StageRef(job_id, 1, 2)
    with engine.pool.connection() as connection, connection.transaction():  # no heartbeat comes in between
        connection.execute("update app.tasks set lease_expires_at = now() where task_id = %s", (task_id,))
        connection.execute("select app.take_back_tasks(%s, %s, %s)", where)
    lease = engine.claim(job_id, 2, task_id)
    assert engine.stages.complete_task_and_check_stage(where, lease_id=lease, results={task_id: result}).updated_ids


def test_results_that_another_process_wrote_are_not_taken_for_one_s_own(warm_rig, engine):
    """The lease of one of three was lost, and its new holder left another result before the others ended."""
    is_lost = threading.Event()

    def lose(context):
        let_another_complete(engine, context.job_id, "s2-n1", {"square": 1000})
        is_lost.set()

    warm_rig.behave.before["s2-n0"] = lose
    # Its own attempt ends after that, whichever thread is quicker.
    warm_rig.behave.before["s2-n1"] = lambda _: is_lost.wait(60) and None
    job_id = warm_rig.run(n=3)
    assert warm_rig.job(job_id).result["total"] == 0 + 1000 + 4


def test_result_that_comes_after_its_stage_ended_holds_up_nothing(warm_rig, engine):
    """The process forgot that its other results had ended the stage, and the job stood until the janitor came."""
    is_lost = threading.Event()

    def lose(context):
        let_another_complete(engine, context.job_id, "s2-n1", {"square": 1000})
        is_lost.set()

    def outlast(context):
        assert is_lost.wait(60)
        until = time.monotonic() + 60
        while not engine.query("select from app.stages where stage = 2 and status = 'completed'"):
            assert time.monotonic() < until

    warm_rig.behave.before |= {"s2-n0": lose, "s2-n1": outlast}
    job_id = warm_rig.run(n=3)
    assert warm_rig.job(job_id).result["total"] == 0 + 1000 + 4
