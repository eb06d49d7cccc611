"""Old jobs go; running ones, and young ones, stay (lesson D38)."""

import pytest

from core.models import JobRef, StageRef
from infrastructure import retention as retention_module
from infrastructure.retention import REST, REST_AFTER_SMALL, TASKS_PER_CALL, RetentionRepository

DAY = 86_400


@pytest.fixture
def retention(engine):
    return RetentionRepository(engine.pool)


def ended_job(engine, *, days_ago, tasks=3):
    job_id = engine.submit()
    engine.plan(job_id, 1, tasks)
    engine.jobs.fail_job(JobRef(job_id, 1), {"type": "X", "message": "x"})
    engine.execute(
        "update app.jobs set finished_at = now() - %s * interval '1 day' where job_id = %s", days_ago, job_id
    )
    return job_id


def job_ids(engine):
    return {row["job_id"] for row in engine.query("select job_id from app.jobs")}


@pytest.mark.breaks_invariants
def test_only_jobs_that_ended_long_ago_go_with_all_their_rows(engine, retention):
    """Cleaning up deleted completed tasks of living jobs (lesson D38)."""
    old, young, running = ended_job(engine, days_ago=31), ended_job(engine, days_ago=1), engine.submit()
    engine.plan(running, 1, 3)
    lease = engine.claim(running, 1, "s1-00000", "s1-00001")
    engine.stages.complete_task_and_check_stage(
        StageRef(running, 1, 1), lease_id=lease, results={"s1-00000": {}, "s1-00001": {}}
    )
    kept = engine.query("select task_id, result from app.tasks where job_id = %s order by task_id", running)
    engine.execute("update app.jobs set created_at = now() - interval '1 year', updated_at = created_at")
    engine.execute(
        "update app.tasks set created_at = now() - interval '1 year', finished_at = now() - interval '1 year' "
        "where finished_at is not null"
    )

    pruned = retention.prune_jobs(30 * DAY)
    assert (pruned.jobs, pruned.tasks) == (1, 3)
    assert job_ids(engine) == {young, running}
    assert engine.query("select task_id, result from app.tasks where job_id = %s order by task_id", running) == kept
    assert engine.query("select 1 from app.stages where job_id = %s", old) == []
    assert engine.query("select 1 from app.tasks where job_id = %s", old) == []
    assert engine.query("select 1 from app.job_events where job_id = %s", old) == []


def test_large_job_goes_in_pieces_and_a_bounded_call_goes_on_where_the_last_one_stopped(engine, retention):
    ended_job(engine, days_ago=31, tasks=TASKS_PER_CALL * 2 + 10)

    seen = []
    first = retention.prune_jobs(
        30 * DAY, most_tasks=TASKS_PER_CALL, on_progress=lambda pruned: seen.append(pruned.tasks)
    )
    assert (first.jobs, first.tasks, seen) == (0, TASKS_PER_CALL, [TASKS_PER_CALL])
    rest = retention.prune_jobs(30 * DAY)
    assert (rest.jobs, rest.tasks) == (1, TASKS_PER_CALL + 10)


@pytest.mark.breaks_invariants
def test_small_jobs_go_together_and_a_large_one_among_them_alone(engine, retention, monkeypatch):
    """A call for each job made 155 to 269 jobs per second, however small they were."""
    monkeypatch.setattr("infrastructure.retention.TASKS_PER_CALL", 10)
    for tasks in (1, 11, 4, 4, 4):
        ended_job(engine, days_ago=31, tasks=tasks)
    young = ended_job(engine, days_ago=1)
    seen = []
    retention.prune_jobs(30 * DAY, on_progress=lambda pruned: seen.append((pruned.jobs, pruned.tasks)))
    # 1 + 4 + 4, then the last small one, then the large one in two pieces.
    assert seen == [(3, 9), (4, 13), (4, 23), (5, 24)]
    assert job_ids(engine) == {young}


@pytest.mark.breaks_invariants
def test_job_that_was_started_again_meanwhile_stays_whole(engine, retention):
    job_id = ended_job(engine, days_ago=31)
    engine.execute("update app.jobs set run = 2, status = 'queued', finished_at = null")
    (found,) = engine.query("select * from app.prune_small_jobs(%s, 100)", [job_id])
    assert found == {"pruned_tasks": 0, "pruned_job_ids": []}
    assert len(engine.query("select 1 from app.tasks")) == 3


def test_job_in_other_hands_is_left_for_the_next_time(engine, retention):
    job_id = ended_job(engine, days_ago=31)
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute("select 1 from app.jobs where job_id = %s for update", (job_id,))
        assert retention.prune_jobs(30 * DAY).jobs == 0
    assert retention.prune_jobs(30 * DAY).jobs == 1


