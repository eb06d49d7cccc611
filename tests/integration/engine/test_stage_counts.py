"""How far a job is: small stages are counted at each look, large ones now and then."""

from contextlib import contextmanager

import pytest

from core.models import JobRef
from infrastructure.stage_counts import FEW_TASKS, FRESH_SECONDS, OLD_SECONDS, TIMES_ITS_COST, StageCounts

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
        self.counted, self.started = [], []
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

    @contextmanager
    def background(self):
        """Everything that is begun inside has ended afterwards."""
        yield
        while self.counts._counting:
            pass


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


def test_later_it_is_counted_in_the_background_and_the_look_does_not_wait(engine, looks, large):
    looks.numbers(large)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += FRESH_SECONDS + 1
    with looks.background():
        assert looks.numbers(large) == {"pending": LARGE}
    assert looks.counted == [1, 1]
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}


def test_a_slow_count_is_used_for_longer(engine, looks, large):
    # At the look, before the count and after it; then at the second look.
    looks.counts._clock = iter([0.0, 0.0, 4.0, 50.0]).__next__
    looks.numbers(large)
    (known,) = looks.counts._known._values.values()
    assert known.until == 4.0 + 4.0 * TIMES_ITS_COST
    looks.numbers(large)
    assert looks.counted == [1]


def test_a_count_that_nobody_looked_at_for_long_is_made_anew_at_once(engine, looks, large):
    looks.numbers(large)
    engine.claim(large, 1, "s1-00000")
    looks.clock.now += OLD_SECONDS + 1
    assert looks.numbers(large) == {"pending": LARGE - 1, "processing": 1}


def test_a_cancelled_stage_is_counted_when_it_stops_and_not_any_more_once_its_last_task_has_ended(engine, looks, large):
    engine.claim(large, 1, "s1-00000")
    looks.numbers(large)
    engine.jobs.cancel_job(large, None)
    assert looks.numbers(large).get("cancelled") == LARGE - 1
    engine.jobs.cancel_job(large, None, grace_seconds=0)
    assert looks.numbers(large) == {"cancelled": LARGE}
    counted = len(looks.counted)
    looks.clock.now += 100 * OLD_SECONDS
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


def test_an_error_in_the_background_is_logged_and_the_next_look_tries_again(engine, looks, large, caplog):
    looks.numbers(large)
    genuine, looks.counts._count = looks.counts._count, _fail
    looks.clock.now += FRESH_SECONDS + 1
    with looks.background():
        assert looks.numbers(large) == {"pending": LARGE}
    assert "stage_not_counted" in caplog.text
    looks.counts._count = genuine
    with looks.background():
        looks.numbers(large)
    assert looks.counted == [1, 1]


def _fail(*_):
    raise RuntimeError("broken")
