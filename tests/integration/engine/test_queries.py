"""The read side: a job with its stages, and lists in pages."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from core.models import JobRef, JobStatus, StageRef, StageStatus, TaskStatus
from core.models.control import RerunMode, RerunRequest
from core.models.job_filter import JobFilter
from infrastructure.failures import FailureQueries
from infrastructure.list_columns import MOST_VALUE_BYTES
from infrastructure.postgresql import create_pool
from infrastructure.queries import InvalidCursor, JobNotFound, JobQueries, RunNotFound, TaskNotFound

# Rows are written as they are wanted, not as a job would leave them.
pytestmark = pytest.mark.breaks_invariants

ROWS = 20_000
BIG_JOB = f"{1:064x}"
START = datetime(2026, 1, 1, tzinfo=UTC)
ERROR = {"type": "OSError", "message": "disk full", "retryable": False}


@pytest.fixture
def queries(engine):
    return JobQueries(engine.pool)


def pages(read, **arguments):
    """All pages of a list, the way a client walks them."""
    cursor, found = None, []
    while True:
        page = read(cursor=cursor, **arguments)
        found.append(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_a_job_is_read_with_its_stages_and_their_counts(engine, queries):
    job_id = engine.submit(stages=3, failure={"on_failure": "continue"})
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}})
    engine.plan(job_id, 2, 5)
    lease = engine.claim(job_id, 2, "s2-00001", "s2-00002", "s2-00003")
    engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 2), lease_id=lease, results={"s2-00001": {}})
    engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 2), lease_id=lease, errors={"s2-00002": ERROR})
    engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s2-00004"])

    detail = queries.get_job_detail(job_id)

    assert (detail.job.job_id, detail.job.status, detail.job.stage) == (job_id, JobStatus.PROCESSING, 2)
    first, second = detail.stages
    assert (first.stage, first.name, first.status, first.expected_count) == (1, "s1", StageStatus.COMPLETED, 1)
    assert (second.task_type, second.parallelism.value, second.failed_count) == ("t", "single", 1)
    one_each = ("pending", "queued", "processing", "completed", "failed")
    assert first.counts == dict.fromkeys(TaskStatus, 0) | {TaskStatus.COMPLETED: 1}
    assert second.counts == dict.fromkeys(TaskStatus, 0) | {TaskStatus(name): 1 for name in one_each}
    assert first.planned_at is not None
    assert first.finished_at is not None
    assert second.finished_at is None


def test_a_stage_that_waits_to_be_planned_has_no_tasks_to_count(engine, queries):
    (stage,) = queries.get_job_detail(engine.submit()).stages
    assert (stage.status, stage.expected_count, set(stage.counts.values())) == (StageStatus.QUEUED, None, {0})


def test_an_unknown_job_is_said_to_be_unknown(queries):
    with pytest.raises(JobNotFound, match=BIG_JOB):
        queries.get_job_detail(BIG_JOB)
    assert queries.find_job_status(BIG_JOB) is None
    assert queries.list_tasks(BIG_JOB).items == ()
    assert queries.list_events(BIG_JOB).items == ()


def test_the_status_of_a_job_is_read_alone(engine, queries):
    job_id = engine.submit()
    assert queries.find_job_status(job_id) is JobStatus.QUEUED
    engine.jobs.cancel_job(job_id, None)
    assert queries.find_job_status(job_id) is JobStatus.CANCELLED


def test_ended_and_unknown_jobs_are_found_among_those_that_are_waited_for(engine, queries):
    going_on, ended = engine.submit(), engine.submit()
    engine.jobs.cancel_job(ended, None)
    assert queries.find_ended_jobs({going_on, ended, BIG_JOB}) == {ended, BIG_JOB}
    assert queries.find_ended_jobs([]) == set()


def test_detail_of_an_ended_job_comes_with_the_look_that_finds_the_end(engine, queries):
    job_id = engine.submit()
    assert queries.find_ended_job_detail(job_id) is None
    engine.jobs.cancel_job(job_id, None)
    assert queries.find_ended_job_detail(job_id) == queries.get_job_detail(job_id)
    with pytest.raises(JobNotFound):
        queries.find_ended_job_detail(BIG_JOB)


def test_jobs_come_newest_first_and_each_once(engine, queries):
    """Seven jobs, some of one and the same instant."""
    submitted = [engine.submit() for _ in range(7)]
    engine.execute(
        "update app.jobs set created_at = '2026-01-01 00:00:00.123456+00' where job_id = any(%s)", submitted[:4]
    )

    found = pages(partial(queries.find_jobs, JobFilter()), limit=2)

    assert [len(items) for items in found] == [2, 2, 2, 1]
    flat = [job.job_id for items in found for job in items]
    assert flat == [*reversed(submitted[4:]), *sorted(submitted[:4], reverse=True)]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [(("te*",), 1), (("x", "*st"), 1), (("test",), 1), (("te_t",), 0), (("%",), 0), (("tes",), 0), ((), 0), (None, 1)],
)
def test_jobs_of_other_types_than_the_visible_ones_are_left_out(engine, queries, patterns, found):
    engine.submit()
    assert len(queries.find_jobs(JobFilter(visible_types=patterns)).items) == found


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "abcd"),
        ({"statuses": [JobStatus.FAILED]}, "b"),
        ({"statuses": [JobStatus.FAILED, JobStatus.QUEUED]}, "abd"),
        ({"job_types": ["y"]}, "cd"),
        ({"job_types": ["y", "x"]}, "abcd"),
        ({"statuses": [JobStatus.QUEUED], "job_types": ["x"]}, "a"),
        ({"job_types": ["x' or true --"]}, ""),
    ],
)
def test_jobs_are_filtered(engine, queries, filters, expected):
    for letter, status, job_type in (
        ("a", "queued", "x"),
        ("b", "failed", "x"),
        ("c", "completed", "y"),
        ("d", "queued", "y"),
    ):
        engine.execute(
            "insert into app.jobs (job_id, job_type, status, total_stages, definition, correlation_id) "
            "values (%s, %s, %s, 1, '{}', 'c')",
            letter * 64,
            job_type,
            status,
        )
    found = pages(partial(queries.find_jobs, JobFilter(**filters)), limit=1)
    assert sorted(job.job_id[0] for items in found for job in items) == list(expected)


def test_rows_added_between_pages_move_no_other_row(engine, queries):
    """Jobs submitted, and tasks of a later stage planned, while somebody walks the pages."""
    submitted = [engine.submit() for _ in range(4)]
    first = queries.find_jobs(JobFilter(), limit=2)
    newer = engine.submit()
    second = queries.find_jobs(JobFilter(), limit=2, cursor=first.next_cursor)
    assert [job.job_id for job in first.items + second.items] == submitted[::-1]
    assert queries.find_jobs(JobFilter(), limit=1).items[0].job_id == newer

    engine.plan(newer, 1, 3)
    tasks = queries.list_tasks(newer, limit=2)
    engine.execute(
        "insert into app.stages (job_id, run, stage, settings, status) values (%s, 1, 2, '{}', 'processing')", newer
    )
    engine.execute(
        "insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue) values "
        "(%s, 1, 's2-a', 2, 0, 't', 'q')",
        newer,
    )
    rest = queries.list_tasks(newer, limit=2, cursor=tasks.next_cursor)
    assert [task.task_id for task in tasks.items + rest.items] == ["s1-00000", "s1-00001", "s1-00002", "s2-a"]
    assert rest.next_cursor is None


def test_paused_jobs_are_those_that_wait_for_a_resume(engine, queries):
    held, runs, ended = (engine.submit() for _ in range(3))
    for job_id in (held, ended):
        engine.jobs.pause_job(job_id, reason=None, actor=None)
    engine.jobs.fail_job(JobRef(ended, 1), {"type": "X", "message": "x"})
    assert [job.job_id for job in queries.find_jobs(JobFilter(paused=True)).items] == [held]
    assert [job.job_id for job in queries.find_jobs(JobFilter(paused=False)).items] == [ended, runs]


def test_a_job_that_changes_keeps_its_place(engine, queries):
    submitted = [engine.submit() for _ in range(3)]
    first = queries.find_jobs(JobFilter(), limit=1)
    engine.plan(submitted[0], 1, 1)
    rest = queries.find_jobs(JobFilter(), limit=5, cursor=first.next_cursor)
    assert [job.job_id for job in rest.items] == [submitted[1], submitted[0]]


def test_tasks_are_those_of_the_run_the_stage_and_the_statuses_asked_for(engine, queries):
    job_id = engine.submit(failure={"on_failure": "continue"})
    engine.plan(job_id, 1, 3)
    lease = engine.claim(job_id, 1, "s1-00001")
    engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, errors={"s1-00001": ERROR})

    (failed,) = queries.list_tasks(job_id, run=1, stage=1, statuses=[TaskStatus.FAILED]).items
    assert (failed.task_id, failed.error, failed.parameters, failed.attempt) == (
        "s1-00001",
        ERROR | {"attempt": 1},
        {"index": 1},
        1,
    )
    open_tasks = queries.list_tasks(job_id, statuses=[TaskStatus.PENDING, TaskStatus.QUEUED]).items
    assert [task.task_index for task in open_tasks] == [0, 2]
    assert queries.list_tasks(job_id, stage=2).items == ()
    assert queries.list_tasks(job_id, run=2).items == ()
    engine.execute("update app.jobs set run = 2 where job_id = %s", job_id)
    assert queries.list_tasks(job_id).items == (), "without a run it is the job's current one"


def bytes_of(rows):
    return sum(len(row.model_dump_json()) for row in rows)


@pytest.mark.parametrize(
    "error",
    ["short", "x" * 5000, ["x" * 5000], 7, {f"k{i}": "y" * 900 for i in range(5000)}, {"value": ["z"] * 100_000}],
    ids=lambda error: f"{type(error).__name__}-{len(str(error))}",
)
def test_error_that_only_a_hand_can_have_written_breaks_no_list_and_fills_none(engine, queries, error):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    engine.execute("update app.tasks set error = %s where task_id = 's1-00000'", Jsonb(error))
    engine.execute("update app.job_events set detail = %s", Jsonb(error))

    tasks = queries.list_tasks(job_id).items
    assert (len(tasks), tasks[0].error is None, tasks[1].error) == (2, False, None)
    assert bytes_of(tasks) < 150_000
    assert bytes_of(queries.list_events(job_id).items) < 300_000


def test_large_values_are_not_in_lists_but_where_one_task_is_read(engine, queries):
    """Ten results of 15 MB made a page of 150 MB and a process of 1 GB."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 4)
    values = {"s1-00000": "x" * 4_000_000, "s1-00001": "é" * 33_000, "s1-00002": "small", "s1-00003": [10**4000] * 30}
    for task_id, value in values.items():
        engine.execute("update app.tasks set result = %s where task_id = %s", Jsonb({"value": value}), task_id)

    tasks = {task.task_id: task for task in queries.list_tasks(job_id).items}

    assert bytes_of(tasks.values()) < 10_000
    marker = tasks["s1-00000"].result
    assert marker.pop("stored_bytes") > 10_000
    assert marker == {"truncated": True, "whole": f"/api/jobs/{job_id}/tasks/s1-00000?run=1"}
    assert [task.result.get("truncated") for task in tasks.values()] == [True, True, None, True]
    assert tasks["s1-00002"].result == {"value": "small"}
    for task_id, value in values.items():
        assert queries.get_task(job_id, task_id).result == {"value": value}


