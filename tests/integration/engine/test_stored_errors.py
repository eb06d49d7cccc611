"""What SQL and Python both make is the same: the shape of a stored error, the delay of a retry."""

import itertools

import pytest
from psycopg.types.json import Jsonb

from core.errors import Failure
from core.models import RetryPolicy, StageRef
from core.models.retry import retry_delay

# The bounds of a policy, its defaults, and a cap below the first delay.
SECONDS = [(0.001, 0.001), (0.001, 86400.0), (5.0, 300.0), (3600.0, 86400.0), (60.0, 1.0)]


def test_errors_of_sql_and_of_python_have_the_same_fields(engine):
    (row,) = engine.query("select app.stored_error('T', 'm', true, 2, '2026-01-01 00:00+00') as error")
    stored = Failure("T", "m", retryable=True).to_json(2)
    assert row["error"] == {**stored, "at": row["error"]["at"]}
    assert row["error"]["at"].startswith("2026-01-01T00:00:00")


def test_longest_delay_of_sql_and_of_python_is_the_same(engine):
    """SQL decides for an attempt that ran out of its lease, Python for one that failed in its own process."""
    for (base, cap), attempt in itertools.product(SECONDS, [1, 2, 3, 10, 64, 65, 66, 99]):
        policy = RetryPolicy(max_attempts=100, base_delay_seconds=base, max_delay_seconds=cap)
        (row,) = engine.query(
            "select app.longest_retry_delay(%s, %s) as seconds", Jsonb(policy.model_dump(mode="json")), attempt
        )
        assert row["seconds"] == pytest.approx(retry_delay(attempt, policy, draw=lambda: 1.0))


def test_delays_of_one_fan_out_differ(engine):
    """Without jitter a whole fan-out came back in the same second (lesson D20)."""
    policy = Jsonb(RetryPolicy().model_dump(mode="json"))
    rows = engine.query("select app.retry_delay(%s, 2) as seconds from generate_series(1, 100)", policy)
    delays = {row["seconds"] for row in rows}
    assert len(delays) > 80
    assert min(delays) >= 0
    assert max(delays) <= 10


def test_attempt_of_a_task_s_error_is_the_row_s_whichever_way_it_failed(engine):
    """A retry stored the attempts without interruptions, the failure after it the attempts with them."""
    job_id = engine.submit(failure={"on_failure": "continue"})
    ref, task_id = StageRef(job_id, 1, 1), "s1-00000"
    engine.plan(job_id, 1, 2)
    lease = engine.claim(job_id, 1, task_id)
    engine.execute("select app.release_tasks(%s, 1, 1, %s, %s, true)", job_id, lease, [task_id])
    error = Failure("OSError", "disk full", retryable=True).to_json()

    lease = engine.claim(job_id, 1, task_id)
    engine.stages.increment_task_retry_count(ref, task_id, lease_id=lease, error=error, delay_seconds=0)
    retried = engine.task(job_id, task_id)
    (event,) = engine.query("select detail from app.job_events where event = 'retry_scheduled'")
    assert (retried["attempt"], retried["error"]["attempt"], event["detail"]["attempt"]) == (2, 2, 2)

    lease = engine.claim(job_id, 1, task_id)
    engine.stages.fail_task_and_check_stage(ref, lease_id=lease, errors={task_id: error})
    failed = engine.task(job_id, task_id)
    (event,) = engine.query("select detail from app.job_events where event = 'task_failed'")
    assert (failed["attempt"], failed["error"]["attempt"], event["detail"]["attempt"]) == (3, 3, 3)
