"""Two releases side by side: what one of them does not know waits for the other, and spends nothing meanwhile."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest

from core.errors import QueueNotFound, StoreUnavailable
from core.models import JobQueueMessage, TaskDefinition
from core.models.announcement import UnannouncedTask
from core.models.control import RerunRequest
from core.models.message import Kept, KeptMessage
from core.models.submission import SubmitRequest
from core.operating.explain import explain
from core.operating.janitor import JanitorTimings
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.insight import InsightQueries
from infrastructure.queries import JobQueries
from infrastructure.verify import verify
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry
from triggers.api import create_api

from .machine_suite import Rig

ONE_ATTEMPT = {"max_attempts": 1}
AT_ONCE = JanitorTimings(announce=0, hold=0, job=0, lost=0)
HOUR = 3600


def stage(number, name, task_type, **fields):
    return {
        "number": number,
        "name": name,
        "task_type": task_type,
        "parallelism": "single",
        "retry": ONE_ATTEMPT,
        "max_interruptions": 0,
        **fields,
    }


class _Job(JobBaseMixin):
    parameters_schema: ClassVar = {"n": {"type": "int", "default": 2}, "odd": {"type": "str", "default": ""}}

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        odd = [TaskDefinition(name="odd", task_type=job_params["odd"])] if job_params["odd"] and stage == 1 else []
        return [TaskDefinition(name=f"n{number}") for number in range(job_params["n"])] + odd

    @staticmethod
    def finalize_job(context):
        return {"stages": len(context.stages)}


class Growing(_Job, JobBase):
    job_type = "growing"
    stages: ClassVar = [stage(1, "cut", "cut"), stage(2, "trim", "cut")]


class Grown(_Job, JobBase):
    job_type = "growing"
    stages: ClassVar = [stage(1, "cut", "cut"), stage(2, "polish", "polish", queue="tasks", tasks_per_message=2)]


class Fresh(_Job, JobBase):
    job_type = "fresh"
    stages: ClassVar = [stage(1, "cut", "cut")]


def do_nothing(params, context):
    return {}


def handlers(*task_types):
    return [Handler(task_type, do_nothing, queue="tasks") for task_type in task_types]


def old_registry():
    return Registry([Growing], handlers("cut"), queues=["tasks"])


def new_registry():
    return Registry([Grown, Fresh], handlers("cut", "polish", "shine"), queues=["tasks"])


class Fleet:
    """An old and a new release over one database and one set of queues. Their apps plan, run and finalize."""

    def __init__(self, engine, **old_options):
        self.engine, self.queues = engine, MemoryQueues()
        self.old = Rig(engine, self.queues, timings=AT_ONCE, registry=old_registry(), **old_options)
        self.new = Rig(engine, self.queues, timings=AT_ONCE, registry=new_registry())
        self.insight = InsightQueries(engine.pool)

    def submit(self, job_type, **parameters):
        return self.new.machine.submit_job(SubmitRequest(job_type, parameters)).job_id

    def give_to(self, rig, times=1):
        """Whatever comes next, as if its time had come."""
        for _ in range(times):
            self.make_due()
            assert self.queues.deliver(rig.machine, skip_delays=True)

    def make_due(self):
        self.engine.execute("update app.tasks set due_at = app.clock() where status = 'pending_retry'")
        self.engine.execute(
            "update app.jobs set waiting_for = waiting_for || jsonb_build_object('due_at', app.clock())"
            " where waiting_for is not null"
        )

    def finish_with_new(self):
        self.finish_with(self.new)

    def finish_with(self, rig):
        self.make_due()
        while self.queues.deliver(rig.machine, skip_delays=True):
            self.make_due()

    def findings(self, job_id):
        return {finding.code: finding for finding in explain(self.insight.get_job_facts(job_id))}

    def later(self, seconds, table="tasks"):
        """As if whoever gave back waited so much longer."""
        self.engine.execute(
            f"update app.{table} set waiting_for = waiting_for || jsonb_build_object("  # noqa: S608 - of these
            "'seen_at', (waiting_for ->> 'seen_at')::timestamptz - %s * interval '1 second')"
            " where waiting_for is not null",
            seconds,
        )

    def end_patience(self, table="tasks"):
        self.engine.execute(
            f"update app.{table} set waiting_for = waiting_for || jsonb_build_object('waited_seconds', %s::int)"  # noqa: S608
            " where waiting_for is not null",
            7 * HOUR,
        )

    def waited(self, table):
        return self.engine.query(
            f"select (waiting_for ->> 'waited_seconds')::float as waited from app.{table}"  # noqa: S608 - of these
            " where waiting_for is not null"
        )

    def check_nothing_was_spent(self, job_id):
        job = self.old.job(job_id)
        assert (job.status, job.attempt, job.error) == ("completed", 0, None)
        tasks = self.engine.query("select status, attempt, interruptions from app.tasks where job_id = %s", job_id)
        assert {tuple(task.values()) for task in tasks} == {("completed", 1, 0)}
        assert verify(self.engine.pool) == []


@pytest.fixture
def fleet(engine):
    return Fleet(engine)


def test_job_type_that_is_not_known_waits_for_the_release_that_knows_it(fleet):
    job_id = fleet.submit("fresh")
    fleet.give_to(fleet.old, times=5)

    job = fleet.old.job(job_id)
    assert (job.status, job.attempt, job.error) == ("queued", 0, None)
    found = fleet.findings(job_id)
    assert list(found) == ["waits_for_release"]
    assert (
        "knows the job type fresh: planning of stage 1 (cut); postponed 5 times" in found["waits_for_release"].message
    )
    assert "last by test-process" in found["waits_for_release"].message
    assert "6 h more" in found["waits_for_release"].advice
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)
    events = [event.event for event in JobQueries(fleet.engine.pool).list_events(job_id).items]
    assert events.count("job_waits_for_release") == 1


def test_task_type_of_a_stage_that_is_not_known_waits(fleet):
    job_id = fleet.submit("growing", n=4)
    fleet.give_to(fleet.old, times=1 + 4)  # plans, cuts
    assert fleet.old.job(job_id).stage == 2
    # Planned by the old release too: the stage names the queue.
    fleet.give_to(fleet.old, times=8)

    tasks = fleet.old.tasks(job_id, 2)
    assert {(task["status"], task["attempt"], task["interruptions"]) for task in tasks} == {("pending_retry", 0, 0)}
    assert sum(entry.queue == "tasks" for entry in fleet.queues._entries) == 2  # two tasks a message, as before
    found = fleet.findings(job_id)
    assert "knows the task type polish: 4 tasks of stage 2; postponed" in found["waits_for_release"].message
    assert "waiting_for_retry" not in found
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


@pytest.mark.parametrize("on_the_spot", [False, True])
@pytest.mark.parametrize("parallelism", ["single", "fan_out", "fan_in"])
def test_stage_that_the_code_does_not_have_waits(engine, on_the_spot, parallelism):
    """Both know its task type. The older planner took it for its own last stage, and the job completed, wrongly."""

    class Longer(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [*Growing.stages, stage(3, "again", "cut", parallelism=parallelism)]

    fleet = Fleet(engine, on_the_spot=on_the_spot)
    fleet.new = Rig(engine, fleet.queues, registry=Registry([Longer], handlers("cut"), queues=["tasks"]))
    if on_the_spot:  # so that its steps are known to be quick, and the next is prepared with the last results
        fleet.old.machine.submit_job(SubmitRequest("growing", {"n": 1, "odd": "cut"}))
        fleet.finish_with(fleet.old)
    job_id = fleet.submit("growing", n=1)
    for _ in range(8):
        fleet.make_due()
        fleet.queues.deliver(fleet.old.machine, skip_delays=True)

    job = fleet.old.job(job_id)
    assert (job.status, job.stage, job.attempt, fleet.old.tasks(job_id, 3)) == ("queued", 3, 0, [])
    assert "knows the stage 3 of 'growing', of which it has 2" in fleet.findings(job_id)["waits_for_release"].message
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_summary_waits_for_code_that_has_all_stages(engine):
    class Longer(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [*Growing.stages, stage(3, "again", "cut")]

    fleet = Fleet(engine)
    fleet.new = Rig(engine, fleet.queues, registry=Registry([Longer], handlers("cut"), queues=["tasks"]))
    job_id = fleet.submit("growing", n=1)
    while fleet.old.job(job_id).stage < 3 or not fleet.old.tasks(job_id, 3):
        fleet.give_to(fleet.new)
    fleet.give_to(fleet.old, times=3)  # runs the last task, whose type it knows

    assert fleet.old.job(job_id).status == "finalizing"
    assert "knows the stage 3 of 'growing'" in fleet.findings(job_id)["waits_for_release"].message
    fleet.finish_with_new()
    assert fleet.old.job(job_id).result == {"stages": 3}
    fleet.check_nothing_was_spent(job_id)


def test_task_of_a_strange_type_waits_while_its_neighbours_run(fleet):
    """A planner may give a task another type than its stage's."""
    job_id = fleet.submit("growing", n=0, odd="shine")
    job_id = fleet.submit("growing", n=3, odd="shine")
    fleet.give_to(fleet.new, times=2)
    fleet.engine.execute("update app.stages set settings = settings || '{\"tasks_per_message\": 4}'")
    ids = [task["task_id"] for task in fleet.old.tasks(job_id, 1)]
    fleet.queues.clear()
    fleet.new.orchestration.announce_tasks(
        fleet.old.job(job_id), 1, 4, [_waiting(task_id) for task_id in ids], on_sent=lambda _ids: None
    )
    fleet.give_to(fleet.old)

    assert {task["name"]: task["status"] for task in fleet.old.tasks(job_id, 1)} == {
        "n0": "completed",
        "n1": "completed",
        "n2": "completed",
        "odd": "pending_retry",
    }


