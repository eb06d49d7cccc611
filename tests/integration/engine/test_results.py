"""Results as streams: in order, in little memory, beside other work on a small pool."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import psycopg
import pytest

from core.fan_in import fan_in_reader, load_fan_in_results
from core.models import JobRef, StageRef
from core.models.context import CompletedTask, FailedTask, StageSummary
from infrastructure.base import DatabaseUnavailable
from infrastructure.postgresql import create_pool
from infrastructure.results import ROWS_PER_PAGE, ResultRepository

# Rows are written as they are wanted, not as a job would leave them.
pytestmark = pytest.mark.breaks_invariants

RESULT_BYTES = 1000
ERROR = {"type": "OSError", "message": "disk full", "retryable": False}


@pytest.fixture
def results(engine):
    return ResultRepository(engine.pool)


def insert_results(engine, job_id, count, *, failed_every=0):
    engine.plan(job_id, 1, 0)
    engine.execute(
        "insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, status, result, error) "
        "select %s, 1, 't' || g, 1, g, 't', 'q', case when g %% %s = 0 then 'failed' else 'completed' end, "
        "jsonb_build_object('text', repeat('x', %s)), jsonb_build_object('type', 'E') from generate_series(1, %s) g "
        "order by random()",
        job_id,
        failed_every or count + 1,
        RESULT_BYTES,
        count,
    )


def test_completed_and_failed_tasks_come_apart_and_in_order(engine, results):
    job_id = engine.submit(failure={"on_failure": "continue"})
    engine.plan(job_id, 1, 4)
    lease = engine.claim(job_id, 1, *(f"s1-{index:05d}" for index in range(4)))
    done = {"s1-00003": {"value": 3}, "s1-00000": {"value": 0}}
    engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results=done)
    engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, errors={"s1-00001": ERROR})

    assert list(results.stream_results(StageRef(job_id, 1, 1))) == [
        CompletedTask("s1-00000", 0, None, {"index": 0}, {"value": 0}),
        CompletedTask("s1-00003", 3, None, {"index": 3}, {"value": 3}),
    ]
    assert list(results.stream_failures(StageRef(job_id, 1, 1))) == [
        FailedTask("s1-00001", 1, None, {"index": 1}, ERROR | {"attempt": 1})
    ]
    assert results.stage_summaries(JobRef(job_id, 1)) == [StageSummary(1, "processing", 2, 1)]
    assert list(results.stream_results(StageRef(job_id, 2, 1))) == []
    assert results.stage_summaries(JobRef(job_id, 2)) == []


@pytest.mark.parametrize("count", [0, 1, ROWS_PER_PAGE - 1, ROWS_PER_PAGE, ROWS_PER_PAGE + 1, 2 * ROWS_PER_PAGE])
def test_every_result_comes_once_wherever_a_page_ends(engine, results, count):
    job_id = engine.submit()
    insert_results(engine, job_id, count)
    assert [task.task_index for task in results.stream_results(StageRef(job_id, 1, 1))] == list(range(1, count + 1))


def test_20000_results_pass_in_the_memory_of_a_few_pages(engine, results):
    """Fan-in and the summary loaded every task of the job (lessons D4, D36)."""
    job_id, count = engine.submit(), 20_000
    insert_results(engine, job_id, count, failed_every=10)
    list(islice(results.stream_results(StageRef(job_id, 1, 1)), 1))  # what is imported and prepared once does not count
    source = {"job_id": job_id, "run": 1, "stage": 1, "expected_count": count}
    tracemalloc.start()
    try:
        with fan_in_reader(results):
            loaded = load_fan_in_results({"fan_in_source": source})
            sizes = [len(task.result["text"]) for task in loaded.results()]
            failures = sum(1 for _ in loaded.failures())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (set(sizes), len(sizes), failures) == ({RESULT_BYTES}, 18_000, 2_000)
    all_of_them = count * RESULT_BYTES
    assert peak < all_of_them / 3, f"{peak / 1e6:.1f} MB"


def test_streams_hold_no_connection_while_they_are_consumed(engine, database_url):
    """A pool of one: two streams half read, one thrown away, and a transition in between."""
    job_id = engine.submit()
    insert_results(engine, job_id, ROWS_PER_PAGE + 10, failed_every=2)
    with create_pool(database_url, max_size=1, timeout_seconds=5) as small:
        results = ResultRepository(small)
        first, second, abandoned = (results.stream_results(StageRef(job_id, 1, 1)) for _ in range(3))
        next(abandoned)
        abandoned.close()
        pairs = sum(1 for _ in zip(first, second, results.stream_failures(StageRef(job_id, 1, 1)), strict=True))
        assert pairs == (ROWS_PER_PAGE + 10) // 2
        with small.connection() as connection:
            states = connection.execute(
                "select count(*) as n from pg_stat_activity where state like 'idle in transaction%%'"
            ).fetchall()
    assert states == [{"n": 0}]


def test_more_streams_than_connections_run_side_by_side(engine, database_url):
    job_id, count = engine.submit(), 3 * ROWS_PER_PAGE
    insert_results(engine, job_id, count)
    with create_pool(database_url, max_size=4) as pool, ThreadPoolExecutor(8) as executor:
        results = ResultRepository(pool)
        runs = [
            executor.submit(lambda: sum(1 for _ in results.stream_results(StageRef(job_id, 1, 1)))) for _ in range(8)
        ]
        assert [run.result(timeout=60) for run in runs] == [count] * 8


def test_failures_are_found_by_their_own_index(engine):
    """A few among thousands: reading them does not read the stage (lesson D4)."""
    job_id = engine.submit()
    insert_results(engine, job_id, 5_000, failed_every=500)
    engine.execute("analyze app.tasks")
    plans = []

    class Explained(ResultRepository):
        def _execute_query(self, operation, query, parameters=()):
            plans.extend(super()._execute_query(operation, psycopg.sql.SQL("explain ") + query, parameters))
            return []

    list(Explained(engine.pool).stream_failures(StageRef(job_id, 1, 1)))
    assert "tasks_failed" in str(plans)


def test_a_stream_says_when_the_database_is_gone(engine, database_url):
    job_id = engine.submit()
    insert_results(engine, job_id, 2 * ROWS_PER_PAGE)
    with create_pool(database_url) as closed:
        stream = ResultRepository(closed).stream_results(StageRef(job_id, 1, 1))
        next(stream)
    with pytest.raises(DatabaseUnavailable, match="stream_completed"):
        list(stream)
