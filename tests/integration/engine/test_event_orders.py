"""Whatever comes in whatever order, the job ends, each stage ends once, and nothing is left open."""

from uuid import uuid4

from hypothesis import example, given
from hypothesis import strategies as st

from core.basics.canonical import encode_storable
from core.models import JobRef, Lease, StageRef
from core.models.control import RerunMode, RerunRequest
from core.models.lease import HeldTask
from core.models.transition import PlannedTask, SmallStage
from tests.stories import examples, many_more

TASKS = 3
ERROR = {"type": "OSError", "message": "disk full", "retryable": True}
task_numbers = st.integers(0, TASKS - 1)
events = st.one_of(
    st.tuples(st.sampled_from(["claim", "complete", "complete_stale", "fail", "retry", "heartbeat"]), task_numbers),
    st.tuples(st.sampled_from(["expire_leases", "take_back", "plan_again", "announce", "advance_again"]), st.just(0)),
    st.tuples(st.sampled_from(["claim_all", "end_stage", "end_stage"]), st.just(0)),
    st.tuples(st.sampled_from(["cancel", "fail_job", "stage_overdue", "queue_overdue", "enforce"]), st.just(0)),
    st.tuples(st.just("attempt_overdue"), task_numbers),
    st.tuples(st.sampled_from(["cancel", "fail_job", "force_cancel"]), st.just(0)),
    st.tuples(st.sampled_from(["pause", "resume", "announce_parked", "finalize"]), st.just(0)),
    st.tuples(st.sampled_from(["rerun_failed", "rerun_stage_2", "rerun_all"]), st.just(0)),
)
policies = st.sampled_from(
    [{"on_failure": "fail_job"}, {"on_failure": "continue"}, {"on_failure": "tolerate", "max_failed": 1}]
)


