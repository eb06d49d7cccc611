"""Each state-changing function on a real PostgreSQL: what it does, and what it refuses."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from core.models import JobRecord, JobRef, Lease, StageRef
from core.models.lease import HeldTask
from core.models.record import StageRecord, TaskRecord
from core.models.submission import SubmissionOutcome, Submitted
from core.models.transition import SmallStage
from infrastructure.base import RepositoryError

ERROR = {"type": "ValueError", "message": "bad tile", "retryable": False}


def test_same_submission_again_answers_with_the_same_job(engine):
    job_id = engine.submit()
    job = engine.jobs.find_job(job_id)

    assert engine.jobs.submit_job(job) == Submitted(SubmissionOutcome.EXISTING, job_id, "queued", 1, "corr")
    assert len(engine.query("select 1 from app.stages where job_id = %s", job_id)) == 1


@pytest.mark.breaks_invariants
def test_job_record_survives_the_round_trip_with_every_column(engine):
    """A reader that forgot a column lost the error history of a whole system (lessons D30, D40). No column has its
    default here: what a reader forgets would come back as that."""
    job_id = engine.submit()
    columns = engine.query(
        "select column_name as name, data_type as type from information_schema.columns "
        "where table_schema = 'app' and table_name = 'jobs' and column_name not in ('job_id', 'status')"
    )
    values = {
        "text": lambda name: name,
        "integer": lambda name: 1000 + len(name),
        "jsonb": lambda name: Jsonb({"column": name}),
        "timestamp with time zone": lambda name: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(name)),
    }
    changes = {column["name"]: values[column["type"]](column["name"]) for column in columns} | {
        "status": "failed",
        "priority": "high",
    }
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute("set local session_replication_role = replica")
        connection.execute(
            SQL("update app.jobs set {}").format(
                SQL(", ").join(SQL("{} = %s").format(Identifier(name)) for name in changes)
            ),
            list(changes.values()),
        )
    (row,) = engine.query("select * from app.jobs where job_id = %s", job_id)

    found = engine.jobs.find_job(job_id)
    assert found.model_dump() == row
    assert not [name for name, field in JobRecord.model_fields.items() if getattr(found, name) == field.default]


def test_a_task_is_read_with_every_column_that_was_written(engine):
    """What was read in part was written back in part: errors and attempts were lost (lessons D30, D40)."""
    job_id = engine.submit(retry={"max_attempts": 3})
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    engine.stages.increment_task_retry_count(
        StageRef(job_id, 1, 1), "s1-00000", lease_id=lease, error=ERROR, delay_seconds=0
    )
    lease = engine.claim(job_id, 1, "s1-00000")
    engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {"n": [1, None]}}
    )
    (row,) = engine.query("select * from app.tasks where job_id = %s", job_id)
    assert (row["attempt"], row["result"], row["status"]) == (2, {"n": [1, None]}, "completed")
    assert TaskRecord.model_validate(row).model_dump() == row
    (event,) = engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert event["detail"]["message"] == ERROR["message"]
    (stage,) = engine.query("select * from app.stages where job_id = %s and stage = 1", job_id)
    assert StageRecord.model_validate(stage).model_dump() == stage


def test_job_runs_through_its_stages_to_finalizing(engine):
    job_id = engine.submit(stages=2)
    for stage in (1, 2):
        assert engine.plan(job_id, stage, 2) == ("planned", 2)
        lease = engine.claim(job_id, stage, f"s{stage}-00000", f"s{stage}-00001")
        check = engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 1, stage),
            lease_id=lease,
            results={f"s{stage}-00000": {"n": 1}, f"s{stage}-00001": {"n": 2}},
        )
        assert check.is_last_task_in_stage
        assert check.stage_status == "completed"

    assert engine.job_status(job_id) == "finalizing"
    assert engine.jobs.finalize_job(JobRef(job_id, 1), {"total": 3}) == "completed"
    assert engine.jobs.finalize_job(JobRef(job_id, 1), {"total": 4}) is None
    assert engine.jobs.find_job(job_id).result == {"total": 3}


def test_empty_stage_is_complete(engine):
    """A stage without tasks hung for ever (lesson D12)."""
    job_id = engine.submit(stages=2)
    engine.plan(job_id, 1, 0)

    assert engine.jobs.find_job(job_id).stage == 2
    assert engine.job_status(job_id) == "queued"


def test_second_planning_of_a_stage_changes_nothing(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)

    assert engine.plan(job_id, 1, 5) == ("closed", 0)
    assert len(engine.query("select 1 from app.tasks where job_id = %s", job_id)) == 3


def test_planner_that_raises_leaves_no_task_behind(engine):
    job_id = engine.submit()

    def broken_plan():
        yield from ()
        raise KeyError("tile")

    with pytest.raises(KeyError):
        engine.tasks.plan_stage(StageRef(job_id, 1, 1), broken_plan())
    assert engine.plan(job_id, 1, 1) == ("planned", 1)


def test_redelivered_message_does_not_run_a_completed_task_again(engine):
    """Terminal states were open, so a second delivery ran the task and revived the job (lesson D8)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    for task_id, outcome in (("s1-00000", "duplicate"), ("s1-00001", "closed")):
        lease = engine.claim(job_id, 1, task_id)
        engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={task_id: {}})

        (row,) = engine.tasks.claim_tasks(StageRef(job_id, 1, 1), [task_id], lease=Lease(uuid4(), "late"))
        assert row.outcome == outcome
        assert engine.task(job_id, task_id)["status"] == "completed"


