"""What a process remembers of jobs, and for how long it takes their status for true."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from core.models import JobRef, JobStatus
from core.running import job_cache
from core.running.job_cache import FRESH_SECONDS, JobCache


class Rows:
    """The jobs table: notes each statement, and holds the first one while `gate` is closed."""

    def __init__(self):
        self.status = {}
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()

    def find_job(self, job_id):
        self.asked.append([job_id])
        assert self.gate.wait(20)
        return self._row(job_id)

    def find_jobs(self, job_ids):
        self.asked.append(sorted(job_ids))
        return [row for row in map(self._row, reversed(job_ids)) if row is not None]

    def _row(self, job_id):
        if job_id not in self.status:
            return None
        return SimpleNamespace(job_id=job_id, ref=JobRef(job_id, 1), definition={}, status=self.status[job_id])


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(rows, clock, monkeypatch):
    monkeypatch.setattr(job_cache, "read_definition", lambda definition: definition)
    return JobCache(rows, clock)


def test_jobs_that_are_looked_for_at_the_same_time_share_a_call(cache, rows):
    """1,800 messages of small cancelled jobs took ten seconds, each with calls of its own."""
    rows.status = {f"j{number}": JobStatus.CANCELLED for number in range(6)}
    rows.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.find, JobRef("j0", 1))
        while not rows.asked:
            pass
        others = [pool.submit(cache.find, JobRef(f"j{number}", 1)) for number in range(1, 8)]
        while cache._looks.waiting(None) < len(others):
            pass
        rows.gate.set()
        found = [each.result(20) for each in (first, *others)]
    assert rows.asked == [["j0"], [f"j{number}" for number in range(1, 8)]]
    assert [one and one.record.job_id for one in found] == [f"j{number}" for number in range(6)] + [None, None]


def test_status_is_read_again_when_it_is_old_and_an_end_is_not(cache, rows, clock):
    rows.status = {"j": JobStatus.PROCESSING}
    assert cache.find(JobRef("j", 1)).record.status is JobStatus.PROCESSING
    rows.status = {"j": JobStatus.CANCELLED}
    clock.now = FRESH_SECONDS - 0.1
    assert cache.find(JobRef("j", 1)).record.status is JobStatus.PROCESSING
    clock.now = FRESH_SECONDS
    assert cache.find(JobRef("j", 1)).record.status is JobStatus.CANCELLED
    clock.now = 100 * FRESH_SECONDS
    assert cache.find(JobRef("j", 1)).record.status is JobStatus.CANCELLED
    assert rows.asked == [["j"], ["j"]]


def test_job_in_another_run_is_not_found(cache, rows):
    rows.status = {"j": JobStatus.PROCESSING}
    assert cache.find(JobRef("j", 2)) is None
    assert cache.find(JobRef("k", 1)) is None