class Driver:
    """Sends events to one stage after another, and remembers the leases that it was given.

    What comes for a run that a rerun has followed is sent too: `complete` and `fail` under its old leases.
    """

    def __init__(self, engine, policy):
        self.engine = engine
        timeouts = {"task_timeout_seconds": 3600, "timeout_seconds": 86400, "queue_timeout_seconds": 86400}
        self.job_id = engine.submit(
            stages=2,
            failure=policy,
            retry={"max_attempts": 2, "base_delay_seconds": 1e-6},
            max_interruptions=1,
            **timeouts,
        )
        self.leases = {}

    @property
    def job(self):
        return self.engine.jobs.find_job(self.job_id)

    def send(self, event, number):
        job, engine = self.job, self.engine
        task_id = f"s{job.stage}-{number:05d}"
        # The lease may be one of an earlier run, and then its run is named too.
        run, lease = self.leases.get(task_id, (job.run, uuid4()))
        where = StageRef(self.job_id, run, job.stage)
        match event:
            case "claim":
                lease = uuid4()
                (row,) = engine.tasks.claim_tasks(job.stage_ref, [task_id], lease=Lease(lease, "w"))
                assert not (job.paused_at and row.outcome == "claimed")
                if row.outcome == "claimed":
                    self.leases[task_id] = (job.run, lease)
            case "complete":
                engine.stages.complete_task_and_check_stage(where, lease_id=lease, results={task_id: {"n": 1}})
            case "complete_stale":
                check = engine.stages.complete_task_and_check_stage(where, lease_id=uuid4(), results={task_id: {}})
                assert check.updated_ids == ()
            case "fail":
                engine.stages.fail_task_and_check_stage(where, lease_id=lease, errors={task_id: ERROR})
            case "retry":
                engine.stages.increment_task_retry_count(where, task_id, lease_id=lease, error=ERROR, delay_seconds=0)
            case "heartbeat":
                engine.tasks.renew_leases([HeldTask(self.job_id, run, task_id, lease, 60.0)])
            case "attempt_overdue":
                engine.execute(
                    "update app.tasks set started_at = now() - interval '2 hours' where job_id = %s and task_id = %s",
                    self.job_id,
                    task_id,
                )
                outcomes = engine.tasks.renew_leases([HeldTask(self.job_id, run, task_id, lease, 60.0)])
                assert set(outcomes.values()) <= {"timed_out", "stop"}
            case "claim_all" | "end_stage" | "announce":
                self.send_to_stage(event, job, where, lease, task_id)
            case _:
                self.send_to_job(event, job, job.stage_ref)

    def ids(self, stage):
        return [f"s{stage}-{number:05d}" for number in range(TASKS)]

    def send_to_stage(self, event, job, where, lease, task_id):
        tasks = self.engine.tasks
        if event == "end_stage":
            self.end_stage(job, where, lease)
        elif event == "announce":
            tasks.mark_tasks_announced(where.job_ref, [task_id])
        else:
            ids, lease = self.ids(job.stage), uuid4()
            rows = tasks.claim_tasks(job.stage_ref, ids, lease=Lease(lease, "w"))
            self.leases |= {row.task_id: (job.run, lease) for row in rows if row.outcome == "claimed"}

    def end_stage(self, job, where, lease):
        """All of the stage ends and what follows begins, or nothing changes."""
        stages, before = self.engine.stages, self.engine.rows_of(self.job_id)
        held = {"lease_id": lease, "results": {task_id: {"n": 1} for task_id in self.ids(job.stage)}}
        if job.stage == 2:
            done = stages.complete_stage_and_finalize(where, **held, summary={})
        else:
            none = encode_storable({})
            rows = [
                PlannedTask(self.job_id, job.run, task_id, 2, number, "t", "q", None, none)
                for number, task_id in enumerate(self.ids(2))
            ]
            following = SmallStage(rows, Lease(uuid4(), "w"), 1)
            done = stages.complete_stage_and_plan_next(where, **held, following=following)
            self.leases |= {row.task_id: (job.run, following.lease.lease_id) for row in rows if done}
        if not done:
            assert self.engine.rows_of(self.job_id) == before
            return
        assert (job.status, job.paused_at, where.run) == ("processing", None, job.run)
        assert set(self.ids(job.stage)) <= set(self.completed(job.run))
        after = self.job
        assert after.stage == 2
        assert after.status == ("processing" if job.stage == 1 else done)

    def send_to_job(self, event, job, where):
        engine = self.engine
        match event:
            case "plan_again":
                outcome, _ = engine.plan(self.job_id, job.stage, TASKS, run=job.run)
                assert not (job.paused_at and outcome == "planned")
            case "expire_leases":
                engine.execute(
                    "update app.tasks set lease_expires_at = now() where status = 'processing' and job_id = %s",
                    self.job_id,
                )
            case "take_back":
                engine.stages.take_back_tasks(where)
            case "advance_again":
                engine.query("select app.advance_job_stage(%s, %s, %s)", *where)
            case "stage_overdue" | "queue_overdue":
                column = "deadline_at" if event == "stage_overdue" else "queue_deadline_at"
                query = f"update app.stages set {column} = now() where job_id = %s and stage = %s"  # noqa: S608 - of two
                engine.execute(query, where.job_id, where.stage)
            case "enforce":
                engine.stages.enforce_deadlines(where, 2)
            case "cancel":
                engine.jobs.cancel_job(self.job_id, None)
            case "force_cancel":
                engine.execute("update app.jobs set cancel_deadline_at = now() where job_id = %s", self.job_id)
                engine.jobs.force_cancel(where)
            case "fail_job":
                engine.jobs.fail_job(job.ref, ERROR)
            case _:
                self.send_as_operator(event, job)

    def send_as_operator(self, event, job):
        jobs, who = self.engine.jobs, {"reason": None, "actor": "ada"}
        match event:
            case "pause":
                jobs.pause_job(self.job_id, **who)
            case "resume":
                jobs.resume_job(self.job_id, **who)
            case "announce_parked":
                for task in jobs.find_parked_tasks(self.job_id, 100, 60):
                    jobs.unpark_tasks(JobRef(self.job_id, task.run), [task.task_id], task.held_until)
            case "finalize":
                jobs.finalize_job(job.ref, {})
            case "rerun_failed" | "rerun_all" | "rerun_stage_2":
                mode = {"rerun_stage_2": "from_stage"}.get(event, event.removeprefix("rerun_"))
                kept = self.completed(job.run)
                answer = jobs.rerun_job(
                    job.ref,
                    RerunRequest(mode=RerunMode(mode), from_stage=2 if mode == "from_stage" else None, **who),
                    None,
                )
                assert answer.has_changed == (answer.run == job.run + 1)
                if answer.has_changed and mode == "failed":
                    first = answer.stage if answer.status != "finalizing" else answer.stage + 1
                    assert self.completed(answer.run) == {
                        key: result for key, result in kept.items() if key < f"s{first + 1}"
                    }
            case _:
                raise AssertionError(event)

    def completed(self, run):
        """Task id -> result of the tasks that a run has, its own and kept ones."""
        rows = self.engine.query(
            "select task_id, result from app.tasks where job_id = %s and run = %s and status = 'completed'",
            self.job_id,
            run,
        )
        return {row["task_id"]: row["result"] for row in rows}

    def finish(self):
        """What the janitor and healthy workers would do; bounded."""
        for _ in range(20):
            if self.engine.job_status(self.job_id) not in {"queued", "processing", "cancelling"}:
                return
            for event in ("resume", "plan_again", "expire_leases", "take_back", "enforce", "enforce"):
                self.send(event, 0)
            for number in range(TASKS):
                self.send("claim", number)
                self.send("complete", number)