def test_claim_names_the_outcome_of_every_task(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)
    lease = engine.claim(job_id, 1, "s1-00000", "s1-00001")
    engine.stages.increment_task_retry_count(
        StageRef(job_id, 1, 1), "s1-00001", lease_id=lease, error=ERROR, delay_seconds=3600
    )

    rows = engine.tasks.claim_tasks(
        StageRef(job_id, 1, 1), ["s1-00002", "gone", "s1-00000", "s1-00001"], lease=Lease(uuid4(), "b")
    )
    assert [(row.task_id, row.outcome) for row in rows] == [
        ("gone", "missing"),
        ("s1-00000", "duplicate"),
        ("s1-00001", "not_due"),
        ("s1-00002", "claimed"),
    ]
    assert 3500 < rows[2].wait_seconds <= 3600


def test_stale_lease_is_refused(engine):
    """Message locks ended before the work did: two executions, both accepted (lesson D16)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    engine.claim(job_id, 1, "s1-00000")

    check = engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=uuid4(), results={"s1-00000": {"x": 1}}
    )
    assert check.updated_ids == ()
    assert engine.task(job_id, "s1-00000")["status"] == "processing"


def test_failed_task_fails_the_job_and_keeps_late_siblings_out(engine):
    """Surviving siblings set a failed job completed (lesson D9)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)
    failing, late = engine.claim(job_id, 1, "s1-00000"), engine.claim(job_id, 1, "s1-00001")

    engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=failing, errors={"s1-00000": ERROR})
    check = engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=late, results={"s1-00001": {"x": 1}}
    )

    assert check.updated_ids == ()
    job = engine.jobs.find_job(job_id)
    assert job.status == "failed"
    assert "s1-00000: ValueError: bad tile" in job.error["message"]
    statuses = {row["status"] for row in engine.query("select status from app.tasks where stage = 1")}
    assert statuses == {"failed", "cancelled"}


@pytest.mark.parametrize(
    ("policy", "failures", "expected"),
    [
        ({"on_failure": "continue"}, 4, "finalizing"),
        ({"on_failure": "tolerate", "max_failed": 1}, 1, "finalizing"),
        ({"on_failure": "tolerate", "max_failed": 1}, 2, "failed"),
        ({"on_failure": "tolerate", "max_failed_percent": 50}, 2, "finalizing"),
        ({"on_failure": "tolerate", "max_failed_percent": 49}, 2, "failed"),
        ({"on_failure": "fail_job"}, 1, "failed"),
    ],
)
def test_failure_policy_decides_what_failed_tasks_mean(engine, policy, failures, expected):
    """Partial success had a status that nothing ever set (lesson D31)."""
    job_id = engine.submit(stages=1, failure=policy)
    engine.plan(job_id, 1, 4)
    ids = [f"s1-{index:05d}" for index in range(4)]
    lease = engine.claim(job_id, 1, *ids)
    engine.stages.fail_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease, errors=dict.fromkeys(ids[:failures], ERROR)
    )
    if ids[failures:]:
        engine.stages.complete_task_and_check_stage(
            StageRef(job_id, 1, 1), lease_id=lease, results={key: {} for key in ids[failures:]}
        )

    assert engine.job_status(job_id) == expected
    if expected == "failed" and policy["on_failure"] == "tolerate":
        may = "1" if "max_failed" in policy else "49 %"
        (row,) = engine.query("select error ->> 'message' as message from app.jobs where job_id = %s", job_id)
        message = row["message"]
        assert message.startswith(f"stage 1 failed: 2 of 4 tasks failed, and at most {may} may; last failed task s1-")
    if expected == "finalizing":
        assert engine.jobs.finalize_job(JobRef(job_id, 1), None) == "completed_with_errors"