@pytest.mark.parametrize("on_the_spot", [False, True])
def test_planner_whose_task_has_no_queue_here_waits(engine, on_the_spot):
    """The stage's queue comes from the handler, which only the new release has."""

    class Queueless(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [stage(1, "cut", "cut"), stage(2, "shine", "shine")]

    fleet = Fleet(engine, on_the_spot=on_the_spot)
    fleet.new = Rig(engine, fleet.queues, registry=Registry([Queueless], handlers("cut", "shine"), queues=["tasks"]))
    if on_the_spot:  # so that its steps are known to be quick, and the next is prepared with the last results
        fleet.old.machine.submit_job(SubmitRequest("growing", {"n": 1, "odd": "cut"}))
        fleet.finish_with(fleet.old)
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.old, times=1 if on_the_spot else 2)
    fleet.give_to(fleet.old, times=3)

    job = fleet.old.job(job_id)
    assert (job.status, job.stage, job.attempt) == ("queued", 2, 0)
    assert "knows the task type shine: planning of stage 2" in fleet.findings(job_id)["waits_for_release"].message
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_summary_of_a_job_type_that_is_not_known_waits(fleet):
    job_id = fleet.submit("fresh", n=1)
    fleet.give_to(fleet.new)
    fleet.give_to(fleet.old, times=4)  # runs the task, which both know

    assert "fresh: finalizing; postponed 4 times" in fleet.findings(job_id)["waits_for_release"].message
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