STORIES = {"policy": policies, "order": st.lists(events, max_size=35)}


@examples(30)
@given(**STORIES)
# Tasks of a rerun wait parked; they expired before anybody was told of them, and stayed parked.
@example(
    {"on_failure": "fail_job"},
    [*[("claim", 0), ("expire_leases", 0), ("take_back", 0)] * 2, ("rerun_failed", 0), ("queue_overdue", 0)],
)
@example({"on_failure": "fail_job"}, [("claim_all", 0), ("end_stage", 0), ("end_stage", 0)])
@example(
    {"on_failure": "fail_job"}, [("claim_all", 0), ("pause", 0), ("end_stage", 0), ("resume", 0), ("end_stage", 0)]
)
def test_every_order_of_events_ends_the_job_and_each_stage_once(engine, policy, order):
    """A status was added and some queries were not told (lesson D33)."""
    driver = Driver(engine, policy)
    driver.send("plan_again", 0)
    for event, number in order:
        driver.send(event, number)
    driver.finish()

    status = engine.job_status(driver.job_id)
    assert status in {"finalizing", "completed", "completed_with_errors", "failed", "cancelled"}
    assert (status == "finalizing") or driver.job.paused_at is None
    repeated = engine.query(
        "select run, stage, event from app.job_events where job_id = %s and event in "
        "('stage_completed', 'stage_completed_with_errors', 'job_failed', 'job_cancelled') "
        "group by run, stage, event having count(*) > 1",
        driver.job_id,
    )
    assert repeated == []
    open_tasks = engine.query(
        "select task_id, status from app.tasks where job_id = %s "
        "and status not in ('completed', 'failed', 'cancelled')",
        driver.job_id,
    )
    assert open_tasks == []
    parked = engine.query("select task_id from app.tasks where job_id = %s and parked_at is not null", driver.job_id)
    assert parked == []
    stages = engine.query("select run, stage from app.stages where job_id = %s", driver.job_id)
    assert {row["run"] for row in stages} == set(range(1, driver.job.run + 1))
    runs = engine.query("select run, status from app.job_runs where job_id = %s order by run", driver.job_id)
    assert [row["run"] for row in runs] == list(range(1, driver.job.run))
    unfinished = engine.query(
        "select stage from app.stages where job_id = %s and finished_at is null",
        driver.job_id,
    )
    assert unfinished == []
    if status == "finalizing":
        (counts,) = engine.query(
            "select count(*) filter (where result is not null) as results, count(*) filter (where status = 'failed') "
            "as failed, count(*) as total from app.tasks where job_id = %s and run = %s",
            driver.job_id,
            driver.job.run,
        )
        assert counts["results"] + counts["failed"] == counts["total"] == 2 * TASKS


test_many_orders_of_events_end_the_job_and_each_stage_once = many_more(
    test_every_order_of_events_ends_the_job_and_each_stage_once, 300, **STORIES
)