def test_values_up_to_the_limit_are_in_lists(engine, queries):
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    for size, is_cut in ((MOST_VALUE_BYTES, False), (MOST_VALUE_BYTES + 1, True)):
        text = "x" * (size - len('{"text": ""}'))
        for column in ("parameters", "progress", "result"):
            engine.execute(SQL("update app.tasks set {} = %s").format(SQL(column)).as_string(), Jsonb({"text": text}))
        (task,) = queries.list_tasks(job_id).items
        for found in (task.parameters, task.progress, task.result):
            assert ("truncated" in found) == is_cut


def test_texts_of_errors_are_cut_in_every_list(engine, queries):
    """64 KB of a message and as much of a traceback, a thousand times."""
    job_id = engine.submit(failure={"on_failure": "continue"})
    engine.plan(job_id, 1, 2)
    error = {"type": "X", "message": "begin " + "é" * 60_000, "traceback": "y" * 60_000 + " end", "attempt": 1}
    lease = engine.claim(job_id, 1, "s1-00001")
    engine.stages.fail_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease, errors={"s1-00001": error})
    engine.jobs.fail_job(JobRef(job_id, 1), error)
    failures = FailureQueries(engine.pool)

    (task,) = queries.list_tasks(job_id, statuses=[TaskStatus.FAILED]).items
    (job,) = queries.find_jobs(JobFilter()).items
    (run,) = queries.list_runs(job_id)
    (failed,) = failures.list_failures(job_id=job_id).items
    for found in (task.error, job.error, run.error, failed.error):
        assert set(found) == set(error)
        assert (found["type"], found["attempt"]) == ("X", 1)
        assert found["message"].startswith("begin é")
        assert found["message"].endswith("é [cut here: 60006 characters in all]")
        assert found["traceback"].startswith("[cut here: 60004 characters in all]\ny")
        assert found["traceback"].endswith("y end")
        assert len(json.dumps(found, ensure_ascii=False)) < 2300
    (group,) = failures.group_failures()
    assert len(group.message) == 1000
    assert bytes_of(queries.list_events(job_id).items) < 10_000
    assert queries.get_task(job_id, "s1-00001").error == error
    assert queries.get_run(job_id, 1).error == error


