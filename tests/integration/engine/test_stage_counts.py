"""How far a job is: small stages are counted at each look, large ones now and then."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from core.models import JobRef
from infrastructure.stage_counts import FEW_TASKS, FRESH_SECONDS, TIMES_ITS_COST, WATCHED_SECONDS, StageCounts

LARGE = FEW_TASKS + 1


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Looks:
    """Looks at a job's stages, by one process's counts, and the statements that count a large one."""

    def __init__(self, engine):
        self.engine, self.clock = engine, Clock()
        self.counts = StageCounts(engine.pool, clock=self.clock)
        self.counted, self.threads = [], 0
        self.counts._start = self._start
        genuine = self.counts._count

        def count(cursor, ref, statuses):
            self.counted.append(ref.stage)
            return genuine(cursor, ref, statuses)

        self.counts._count = count

    def look(self, job_id):
        with self.engine.pool.connection() as connection, connection.cursor() as cursor:
            return self.counts.read_stages(cursor, JobRef(job_id, 1), self.engine.job_status(job_id))

    def numbers(self, job_id, stage=1):
        detail = self.look(job_id)[stage - 1]
        return {status.value: count for status, count in detail.counts.items() if count}

    def _start(self):
        self.threads += 1

    def in_background(self):
        """One round of the thread."""
        return self.counts._count_due()


@pytest.fixture
def looks(engine):
    return Looks(engine)


@pytest.fixture
def large(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, LARGE)
    return job_id


def test_tasks_of_a_small_stage_are_those_of_now(engine, looks):
    job_id = engine.submit()
    engine.plan(job_id, 1, FEW_TASKS)
    assert looks.numbers(job_id) == {"pending": FEW_TASKS}
    engine.claim(job_id, 1, "s1-00000")
    assert looks.numbers(job_id) == {"pending": FEW_TASKS - 1, "processing": 1}
    assert looks.look(job_id)[0].counted_at is None
    assert looks.counted == []


def test_a_large_stage_is_counted_once_while_the_count_is_fresh(engine, looks, large):
    assert looks.numbers(large) == {"pending": LARGE}
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS / 2
    assert looks.numbers(large) == {"pending": LARGE}
    assert looks.counted == [1]
    counted_at = looks.look(large)[0].counted_at
    (now,) = engine.query("select now() as now")
    assert 0 <= (now["now"] - counted_at).total_seconds() < 60


def test_while_somebody_looks_it_is_counted_in_the_background_and_no_look_waits(engine, looks, large):
    looks.numbers(large)
    assert looks.threads == 0, "one look begins nothing"
    looks.clock.now += FRESH_SECONDS / 2
    looks.numbers(large)
    assert looks.threads == 1
    assert looks.in_background() == pytest.approx(FRESH_SECONDS / 2)
    assert looks.counted == [1]
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS
    assert looks.numbers(large) == {"pending": LARGE}
    assert looks.counted == [1], "the look did not count"
    assert looks.in_background() == FRESH_SECONDS
    assert looks.counted == [1, 1]
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}


def test_a_look_now_and_then_gets_no_count_of_the_look_before(engine, looks, large):
    """A page that is asked for every few seconds, by two processes in turns, showed counts of 8 seconds ago."""
    looks.numbers(large)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS * 4
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}
    assert looks.threads == 1
    engine.claim(large, 1, "s1-00001")
    for _ in range(4):
        looks.clock.now += FRESH_SECONDS
        looks.in_background()
    assert looks.numbers(large) == {"pending": LARGE - 2, "processing": 2}


def test_a_look_counts_where_the_background_is_late(engine, looks, large):
    looks.numbers(large)
    looks.numbers(large)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS * 1.5
    assert looks.numbers(large) == {"pending": LARGE}
    looks.clock.now += FRESH_SECONDS
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}


def test_the_background_ends_when_nobody_looks_any_more(engine, looks, large):
    looks.numbers(large)
    looks.numbers(large)
    looks.clock.now += WATCHED_SECONDS
    assert looks.in_background() is not None
    looks.clock.now += 1
    assert looks.in_background() is None
    counted = len(looks.counted)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}
    assert len(looks.counted) == counted + 1
    looks.numbers(large)
    assert looks.threads == 2


def test_the_later_of_two_counts_stays(engine, looks, large):
    """A look and the thread count at the same time; the one that began first may end last."""
    looks.numbers(large)
    (ref,) = looks.counts._known._values
    first = looks.counts._known.get(ref)
    later = replace(first, counted_at=first.counted_at + timedelta(minutes=1))
    looks.counts._known.put(ref, later)
    with engine.pool.connection() as connection, connection.cursor() as cursor:
        assert looks.counts._count(cursor, ref, first.statuses) is later
    assert looks.counts._known.get(ref) is later


def test_the_thread_counts_and_ends(engine, large):
    counts = StageCounts(engine.pool)
    rounds = []

    def count_due():
        rounds.append(StageCounts._count_due(counts))
        counts._looked_at.put(*counts._known._values, -1e9)
        return rounds[-1]

    counts._count_due = count_due
    for _ in range(2):
        with engine.pool.connection() as connection, connection.cursor() as cursor:
            counts.read_stages(cursor, JobRef(large, 1), engine.job_status(large))
    (thread,) = [each for each in threading.enumerate() if each.name == "stage-counts"]
    thread.join(30)
    assert not thread.is_alive()
    assert rounds[-1] is None
    assert not counts._is_counting


def test_where_the_system_gives_no_thread_looks_count(engine, looks, large, caplog):
    def start():
        raise RuntimeError("can't start new thread")

    looks.counts._start = start
    for number in range(1, 4):
        looks.numbers(large)
        assert len(looks.counted) == number
        looks.clock.now += FRESH_SECONDS + 1
    assert "stage_not_counted" in caplog.text


def test_a_slow_count_is_used_for_longer(engine, looks, large):
    # At the look, before the count and after it; then at the second look.
    looks.counts._clock = iter([0.0, 0.0, 4.0, 30.0]).__next__
    looks.numbers(large)
    (known,) = looks.counts._known._values.values()
    assert known.until == 4.0 + 4.0 * TIMES_ITS_COST
    looks.numbers(large)
    assert looks.counted == [1]


def test_a_count_that_nobody_looked_at_for_long_is_made_anew_at_once(engine, looks, large):
    looks.numbers(large)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += WATCHED_SECONDS + 1
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}


def test_a_cancelled_stage_is_counted_when_it_stops_and_not_any_more_once_its_last_task_has_ended(engine, looks, large):
    engine.claim(large, 1, "s1-00000")
    looks.numbers(large)
    engine.jobs.cancel_job(large, None)
    assert looks.numbers(large).get("cancelled") == LARGE - 1
    engine.jobs.cancel_job(large, None, grace_seconds=0)
    assert looks.numbers(large) == {"cancelled": LARGE}
    counted = len(looks.counted)
    looks.clock.now += 100 * WATCHED_SECONDS
    assert looks.numbers(large) == {"cancelled": LARGE}
    assert len(looks.counted) == counted, "nothing of it changes any more"


def test_a_completed_stage_is_not_counted(engine, looks, large):
    ids = [f"s1-{index:05d}" for index in range(LARGE)]
    lease = engine.claim(large, 1, *ids)
    engine.stages.complete_task_and_check_stage(
        JobRef(large, 1).at_stage(1), lease_id=lease, results={task_id: {} for task_id in ids}
    )
    detail = looks.look(large)[0]
    assert (detail.counts["completed"], detail.counted_at) == (LARGE, None)
    assert looks.counted == []


def test_an_error_in_the_background_is_logged_and_the_next_look_counts(engine, looks, large, caplog):
    looks.numbers(large)
    looks.numbers(large)
    genuine, looks.counts._count = looks.counts._count, _fail
    looks.clock.now += FRESH_SECONDS + 1
    assert looks.in_background() is None
    assert "stage_not_counted" in caplog.text
    looks.counts._count = genuine
    looks.numbers(large)
    assert looks.counted == [1, 1]


def _fail(*_):
    raise RuntimeError("broken")