@pytest.mark.parametrize("field", ['{"priority": 7}', '{"stages": {"0": 1}}', '{"timeout_seconds": "soon"}'])
def test_definition_with_a_meaning_that_is_not_known_waits(fleet, field):
    job_id = fleet.submit("growing", n=1)
    (definition,) = fleet.engine.query("select definition from app.jobs")
    fleet.engine.execute("update app.jobs set definition = definition || %s::jsonb", field)
    fleet.give_to(fleet.old, times=2)
    assert "knows the definition" in fleet.findings(job_id)["waits_for_release"].message

    fleet.engine.execute("update app.jobs set definition = %s::jsonb", json.dumps(definition["definition"]))
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_tasks_of_a_definition_that_cannot_be_read_wait(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.new)
    fleet.engine.execute("""update app.jobs set definition = jsonb_set(definition, '{stages,0,shape}', '"round"')""")
    fleet.give_to(fleet.old, times=2)

    (task,) = fleet.old.tasks(job_id, 1)
    assert (task["status"], task["attempt"], task["interruptions"]) == ("pending_retry", 0, 0)
    found = fleet.findings(job_id)["waits_for_release"]
    assert "definition stages.0.shape = 'round'" in found.message


def test_field_of_a_definition_that_is_not_used_is_no_hindrance(fleet):
    """A newer release writes every field that it has, most of them null."""
    job_id = fleet.submit("growing", n=1)
    fleet.engine.execute(
        "update app.jobs set definition = jsonb_set(definition, '{stages,0,retry,budget}', 'null')"
        " || jsonb_build_object('priority', null)"
    )
    fleet.give_to(fleet.old, times=2)
    assert fleet.old.job(job_id).stage == 2