def test_large_values_are_not_in_the_list_of_runs(engine, queries):
    job_id = engine.submit()
    large = {"text": "x" * 100_000}
    engine.execute("update app.jobs set result = %s, parameters = %s", Jsonb(large), Jsonb(large))
    (run,) = queries.list_runs(job_id)
    for found in (run.result, run.parameters):
        assert found["whole"] == f"/api/jobs/{job_id}/runs/1"
    whole = queries.get_run(job_id, 1)
    assert (whole.result, whole.parameters) == (large, large)


def test_one_task_is_of_the_run_that_is_asked_for(engine, queries):
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    assert queries.get_task(job_id, "s1-00000") == queries.list_tasks(job_id).items[0]
    engine.execute("update app.jobs set run = 2 where job_id = %s", job_id)
    assert queries.get_task(job_id, "s1-00000", run=1).run == 1
    for task_id, run in (("s1-00000", None), ("s1-00000", 2), ("s1-1", 1)):
        with pytest.raises(TaskNotFound, match=f"of job {job_id} has no task '{task_id}'"):
            queries.get_task(job_id, task_id, run=run)
    with pytest.raises(RunNotFound, match=f"job {job_id} has no run 3"):
        queries.get_run(job_id, 3)


def test_a_lease_id_is_not_shown(engine, queries):
    """Destructive routes without a key, secrets in rows, pickles (lesson D42)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 1)
    lease = engine.claim(job_id, 1, "s1-00000")
    (task,) = queries.list_tasks(job_id).items
    assert task.lease_owner == "test"
    assert str(lease) not in task.model_dump_json()


def test_events_come_oldest_first(engine, queries):
    """The correlation id was dropped on the way; the history was in the logs alone (lesson D29)."""
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    engine.jobs.cancel_job(job_id, "enough")
    engine.submit()

    found = pages(lambda **page: queries.list_events(job_id, **page), limit=2)

    names = [event.event for items in found for event in items]
    assert names == ["job_submitted", "stage_planned", "cancel_requested", "job_cancelled"]
    assert found[1][0].detail == {"reason": "enough", "actor": None, "grace_seconds": 300}


def encode(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "not base64!",
        "ümlaut",
        encode("jobs"),
        encode(["jobs"]),
        encode(["jobs", "yesterday", BIG_JOB]),
        encode(["jobs", "2026-01-01T00:00:00", BIG_JOB]),
        encode(["jobs", "2026-01-01T00:00:00Z", "'; drop table"]),
        encode(["tasks", 1]),
        encode(["tasks", 1, 1, 1]),
        encode(["tasks", 1, -1]),
        encode(["tasks", 1, 2**31]),
        encode(["events", 2**63]),
    ],
)
def test_a_broken_cursor_is_refused_by_every_list(queries, cursor):
    for read in (
        partial(queries.find_jobs, JobFilter()),
        lambda **page: queries.list_tasks(BIG_JOB, **page),
        lambda **page: queries.list_events(BIG_JOB, **page),
    ):
        with pytest.raises(InvalidCursor, match="expected the next_cursor of an earlier page"):
            read(cursor=cursor)


def test_a_cursor_of_another_list_is_refused(engine, queries):
    for _ in range(2):
        engine.submit()
    with pytest.raises(ValueError, match="of this list"):
        queries.list_events(BIG_JOB, cursor=queries.find_jobs(JobFilter(), limit=1).next_cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_bounds_is_refused(queries, limit):
    with pytest.raises(ValueError, match="limit: expected 1 to 1000"):
        queries.find_jobs(JobFilter(), limit=limit)


@dataclass
class Plan:
    """What a list did to answer: the indexes it used, whether it sorted all, how many rows it touched."""

    indexes: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    rows: float = 0

    def add(self, node):
        self.kinds.add(node["Node Type"])
        if "Index Name" in node:
            self.indexes.add(node["Index Name"])
        if "Scan" in node["Node Type"]:
            self.rows += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for child in node.get("Plans", ()):
            self.add(child)


class ExplainedQueries(JobQueries):
    """Runs each list under `explain analyze` and keeps the plan."""

    plan: Plan

    def _execute_query(self, operation, query, parameters=()):
        (row,) = super()._execute_query(operation, SQL("explain (analyze, format json) ") + query, parameters)
        self.plan = Plan()
        self.plan.add(row["QUERY PLAN"][0]["Plan"])
        return []


@pytest.fixture(scope="module")
def crowded(template_url):
    """20,000 jobs, one of them with 20,000 tasks and events; one in a hundred failed."""
    with psycopg.connect(template_url, autocommit=True) as connection:
        connection.execute("create database crowded template template_engine")
    url = make_conninfo(template_url, dbname="crowded")
    with create_pool(url) as pool:
        with pool.connection() as connection:
            insert_crowd(connection)
        yield ExplainedQueries(pool)
    with psycopg.connect(template_url, autocommit=True) as connection:
        connection.execute("drop database crowded with (force)")


def insert_crowd(connection):
    status = SQL("case when g %% 100 = 0 then 'failed' else 'completed' end")
    connection.execute(
        SQL(
            "insert into app.jobs (job_id, job_type, status, total_stages, definition, correlation_id, created_at) "
            "select lpad(to_hex(g), 64, '0'), 'type' || g %% 20, {}, 1, '{{}}', 'c', "
            "%s::timestamptz + g * interval '1 second' from generate_series(1, %s) g"
        ).format(status),
        (START, ROWS),
    )
    connection.execute(
        "insert into app.stages (job_id, run, stage, settings, status) values (%s, 1, 1, '{}', 'processing')",
        (BIG_JOB,),
    )
    connection.execute(
        SQL(
            "insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, status) "
            "select %s, 1, 's1-' || lpad(g::text, 6, '0'), 1, g, 't', 'q', {} from generate_series(1, %s) g"
        ).format(status),
        (BIG_JOB, ROWS),
    )
    connection.execute(
        "insert into app.job_events (job_id, run, event, at) select %s, 1, 'e', now() from generate_series(1, %s)",
        (BIG_JOB, ROWS),
    )
    connection.execute("analyze")


MIDDLE_OF_JOBS = encode(["jobs", str(START + timedelta(seconds=ROWS // 2)), f"{ROWS // 2:064x}"])
MIDDLE_OF_TASKS = encode(["tasks", f"s1-{ROWS // 2:06d}"])


@pytest.mark.parametrize(
    ("read", "arguments", "index"),
    [
        ("find_jobs", {"wanted": JobFilter()}, "jobs_by_age"),
        ("find_jobs", {"wanted": JobFilter(), "cursor": MIDDLE_OF_JOBS}, "jobs_by_age"),
        ("find_jobs", {"wanted": JobFilter(statuses=(JobStatus.FAILED,)), "cursor": MIDDLE_OF_JOBS}, "jobs_by_status"),
        ("find_jobs", {"wanted": JobFilter(statuses=(JobStatus.QUEUED,))}, ("jobs_by_status", "jobs_open")),
        ("find_jobs", {"wanted": JobFilter(job_types=("type3",)), "cursor": MIDDLE_OF_JOBS}, "jobs_by_type"),
        ("find_jobs", {"wanted": JobFilter(job_types=("nobody's",))}, "jobs_by_type"),
        ("list_tasks", {"run": 1}, "tasks_pkey"),
        ("list_tasks", {"cursor": MIDDLE_OF_TASKS}, "tasks_pkey"),
        ("list_tasks", {"stage": 1, "cursor": MIDDLE_OF_TASKS}, "tasks_pkey"),
        ("list_tasks", {"run": 1, "stage": 1, "statuses": [TaskStatus.PROCESSING]}, ("tasks_open", "tasks_leased")),
        ("list_events", {}, "job_events_pkey"),
        ("list_events", {"cursor": encode(["events", ROWS // 2])}, "job_events_pkey"),
    ],
)
def test_a_page_among_20000_rows_reads_about_as_many_rows_as_it_holds(crowded, read, arguments, index):
    about = () if read == "find_jobs" else (BIG_JOB,)
    getattr(crowded, read)(*about, limit=50, **arguments)

    plan = crowded.plan
    assert plan.indexes & set([index] if isinstance(index, str) else index), plan
    assert plan.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan"}), plan
    assert plan.rows <= 60, plan


@pytest.mark.parametrize("arguments", [{"run": 1, "stage": 1}, {"cursor": MIDDLE_OF_TASKS}])
def test_a_page_of_failed_tasks_reads_no_more_than_those_that_failed(crowded, arguments):
    crowded.list_tasks(BIG_JOB, limit=50, statuses=[TaskStatus.FAILED], **arguments)

    assert "tasks_failed" in crowded.plan.indexes, crowded.plan
    assert crowded.plan.rows <= ROWS // 100 * 2, crowded.plan


def test_runs_of_a_job_come_with_their_own_parameters_and_times(engine, queries):
    job_id = engine.submit(stages=1)
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "X", "message": "first"})
    engine.jobs.rerun_job(JobRef(job_id, 1), RerunRequest(mode=RerunMode.ALL, parameters={"n": 2}), None)

    second, first = queries.list_runs(job_id)
    assert (second.run, second.status, second.parameters, second.error) == (2, "queued", {"n": 2}, None)
    assert (first.run, first.status, first.parameters) == (1, "failed", {})
    assert first.error["message"] == "first"
    assert first.started_at < first.finished_at <= second.started_at
    assert second.finished_at is None
    assert queries.list_runs("0" * 64) == ()
