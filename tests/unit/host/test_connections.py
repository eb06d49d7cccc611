"""How many connections a listener keeps, and which one makes room."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from coremachine.local.connections import ConnectionBook, connection_limit
from coremachine.local.descriptors import raise_descriptor_limit


class Fake:
    def __init__(self) -> None:
        self.ticks = 0
        self.evicted = False
        self.third_tick = asyncio.Event()

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 3:
            self.third_tick.set()

    def evict(self) -> None:
        self.evicted = True


def in_loop(story: Callable[[], None]) -> None:
    async def run() -> None:
        story()

    asyncio.run(run())


@pytest.mark.parametrize(("descriptors", "limit"), [(0, 32), (256, 32), (1024, 768), (20_000, 4096), (10**9, 4096)])
def test_limit_follows_the_descriptors(descriptors, limit):
    assert connection_limit(descriptors) == limit


def test_the_longest_silent_one_makes_room_and_the_log_says_it_once(caplog):
    def story() -> None:
        book = ConnectionBook("http", 3)
        first, second, third, fourth, fifth = (Fake() for _ in range(5))
        for connection in (first, second, third):
            assert book.admit(connection)
        book.works(first)
        book.works(second)
        book.waits(second)  # its answer is sent: it waits again, but not as long as the third
        assert book.admit(fourth)
        assert (first.evicted, second.evicted, third.evicted) == (False, False, True)
        book.lost(third)
        assert book.admit(fifth)
        assert second.evicted

    with caplog.at_level(logging.WARNING):
        in_loop(story)
    assert [record.getMessage() for record in caplog.records] == [
        "connections_full listener=http open=4 limit=3: closing those that were silent longest"
    ]


def test_newcomer_is_refused_when_all_are_at_work_and_leaves_its_place():
    def story() -> None:
        book = ConnectionBook("http", 1)
        worker, newcomer, next_one = Fake(), Fake(), Fake()
        assert book.admit(worker)
        book.works(worker)
        assert not book.admit(newcomer)
        assert not worker.evicted
        book.lost(newcomer)
        book.lost(worker)
        assert book.admit(next_one)

    in_loop(story)


def test_waiting_ones_are_asked_at_each_tick():
    async def story() -> None:
        book = ConnectionBook("http", 2, tick_seconds=0)
        waiting, working = Fake(), Fake()
        book.admit(waiting)
        book.admit(working)
        book.works(working)
        await waiting.third_tick.wait()
        assert working.ticks == 0
        book.lost(waiting)
        book.lost(working)

    asyncio.run(story())


def test_exhausted_descriptors_are_said_once(caplog, monkeypatch):
    monkeypatch.setattr("coremachine.local.connections.has_free_descriptor", lambda: False)

    async def story() -> None:
        book = ConnectionBook("http", 2, tick_seconds=0)
        waiting = Fake()
        book.admit(waiting)
        await waiting.third_tick.wait()
        book.lost(waiting)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert len(caplog.records) == 1
    assert "ulimit -n" in caplog.records[0].getMessage()


def test_descriptor_limit_is_raised_within_the_hard_one_and_never_lowered():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 512), before[1]))
        assert raise_descriptor_limit() == min(65_536, before[1])
        assert raise_descriptor_limit() == min(65_536, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
