"""Whatever comes in whatever order, the job ends, each stage ends once, and nothing is left open."""

from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.leases import HeldLease

TASKS = 3
ERROR = {"type": "OSError", "message": "disk full", "retryable": True}
task_numbers = st.integers(0, TASKS - 1)
events = st.one_of(
    st.tuples(st.sampled_from(["claim", "complete", "complete_stale", "fail", "retry", "heartbeat"]), task_numbers),
    st.tuples(st.sampled_from(["expire_leases", "take_back", "plan_again", "announce", "advance_again"]), st.just(0)),
    st.tuples(st.sampled_from(["cancel", "fail_job", "stage_overdue", "queue_overdue", "enforce"]), st.just(0)),
    st.tuples(st.just("attempt_overdue"), task_numbers),
)
policies = st.sampled_from(
    [{"on_failure": "fail_job"}, {"on_failure": "continue"}, {"on_failure": "tolerate", "max_failed": 1}]
)


class Driver:
    """Sends events to one stage after another, and remembers the leases that it was given."""

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
    def stage(self):
        return self.engine.jobs.find_job(self.job_id).stage

    def send(self, event, number):
        stage, engine = self.stage, self.engine
        task_id = f"s{stage}-{number:05d}"
        lease = self.leases.get(task_id, uuid4())
        where = (self.job_id, 1, stage)
        match event:
            case "claim":
                lease = uuid4()
                (row,) = engine.tasks.claim_tasks(*where, [task_id], lease_id=lease, owner="w")
                if row["outcome"] == "claimed":
                    self.leases[task_id] = lease
            case "complete":
                engine.stages.complete_task_and_check_stage(*where, lease_id=lease, results={task_id: {"n": 1}})
            case "complete_stale":
                check = engine.stages.complete_task_and_check_stage(*where, lease_id=uuid4(), results={task_id: {}})
                assert check.updated_ids == ()
            case "fail":
                engine.stages.fail_task_and_check_stage(*where, lease_id=lease, errors={task_id: ERROR})
            case "retry":
                engine.stages.increment_task_retry_count(*where, task_id, lease_id=lease, error=ERROR, delay_seconds=0)
            case "heartbeat":
                engine.tasks.renew_leases([HeldLease(self.job_id, 1, task_id, lease, 60.0)])
            case "attempt_overdue":
                engine.execute(
                    "update app.tasks set started_at = now() - interval '2 hours' where job_id = %s and task_id = %s",
                    self.job_id,
                    task_id,
                )
                outcomes = engine.tasks.renew_leases([HeldLease(self.job_id, 1, task_id, lease, 60.0)])
                assert set(outcomes.values()) <= {"timed_out", "stop"}
            case "announce":
                engine.tasks.mark_tasks_announced(self.job_id, 1, [task_id])
            case _:
                self.send_to_job(event, where)

    def send_to_job(self, event, where):
        engine = self.engine
        match event:
            case "plan_again":
                engine.plan(self.job_id, where[2], TASKS)
            case "expire_leases":
                engine.execute(
                    "update app.tasks set lease_expires_at = now() where status = 'processing' and job_id = %s",
                    self.job_id,
                )
            case "take_back":
                engine.stages.take_back_tasks(*where)
            case "advance_again":
                engine.query("select app.advance_job_stage(%s, %s, %s)", *where)
            case "stage_overdue" | "queue_overdue":
                column = "deadline_at" if event == "stage_overdue" else "queue_deadline_at"
                engine.execute(f"update app.stages set {column} = now() where job_id = %s and stage = %s", *where[::2])  # noqa: S608 - one of two names
            case "enforce":
                engine.stages.enforce_deadlines(*where, 2)
            case "cancel":
                engine.jobs.cancel_job(self.job_id, None)
            case "fail_job":
                engine.jobs.fail_job(self.job_id, 1, ERROR)

    def finish(self):
        """What the janitor and healthy workers would do; bounded."""
        for _ in range(20):
            if self.engine.job_status(self.job_id) not in {"queued", "processing", "cancelling"}:
                return
            for event in ("plan_again", "expire_leases", "take_back", "enforce", "enforce"):
                self.send(event, 0)
            for number in range(TASKS):
                self.send("claim", number)
                self.send("complete", number)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policies, st.lists(events, max_size=25))
def test_every_order_of_events_ends_the_job_and_each_stage_once(engine, policy, order):
    driver = Driver(engine, policy)
    driver.send("plan_again", 0)
    for event, number in order:
        driver.send(event, number)
    driver.finish()

    status = engine.job_status(driver.job_id)
    assert status in {"finalizing", "failed", "cancelled"}
    repeated = engine.query(
        "select stage, event from app.job_events where job_id = %s and event in "
        "('stage_completed', 'stage_completed_with_errors', 'job_failed', 'job_cancelled') "
        "group by stage, event having count(*) > 1",
        driver.job_id,
    )
    assert repeated == []
    open_tasks = engine.query(
        "select task_id, status from app.tasks where job_id = %s "
        "and status not in ('completed', 'failed', 'cancelled')",
        driver.job_id,
    )
    assert open_tasks == []
    unfinished = engine.query(
        "select stage from app.stages where job_id = %s and finished_at is null",
        driver.job_id,
    )
    assert unfinished == []
    if status == "finalizing":
        (counts,) = engine.query(
            "select count(*) filter (where result is not null) as results, count(*) filter (where status = 'failed') "
            "as failed, count(*) as total from app.tasks where job_id = %s",
            driver.job_id,
        )
        assert counts["results"] + counts["failed"] == counts["total"] == 2 * TASKS
