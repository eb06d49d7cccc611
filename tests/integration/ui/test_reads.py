"""What the dashboard counts, against rows in each state."""

import json
import os
from datetime import timedelta
from typing import Any

import pytest

from core.models import JobStatus
from core.models.dashboard import PulseWindow
from core.models.job_filter import JobFilter
from core.models.refs import JobRef
from core.models.view import JobSummary
from infrastructure import dashboard, job_search
from infrastructure.dashboard import DashboardQueries
from infrastructure.queries import InvalidCursor, JobQueries
from tests.databases import Engine


@pytest.fixture
def reads(engine: Engine) -> DashboardQueries:
    return DashboardQueries(engine.pool)


def summaries(engine: Engine) -> dict[str, JobSummary]:
    return {job.job_id: job for job in JobQueries(engine.pool).find_jobs(JobFilter()).items}


def test_jobs_are_counted_up_to_a_bound(engine, reads, monkeypatch):
    for _ in range(3):
        engine.submit()
    paused = engine.submit()
    engine.jobs.pause_job(paused, reason=None, actor=None)
    counts = reads.count_jobs()
    assert (counts.by_status["queued"], counts.by_status["failed"], counts.paused) == (3, 0, 1)
    assert (counts.total, counts.is_total_capped) == (4, False)
    monkeypatch.setattr(dashboard, "MOST_COUNTED", 2)
    counts = reads.count_jobs()
    assert (counts.by_status["queued"], counts.most, counts.is_total_capped) == (2, 2, True)


@pytest.mark.breaks_invariants
def test_progress_is_that_of_the_present_stage(engine, reads, monkeypatch):
    open_job, unplanned = engine.submit(), engine.submit()
    engine.plan(open_job, 1, 5)
    engine.claim(open_job, 1, "s1-00000", "s1-00001")
    engine.execute(
        "update app.tasks set status = 'completed', finished_at = now(), lease_id = null, lease_expires_at = null"
        " where job_id = %s and task_id = 's1-00001'",
        open_job,
    )
    found = reads.read_progress(summaries(engine).values())
    at = found[open_job]
    assert (at.stage, at.name, at.expected, at.completed, at.ended) == (1, "s1", 5, 1, 1)
    assert (at.running, at.is_counted) == (1, True)
    assert (found[unplanned].expected, found[unplanned].completed) == (None, 0)
    # Where a page of jobs has too many tasks, a bar has no numbers: it never has wrong ones.
    monkeypatch.setattr(dashboard, "_MOST_TASKS", 4)
    assert reads.read_progress(summaries(engine).values())[open_job].is_counted is False


def test_cancelled_tasks_are_among_those_that_have_ended(engine, reads):
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)
    engine.claim(job_id, 1, "s1-00000")
    engine.jobs.cancel_job(job_id, None)
    at = reads.read_progress(summaries(engine).values())[job_id]
    assert (at.expected, at.completed, at.ended, at.running) == (3, 0, 2, 1)


def found_by(reads: DashboardQueries, text: str, limit: int = 10, **wanted: Any) -> list[str]:
    return [job.job_id for job in reads.search.find_jobs(text, JobFilter(**wanted), limit=limit).items]


def test_a_job_is_found_by_the_beginning_of_its_id_or_its_correlation_id(engine, reads):
    first, second = engine.submit(), engine.submit()
    assert found_by(reads, first[:12].upper()) == [first]
    assert found_by(reads, first[:12], statuses=(JobStatus.FAILED,)) == []
    assert set(found_by(reads, "corr")) == {first, second}
    assert found_by(reads, "zzz") == []
    assert len(found_by(reads, "corr", 1)) == 1


@pytest.mark.breaks_invariants
def test_the_filter_of_a_search_has_the_jobs_that_the_search_lists(engine, reads):
    first, second, third = (engine.submit() for _ in range(3))
    write = "update app.jobs set parameters = %s::jsonb, correlation_id = %s where job_id = %s"
    # One has the other's correlation id and the beginning of its id as a parameter.
    engine.execute(write, json.dumps({"like": "corr-9", "of": second[:8]}), "corr-8", first)
    engine.execute(write, '{"folder": "Scenes"}', "corr-9", second)
    engine.execute(write, '{"folder": "scenes"}', "corr-9", third)
    for text in ("corr-9", "corr-8", second[:8], second[:2], "SCENES", "folder=scenes", "like=corr", "zzz"):
        listed = set(found_by(reads, text))
        wanted = reads.search.narrow(text, JobFilter())
        queries = JobQueries(engine.pool)
        assert {job.job_id for job in queries.find_jobs(wanted).items} == listed, text
        assert queries.count_jobs(wanted) == len(listed), text
    assert found_by(reads, "corr-9", job_types=("other",)) == []