def add_dead_letter(engine, job_id, *, days_ago):
    engine.execute(
        "insert into app.dead_letters (job_id, queue, message_id, sequence_number, enqueued_at, kind, task_id,"
        " task_ids, fingerprint, delivery_count, body, body_size, received_at)"
        " values (%s, 'tasks', gen_random_uuid()::text, 1, now(), 'unreadable', '', '{}', 'f', 10, '', 0,"
        " now() - %s * interval '1 day')",
        job_id,
        days_ago,
    )


@pytest.mark.breaks_invariants
def test_dead_letters_go_after_their_job(engine, retention):
    old, young = ended_job(engine, days_ago=31), ended_job(engine, days_ago=1)
    for job_id in (old, young, "nobody's"):
        add_dead_letter(engine, job_id, days_ago=31)
    add_dead_letter(engine, "nobody's", days_ago=1)

    assert retention.prune_dead_letters(30 * DAY) == 1
    retention.prune_jobs(30 * DAY)
    assert retention.prune_dead_letters(30 * DAY) == 1
    left = engine.query("select job_id from app.dead_letters order by job_id")
    assert [row["job_id"] for row in left] == sorted([young, "nobody's"])


def test_dead_letters_that_are_young_are_not_read(engine, retention):
    """A sweep every half minute would read them all, with their bodies."""
    engine.execute(
        "insert into app.dead_letters (job_id, queue, message_id, sequence_number, enqueued_at, kind, task_id,"
        " task_ids, fingerprint, delivery_count, body, body_size) select 'nobody''s', 'tasks', g::text, g,"
        " now(), 'unreadable', '', '{}', 'f', 10, '', 0 from generate_series(1, 20000) g"
    )
    engine.execute("analyze app.dead_letters")
    with engine.pool.connection() as connection, connection.transaction():
        read = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = %s"
        (before,) = connection.execute(read, ["dead_letters"]).fetchone().values()
        connection.execute("select app.prune_dead_letters(%s, 2000)", [DAY])
        (after,) = connection.execute(read, ["dead_letters"]).fetchone().values()
    assert after - before <= 10


def test_dead_letters_go_in_pieces(engine, retention, monkeypatch):
    monkeypatch.setattr("infrastructure.retention.DEAD_LETTERS_PER_CALL", 2)
    for _ in range(5):
        add_dead_letter(engine, "nobody's", days_ago=31)
    assert [retention.prune_dead_letters(DAY, most=3), retention.prune_dead_letters(DAY)] == [4, 1]


def test_each_piece_is_followed_by_a_rest_of_several_times_its_length(engine, retention, monkeypatch):
    """Pruning a million rows in one go made the jobs beside it half as slow again."""
    ended_job(engine, days_ago=31, tasks=TASKS_PER_CALL + 10)
    seconds, rests = iter(range(0, 1000, 2)), []

    class Clock:
        monotonic = staticmethod(lambda: float(next(seconds)))
        sleep = staticmethod(rests.append)

    monkeypatch.setattr(retention_module, "time", Clock)
    retention.prune_jobs(30 * DAY)
    assert rests == [2.0 * REST] * 2


def test_a_piece_of_small_jobs_is_followed_by_a_rest_as_long_as_it(engine, retention, monkeypatch):
    for _ in range(3):
        ended_job(engine, days_ago=31, tasks=1)
    seconds, rests = iter(range(0, 1000, 2)), []

    class Clock:
        monotonic = staticmethod(lambda: float(next(seconds)))
        sleep = staticmethod(rests.append)

    monkeypatch.setattr(retention_module, "time", Clock)
    assert retention.prune_jobs(30 * DAY).jobs == 3
    assert rests == [2.0 * REST_AFTER_SMALL]


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("kind", ["foreign key", "trigger that raises", "trigger that leaves out"])
@pytest.mark.parametrize("tasks", [3, TASKS_PER_CALL + 1], ids=["small", "large"])
def test_job_that_the_database_keeps_keeps_no_other(engine, retention, caplog, kind, tasks):
    """None was deleted any more; with a trigger that left the row out, the sweep deleted it again without end."""
    kept = ended_job(engine, days_ago=40, tasks=tasks)
    others = [ended_job(engine, days_ago=35 - n) for n in range(3)]
    if kind == "foreign key":
        engine.execute("create table public.mine (job_id text references app.jobs)")
        engine.execute("insert into public.mine values (%s)", kept)
    else:
        body = "return null" if "out" in kind else "raise exception 'not that one'"
        engine.execute(f"create function public.act() returns trigger language plpgsql as $$ begin {body}; end $$")
        engine.execute(
            f"create trigger theirs before delete on app.jobs for each row when (old.job_id = '{kept}') "
            "execute function public.act()"
        )
    assert retention.prune_jobs(30 * DAY).jobs == 3
    assert job_ids(engine) == {kept}
    assert not {kept} & set(others)
    [record] = [record for record in caplog.records if record.message == "job_not_pruned"]
    assert record.job_id == kept
    if kind == "foreign key":
        engine.execute("drop table public.mine")