def test_parameters_of_a_newer_release_are_not_judged_again(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.engine.execute("update app.jobs set parameters = parameters || jsonb_build_object('blur', 3)")
    fleet.give_to(fleet.old, times=2)
    assert fleet.old.job(job_id).stage == 2


def test_stage_beyond_the_definition_waits(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.engine.execute("update app.jobs set stage = 3, total_stages = 3 where job_id = %s", job_id)
    fleet.engine.execute("insert into app.stages (job_id, run, stage, settings) values (%s, 1, 3, '{}')", job_id)
    fleet.give_to(fleet.old, times=2)
    assert "knows the stage 3 of a job" in fleet.findings(job_id)["waits_for_release"].message

    fleet.engine.execute("delete from app.stages where stage = 3")
    fleet.engine.execute("update app.jobs set stage = 1, total_stages = 2")
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_step_fails_with_a_reason_when_no_release_came(fleet):
    job_id = fleet.submit("fresh")
    fleet.give_to(fleet.old)
    fleet.end_patience("jobs")
    fleet.give_to(fleet.old)

    job = fleet.old.job(job_id)
    assert (job.status, job.error["type"]) == ("failed", "UnknownWork")
    assert "expected an app that knows the job type fresh, and none came: postponed 2 times" in job.error["message"]
    assert "deploy the release that knows it" in job.error["message"]
    assert verify(fleet.engine.pool) == []
    fleet.new.machine.rerun_job(job_id, RerunRequest())
    fleet.finish_with_new()
    assert fleet.old.job(job_id).status == "completed"


def test_task_fails_with_a_reason_when_no_release_came_and_its_stage_ends(fleet):
    job_id = fleet.submit("growing", n=2)
    fleet.give_to(fleet.old, times=1 + 2 + 1 + 1)
    fleet.end_patience()
    fleet.give_to(fleet.old)

    job = fleet.old.job(job_id)
    assert (job.status, job.error["type"]) == ("failed", "StageFailed")
    tasks = fleet.old.tasks(job_id, 2)
    assert [(task["status"], task["error"]["type"]) for task in tasks] == [("failed", "UnknownWork")] * 2
    assert "the task type polish, and none came" in tasks[0]["error"]["message"]
    assert verify(fleet.engine.pool) == []


def test_stage_that_goes_on_past_failures_does_so_past_what_nobody_knows(engine):
    class Lenient(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [
            stage(1, "shine", "shine", queue="tasks", tasks_per_message=2, failure={"on_failure": "continue"})
        ]

    fleet = Fleet(engine)
    fleet.new = Rig(engine, fleet.queues, registry=Registry([Lenient], handlers("shine"), queues=["tasks"]))
    job_id = fleet.submit("growing")
    fleet.give_to(fleet.new)
    fleet.give_to(fleet.old)
    fleet.end_patience()
    fleet.give_to(fleet.old)
    assert fleet.old.job(job_id).status == "completed_with_errors"


@pytest.mark.parametrize("job_type", ["fresh", "growing"])
def test_work_does_not_fail_while_an_app_that_knows_it_is_there(fleet, job_type):
    """One new app among many old ones may wait long for its turn."""
    job_id = fleet.submit(job_type, n=1)
    fleet.give_to(fleet.old, times=4)
    table = "jobs" if job_type == "fresh" else "tasks"
    fleet.end_patience(table)
    fleet.old.janitor.sweep()  # which does not know it either
    assert [row["waited"] for row in fleet.waited(table)] == [7 * HOUR]
    fleet.new.janitor.sweep()
    assert [row["waited"] for row in fleet.waited(table)] == [0]
    fleet.give_to(fleet.old)
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_queue_that_an_app_has_no_name_for_leaves_tasks_to_the_app_that_has_one(engine, caplog):
    class OnGpu(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [stage(1, "cut", "cut", queue="gpu")]

    class WithoutGpu:
        def send_messages(self, queue, messages):
            if queue == "gpu":
                raise QueueNotFound(queue, "expected one of jobs, tasks")
            fleet.queues.send_messages(queue, messages)

    fleet = Fleet(engine)
    fleet.old = Rig(engine, fleet.queues, timings=AT_ONCE, registry=old_registry(), sender=WithoutGpu())
    fleet.new = Rig(
        engine, fleet.queues, timings=AT_ONCE, registry=Registry([OnGpu], handlers("cut"), queues=["tasks", "gpu"])
    )
    job_id = fleet.submit("growing", n=3)
    fleet.give_to(fleet.old)
    fleet.old.janitor.sweep()
    assert {(task["status"], task["queue"]) for task in fleet.old.tasks(job_id, 1)} == {("pending", "gpu")}
    told = [record for record in caplog.records if record.message == "message_not_confirmed"]
    assert {(record.levelname, record.exc_info) for record in told} == {("WARNING", None)}
    assert fleet.new.janitor.sweep().announced_tasks == 3
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_only_time_in_which_somebody_gives_it_back_counts(fleet):
    """A night without any app, or a pause, is not counted: nobody looked."""
    job_id = fleet.submit("fresh")
    fleet.give_to(fleet.old)
    for _ in range(3):
        fleet.later(10 * HOUR, "jobs")
        fleet.give_to(fleet.old)
    (note,) = fleet.engine.query("select waiting_for from app.jobs where job_id = %s", job_id)
    assert 3 * 120 <= note["waiting_for"]["waited_seconds"] < 3 * 121


def test_patience_begins_anew_after_somebody_has_had_the_task(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.old, times=1 + 1 + 1 + 1)
    fleet.end_patience()
    # A new release had it, and its process died.
    fleet.engine.execute("update app.tasks set attempt = 1, interruptions = 1, due_at = app.clock() where stage = 2")
    fleet.give_to(fleet.old)
    (task,) = fleet.old.tasks(job_id, 2)
    assert (task["status"], task["attempt"], task["waiting_for"]["times"]) == ("pending_retry", 1, 1)


def test_delay_grows_up_to_half_a_minute_and_is_never_none(fleet):
    job_id = fleet.submit("fresh")
    delays = []
    for _ in range(8):
        before = fleet.queues._clock()
        fleet.give_to(fleet.old)
        delays.append(fleet.queues._entries[0].due - before)
        assert not fleet.queues.deliver(fleet.old.machine)  # not before its time
        assert len(fleet.queues._entries) == 1
    assert all(0.5 * top <= delay <= top + 5 for delay, top in zip(delays, (1, 2, 4, 8, 16, 30, 30, 30), strict=True))
    assert fleet.old.job(job_id).status == "queued"


def test_second_message_of_a_step_that_is_postponed_makes_no_third(fleet):
    """Two consumers with a message each would double them at each round."""
    job_id = fleet.submit("fresh")
    fleet.give_to(fleet.old)
    job = fleet.old.job(job_id)
    fleet.old.orchestration.announce_job(JobQueueMessage(job_id=job_id, job_type="fresh", cause="again"))
    assert fleet.queues.deliver(fleet.old.machine)
    assert len(fleet.queues._entries) == 2
    assert min(entry.due for entry in fleet.queues._entries) > fleet.queues._clock()
    assert fleet.old.job(job_id).waiting_for == job.waiting_for


def test_second_message_of_tasks_that_are_postponed_makes_no_third(fleet):
    job_id = fleet.submit("growing", n=2)
    fleet.give_to(fleet.old, times=1 + 2 + 1 + 1)
    fleet.new.orchestration.announce_tasks(
        fleet.old.job(job_id),
        2,
        2,
        [_waiting(task["task_id"]) for task in fleet.old.tasks(job_id, 2)],
        on_sent=lambda _ids: None,
    )
    assert fleet.queues.deliver(fleet.old.machine)
    assert len(fleet.queues._entries) == 2
    assert min(entry.due for entry in fleet.queues._entries) > fleet.queues._clock()


@pytest.mark.parametrize("table", ["jobs", "tasks"])
def test_what_was_postponed_is_announced_by_the_janitor_when_its_message_is_lost(fleet, table):
    job_id = fleet.submit("fresh") if table == "jobs" else fleet.submit("growing", n=1)
    fleet.give_to(fleet.old, times=1 if table == "jobs" else 4)
    assert fleet.queues.clear() == 1
    report = fleet.old.janitor.sweep()
    assert (report.announced_jobs, report.announced_tasks) == (0, 0)  # not due yet
    fleet.engine.execute(
        f"update app.{table} set due_at = app.clock() - interval '1 minute',"  # noqa: S608 - of these
        " announced_at = app.clock() - interval '2 minutes' where waiting_for is not null"
    )
    fleet.new.janitor.sweep()
    fleet.finish_with_new()
    assert fleet.old.job(job_id).status == "completed"


def test_paused_job_does_not_wait_for_a_release(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.old, times=4)
    fleet.old.machine.pause_job(job_id)
    fleet.give_to(fleet.old)
    assert list(fleet.findings(job_id)) == ["paused"]
    fleet.old.machine.resume_job(job_id)
    fleet.finish_with_new()
    fleet.check_nothing_was_spent(job_id)


def test_cancelled_job_ends_though_its_tasks_wait_for_a_release(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.old, times=4)
    assert fleet.old.machine.cancel_job(job_id, "not wanted") == "cancelled"
    fleet.give_to(fleet.old)
    assert {task["status"] for task in fleet.old.tasks(job_id, 2)} == {"cancelled"}
    assert verify(fleet.engine.pool) == []


def test_declared_time_in_the_queue_ends_what_waits_for_a_release(engine):
    class Hasty(_Job, JobBase):
        job_type = "growing"
        stages: ClassVar = [stage(1, "shine", "shine", queue="tasks", queue_timeout_seconds=3600)]

    fleet = Fleet(engine)
    fleet.new = Rig(engine, fleet.queues, registry=Registry([Hasty], handlers("shine"), queues=["tasks"]))
    job_id = fleet.submit("growing", n=1)
    fleet.give_to(fleet.new)
    fleet.give_to(fleet.old)
    engine.execute("update app.stages set queue_deadline_at = app.clock()")
    fleet.old.janitor.sweep()
    (task,) = fleet.old.tasks(job_id, 1)
    assert (task["status"], task["error"]["type"]) == ("failed", "QueueTimeExpired")


def test_submission_of_a_job_type_that_is_not_known_waits_on_the_queue(fleet):
    message = JobQueueMessage(job_type="fresh", parameters={"n": 1}, correlation_id="order-7")
    fleet.queues.send_messages("jobs", [message])
    fleet.give_to(fleet.old, times=3)
    assert fleet.engine.query("select 1 from app.jobs") == []
    (entry,) = fleet.queues._entries
    assert json.loads(entry.body)["kept"]["times"] == 3

    fleet.finish_with_new()
    (job,) = fleet.engine.query("select status, correlation_id from app.jobs")
    assert job == {"status": "completed", "correlation_id": "order-7"}


@pytest.mark.parametrize(
    ("queue", "document", "reason"),
    [
        ("jobs", {"job_type": "fresh", "parameters": {}}, "expected one of ['growing'], found 'fresh'"),
        ("jobs", {"message_type": "job_split", "into": 2}, "does not know the message 'job_split' of format 1"),
        ("tasks", {"message_type": "task_cancel", "ids": []}, "does not know the message 'task_cancel' of format 1"),
        ("tasks", {"format": 2, "job_id": 7}, "does not know the message 'a message' of format 2"),
        ("jobs", {"format": 2, "job_type": "growing", "parameters": {}}, "of format 2"),
    ],
)
def test_message_that_nobody_knows_waits_and_is_then_kept_with_its_reason(fleet, queue, document, reason):
    since = datetime.now(UTC) - timedelta(days=1)
    kept = Kept(since=since, times=9)
    fleet.queues.send_messages(queue, [KeptMessage(document=document, kept=Kept(since=datetime.now(UTC), times=1))])
    fleet.give_to(fleet.old, times=3)
    (entry,) = fleet.queues._entries
    sent = json.loads(entry.body)
    assert sent == sent | document
    assert sent["kept"]["times"] == 4

    fleet.queues.clear()
    fleet.queues.send_messages(queue, [KeptMessage(document=document, kept=kept)])
    fleet.give_to(fleet.old)
    assert fleet.queues._entries == []
    (letter,) = fleet.engine.query("select queue, reason, description, body from app.dead_letters")
    assert (letter["queue"], letter["reason"]) == (queue, "UnknownWork")
    assert reason in letter["description"]
    assert f"postponed 10 times since {since:%Y-%m-%d}" in letter["description"]
    assert json.loads(letter["body"]) == json.loads(letter["body"]) | document
    assert "kept" not in letter["body"]


def test_field_of_a_message_that_is_not_known_changes_nothing(fleet):
    body = json.dumps({"job_type": "growing", "parameters": {"n": 1}, "colour": 3, "format": 1}).encode()
    fleet.queues._put("jobs", [_Raw(body)], 0.0)
    fleet.give_to(fleet.old)
    assert [row["job_type"] for row in fleet.engine.query("select job_type from app.jobs")] == ["growing"]


def test_status_that_is_not_known_is_shown_and_left_alone(fleet):
    job_id = fleet.submit("growing", n=1)
    fleet.engine.execute("alter table app.jobs drop constraint jobs_status_check")
    fleet.engine.execute("alter table app.jobs disable trigger transition_guard")
    fleet.engine.execute("update app.jobs set status = 'archived'")
    fleet.give_to(fleet.old)

    queries = JobQueries(fleet.engine.pool)
    services = SimpleNamespace(queries=queries, registry=fleet.old.registry, find_job_status=queries.find_job_status)
    api = create_api(lambda: services)

    def ask(path):
        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://jobs") as http:
                return await http.get(path)

        return asyncio.run(one()).json()

    assert [job["status"] for job in ask("/api/jobs")["value"]] == ["archived"]
    assert ask(f"/api/jobs/{job_id}")["status"] == "archived"
    assert queries.find_job_status(job_id) == "archived"
    assert "status_not_known" in fleet.findings(job_id)
    assert fleet.old.janitor.sweep().errors == {}

    machine = fleet.old.machine
    assert machine.cancel_job(job_id, None, grace_seconds=0) == "archived"
    for answer in (machine.pause_job(job_id), machine.resume_job(job_id), machine.rerun_job(job_id, RerunRequest())):
        assert (answer.outcome, answer.status, answer.allowed_actions) == ("refused", "archived", ())
    assert queries.find_job_status(job_id) == "archived"
    fleet.engine.execute("update app.jobs set status = 'queued'")


def test_submission_on_a_schema_of_another_release_stays_with_the_broker(fleet):
    message = JobQueueMessage(job_type="growing", parameters={"n": 1})
    fleet.engine.execute("alter schema app rename to another_release")
    with pytest.raises(StoreUnavailable, match="coremachine db migrate"):
        fleet.old.machine.process_job_message(message)
    fleet.engine.execute("alter schema another_release rename to app")
    fleet.old.machine.process_job_message(message)
    assert len(fleet.engine.query("select 1 from app.jobs")) == 1


class _Raw:
    def __init__(self, body):
        self.body = body

    def model_dump_json(self):
        return self.body.decode()


def _waiting(task_id):
    return UnannouncedTask(task_id, "tasks")