@pytest.mark.breaks_invariants
def test_a_job_is_found_by_a_part_of_a_parameter_or_of_its_error(engine, reads):
    first, second, third = (engine.submit() for _ in range(3))
    write = "update app.jobs set parameters = %s::jsonb where job_id = %s"
    engine.execute(write, '{"folder": "abfs://Scenes/a b", "n": 12}', first)
    engine.execute(write, '{"folder": "other", "n": 7}', second)
    # Random digits: they are not made smaller when they are stored.
    engine.execute(write, json.dumps({"folder": f"scenes/a{os.urandom(15_000).hex()}"}), third)
    error = '{"type": "OSError", "message": "disk FULL"}'
    engine.execute("update app.jobs set error = %s::jsonb where job_id = %s", error, second)
    # Names are not looked through without an equals sign, and a large parameter is not at all.
    assert found_by(reads, "scenes/A") == [first]
    assert found_by(reads, "folder") == []
    assert found_by(reads, "n=12") == [first]
    assert found_by(reads, "oserror disk") == [second]
    assert found_by(reads, "disk", statuses=(JobStatus.COMPLETED,)) == []
    assert found_by(reads, "100%") == found_by(reads, "a_b") == []


def test_a_search_goes_on_where_it_came_to_its_bound(engine, reads, monkeypatch):
    jobs = [engine.submit() for _ in range(5)]
    monkeypatch.setattr(job_search, "MOST_SEARCHED", 2)
    engine.execute('update app.jobs set error = \'{"message": "late"}\'')
    seen, cursor = [], None
    for _ in range(4):
        page = reads.search.find_jobs("late", JobFilter(), limit=3, cursor=cursor)
        seen += [job.job_id for job in page.items]
        assert len(page.items) <= 2
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(jobs)
    with pytest.raises(InvalidCursor):
        reads.search.find_jobs("late", JobFilter(), limit=3, cursor="bm90aGluZw")


@pytest.mark.breaks_invariants
def test_the_pulse_of_a_run_has_the_time_of_the_attempts_that_ended(engine, reads):
    job_id = engine.submit()
    engine.plan(job_id, 1, 3)
    engine.claim(job_id, 1, "s1-00000", "s1-00001", "s1-00002")
    engine.execute(
        "update app.tasks set status = 'completed', finished_at = started_at + interval '4 seconds', lease_id = null,"
        " lease_expires_at = null where job_id = %s and task_id <> 's1-00002'",
        job_id,
    )
    created_at = summaries(engine)[job_id].created_at
    (cell,) = reads.read_pulse(JobRef(job_id, 1), PulseWindow(created_at, created_at + timedelta(seconds=9), 1))
    assert (cell.completed, cell.failed, cell.seconds) == (2, 0, pytest.approx(8.0))


def test_the_latest_events_come_first_in_pages(engine, reads):
    job_id = engine.submit()
    engine.jobs.pause_job(job_id, reason="a", actor=None)
    engine.jobs.resume_job(job_id, reason="b", actor=None)
    first = reads.list_latest_events(job_id, limit=2)
    rest = reads.list_latest_events(job_id, limit=2, cursor=first.next_cursor)
    assert [event.event for event in (*first.items, *rest.items)] == ["job_resumed", "job_paused", "job_submitted"]
    assert rest.next_cursor is None
    with pytest.raises(InvalidCursor):
        reads.list_latest_events(job_id, limit=2, cursor="bm90aGluZw")


def test_open_tasks_of_a_queue_are_counted_with_who_works_on_them(engine, reads):
    job_id = engine.submit()
    engine.plan(job_id, 1, 4)
    engine.tasks.mark_tasks_announced(JobRef(job_id, 1), ["s1-00000", "s1-00001", "s1-00002"])
    engine.claim(job_id, 1, "s1-00000")
    (found,) = reads.read_open_tasks()
    assert (found.queue, found.retrying, found.unannounced, found.owners) == ("q", 0, 1, ("test",))