def test_retry_spends_attempts_until_none_is_left(engine):
    """One statement writes status, attempt and due time: there is no step between to die in (lesson D19)."""
    job_id = engine.submit(retry={"max_attempts": 2})
    engine.plan(job_id, 1, 1)
    outcomes = []
    for _ in range(2):
        lease = engine.claim(job_id, 1, "s1-00000")
        row = engine.stages.increment_task_retry_count(
            StageRef(job_id, 1, 1), "s1-00000", lease_id=lease, error=ERROR, delay_seconds=0
        )
        outcomes.append(row.outcome)

    assert outcomes == ["scheduled", "exhausted"]


def test_interruption_spends_no_attempt(engine):
    """A retry was three steps; a crash between them lost the task (lesson D19)."""
    job_id = engine.submit(retry={"max_attempts": 1}, max_interruptions=3)
    engine.plan(job_id, 1, 1)
    for _ in range(3):
        engine.claim(job_id, 1, "s1-00000")
        engine.execute("update app.tasks set lease_expires_at = now() - interval '1 second'")
        assert engine.stages.take_back_tasks(StageRef(job_id, 1, 1)).taken_back == 1

    lease = engine.claim(job_id, 1, "s1-00000")
    check = engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}}
    )
    assert check.is_last_task_in_stage


def test_task_that_always_kills_its_process_ends_failed_with_that_reason(engine):
    job_id = engine.submit(max_interruptions=0)
    engine.plan(job_id, 1, 1)
    engine.claim(job_id, 1, "s1-00000")
    engine.execute("update app.tasks set lease_expires_at = now() - interval '1 second'")

    row = engine.stages.take_back_tasks(StageRef(job_id, 1, 1))
    assert (row.given_up, row.is_last_task_in_stage) == (1, True)
    assert engine.task(job_id, "s1-00000")["error"]["type"] == "InterruptedTooOften"
    assert engine.job_status(job_id) == "failed"


