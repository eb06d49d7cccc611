"""One look for all who wait."""

import asyncio
import threading
from collections.abc import Collection

import pytest

from triggers.waiting import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Watcher, pause_for

PATIENCE_SECONDS = 20.0


class Jobs:
    """Says what has ended, and remembers which jobs each look was for."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.looks: list[set[str]] = []
        self.failure: Exception | None = None

    def find_ended(self, job_ids: Collection[str]) -> set[str]:
        self.looks.append(set(job_ids))
        if self.failure is not None:
            raise self.failure
        return self.ended & set(job_ids)


class HeldJobs(Jobs):
    """Each look says that it has begun, and goes on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def find_ended(self, job_ids: Collection[str]) -> set[str]:
        answer = super().find_ended(job_ids)  # what the database says when the look begins
        self.begun.release()
        assert self.may_go_on.acquire(timeout=PATIENCE_SECONDS)
        return answer


@pytest.mark.parametrize(
    ("age", "pause"),
    [
        (0.0, FIRST_PAUSE_SECONDS),
        (0.01, 0.005),
        (0.1, 0.023),
        (1.0, LONGEST_PAUSE_SECONDS),
        (-1.0, FIRST_PAUSE_SECONDS),
    ],
)
def test_end_is_told_late_by_a_part_of_the_time_waited(age, pause):
    assert pause_for(age) == pytest.approx(pause)


def test_two_hundred_who_wait_cost_one_look_at_a_time():
    jobs = Jobs()
    ids = {f"job-{number}" for number in range(200)}

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        waiting = [asyncio.create_task(watcher.wait(job_id, PATIENCE_SECONDS)) for job_id in ids]
        while not (jobs.looks and jobs.looks[-1] == ids):  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        jobs.ended = ids
        looks = len(jobs.looks)
        await asyncio.gather(*waiting)
        assert len(jobs.looks) <= looks + 2
        assert watcher.count == 0

    asyncio.run(scenario())


def test_nobody_looks_when_nobody_waits():
    jobs = Jobs()
    jobs.ended = {"a"}

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        assert watcher._looking is None
        for _ in range(2):
            await watcher.wait("a", PATIENCE_SECONDS)
            while watcher._looking is not None:  # noqa: ASYNC110 - the task's last step
                await asyncio.sleep(0)
        assert jobs.looks == [{"a"}, {"a"}]

    asyncio.run(scenario())


def test_one_who_comes_during_a_look_is_in_the_next():
    """What ended after the look had begun must not be missed: it is asked for again."""
    jobs = HeldJobs()

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        first = asyncio.create_task(watcher.wait("a", PATIENCE_SECONDS))
        await asyncio.to_thread(jobs.begun.acquire)
        second = asyncio.create_task(watcher.wait("b", PATIENCE_SECONDS))
        await asyncio.sleep(0)
        assert watcher.count == 2
        jobs.ended = {"a", "b"}
        jobs.may_go_on.release()
        await asyncio.to_thread(jobs.begun.acquire)
        assert jobs.looks == [{"a"}, {"a", "b"}]
        jobs.may_go_on.release()
        await asyncio.gather(first, second)

    asyncio.run(scenario())


def test_failed_look_is_told_to_all_who_waited_for_it_and_to_nobody_later():
    jobs = Jobs()
    jobs.failure = ConnectionError("no database")

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        answers = await asyncio.gather(
            *(watcher.wait(job_id, PATIENCE_SECONDS) for job_id in "ab"), return_exceptions=True
        )
        assert answers == [jobs.failure, jobs.failure]
        jobs.failure, jobs.ended = None, {"a"}
        await watcher.wait("a", PATIENCE_SECONDS)

    asyncio.run(scenario())


def test_time_that_is_over_ends_the_wait_and_the_looking():
    jobs = Jobs()

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        await watcher.wait("a", 0.02)
        assert watcher.count == 0
        while watcher._looking is not None:  # noqa: ASYNC110 - the task's last step
            await asyncio.sleep(0)

    asyncio.run(scenario())


def test_request_that_is_given_up_is_looked_for_no_more():
    jobs = Jobs()

    async def scenario() -> None:
        watcher = Watcher(jobs.find_ended)
        given_up = asyncio.create_task(watcher.wait("a", PATIENCE_SECONDS))
        staying = asyncio.create_task(watcher.wait("b", PATIENCE_SECONDS))
        while {"a", "b"} not in jobs.looks:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        jobs.looks.clear()
        while {"b"} not in jobs.looks:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        jobs.ended = {"b"}
        await staying
        assert jobs.looks[-1] == {"b"}

    asyncio.run(scenario())


def test_loop_that_ends_leaves_nothing_for_the_next_one():
    jobs = Jobs()
    watcher = Watcher(jobs.find_ended)

    async def leave() -> None:
        task = asyncio.create_task(watcher.wait("a", PATIENCE_SECONDS))
        while not jobs.looks:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(leave())
    assert watcher.count == 0
    assert watcher._looking is None
    jobs.ended = {"a"}
    asyncio.run(watcher.wait("a", PATIENCE_SECONDS))