def test_live_lease_is_not_taken_back(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    engine.claim(job_id, 1, "s1-00000")

    assert engine.stages.take_back_tasks(StageRef(job_id, 1, 1)).taken_back == 0


def test_heartbeat_renews_reports_and_tells_the_lost(engine):
    """There was no heartbeat; death was guessed from age (lesson D27)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    lease = engine.claim(job_id, 1, "s1-00000")
    engine.execute("update app.tasks set lease_expires_at = now() where task_id = 's1-00000'")

    held = [HeldTask(job_id, 1, f"s1-0000{number}", lease, 60.0) for number in range(2)]
    held[0].report({"percent": 40})
    assert engine.tasks.renew_leases(held) == {(lease, "s1-00000"): "renewed"}
    assert not engine.tasks.is_any_stopping([held[0].job_id, "f" * 64])
    task = engine.task(job_id, "s1-00000")
    assert task["progress"] == {"percent": 40}
    assert engine.query("select %s > now() + interval '50 seconds' as ok", task["lease_expires_at"])[0]["ok"]


@pytest.mark.parametrize("is_small", [True, False])
def test_stage_whose_tasks_a_trigger_keeps_out_is_not_sealed(engine, is_small):
    """The job had completed, with its tasks counted and no results."""
    job_id = engine.submit()
    engine.execute("create function app.none() returns trigger language plpgsql as 'begin return null; end'")
    engine.execute("create trigger none before insert on app.tasks for each row execute function app.none()")
    row = TaskRecord(job_id=job_id, run=1, task_id="a", stage=1, task_index=0, task_type="t", queue="q")
    ref, tasks = StageRef(job_id, 1, 1), engine.tasks
    small, large = partial(tasks.plan_small_stage, ref, SmallStage([row])), partial(tasks.plan_stage, ref, [row])
    plan = small if is_small else large
    with pytest.raises(RepositoryError, match="expected 1 tasks to be inserted, found 0: a trigger"):
        plan()
    assert engine.job_status(job_id) == "queued"


def test_heartbeat_does_not_wait_for_a_row_that_somebody_has_locked(engine):
    """One row that a person had locked kept every lease of the process from being renewed."""
    held = []
    for job_id in (engine.submit(), engine.submit()):
        engine.plan(job_id, 1, 1)
        held.append(HeldTask(job_id, 1, "s1-00000", engine.claim(job_id, 1, "s1-00000"), 60.0))
    engine.execute("update app.tasks set lease_expires_at = now()")

    with engine.pool.connection() as other, other.transaction():
        other.execute("select from app.tasks where job_id = %s for update", (held[0].job_id,))
        outcomes = engine.tasks.renew_leases(held)
    assert outcomes == {(each.lease_id, "s1-00000"): "renewed" for each in held}
    late = "select job_id from app.tasks where lease_expires_at < now() + interval '50 seconds'"
    assert engine.query(late) == [{"job_id": held[0].job_id}]


def test_cancel_ends_at_once_what_has_not_started(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)

    assert engine.jobs.cancel_job(job_id, "not wanted") == "cancelled"
    assert engine.jobs.cancel_job(job_id, "again") == "cancelled"
    assert {row["status"] for row in engine.query("select status from app.tasks")} == {"cancelled"}


def test_cancel_waits_for_a_running_task_and_keeps_its_result_out(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    lease = engine.claim(job_id, 1, "s1-00000")

    assert engine.jobs.cancel_job(job_id, None) == "cancelling"
    held = [HeldTask(job_id, 1, "s1-00000", lease, 60.0)]
    assert engine.tasks.is_any_stopping([held[0].job_id, "f" * 64])
    assert engine.tasks.renew_leases(held) == {(lease, "s1-00000"): "stop"}
    engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {"x": 1}})

    assert engine.job_status(job_id) == "cancelled"
    assert engine.task(job_id, "s1-00000")["result"] is None


def test_cancelled_job_is_not_planned(engine):
    job_id = engine.submit()
    assert engine.jobs.cancel_job(job_id, None) == "cancelled"

    assert engine.plan(job_id, 1, 1) == ("closed", 0)


def test_announcing_marks_pending_rows_and_leaves_claimed_ones(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    engine.claim(job_id, 1, "s1-00000")

    assert engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00000", "s1-00001"]) == 1
    assert engine.task(job_id, "s1-00000")["status"] == "processing"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("jobs", "status = 'completed'"),
        ("stages", "status = 'completed_with_errors'"),
        ("tasks", "status = 'completed'"),
    ],
)
def test_database_refuses_a_transition_that_is_not_in_the_table(engine, table, change):
    """Two tables of transitions, and a look before each write (lesson D34)."""
    job_id = engine.submit()
    if table == "tasks":
        engine.plan(job_id, 1, 1)

    with pytest.raises(psycopg.Error) as refused:
        engine.execute(f"update app.{table} set {change}")  # noqa: S608 - names of this test
    assert refused.value.sqlstate == "CM003"


def test_database_refuses_to_open_an_ended_job_but_as_its_next_run(engine):
    job_id = engine.submit()
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "X", "message": "no"})
    for change in ("status = 'queued'", "status = 'queued', run = run + 2"):
        with pytest.raises(psycopg.Error) as refused:
            engine.execute(f"update app.jobs set {change}")  # noqa: S608 - names of this test
        assert refused.value.sqlstate == "CM003"
    assert engine.job_status(job_id) == "failed"


def test_duplicate_task_ids_in_a_plan_are_refused_whole(engine):
    job_id = engine.submit()

    def twice():
        from core.models import TaskRecord

        for index in (0, 0):
            yield TaskRecord(
                job_id=job_id, run=1, task_id=f"s1-{index}", stage=1, task_index=index, task_type="t", queue="q"
            )

    with pytest.raises(RepositoryError, match="s1-0"):
        engine.tasks.plan_stage(StageRef(job_id, 1, 1), twice())
    assert engine.query("select count(*) as n from app.tasks") == [{"n": 0}]
