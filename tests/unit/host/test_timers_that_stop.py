"""A timer whose own task ends is passed on and started again: no sweep of any worker came any more."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coremachine.local.host import timer
from coremachine.local.host.timer import TimerGroup, TimerRunner, TimerStatus, TimerStatusStore


class StoppingRunner:
    """Ends with an error at the first times that it runs."""

    def __init__(self, ends: int, on_failing: Callable[[], object]) -> None:
        self.begun: list[bool] = []
        self.tells_failure = on_failing
        self._ends = ends
        self.runs = asyncio.Event()

    async def run(self, *, is_host_start: bool) -> None:
        self.begun.append(is_host_start)
        if len(self.begun) <= self._ends:
            raise TypeError("'NoneType' object is not callable")
        self.runs.set()
        await asyncio.Event().wait()


def broken() -> None:
    raise TypeError("json.dumps is None")


@pytest.mark.parametrize("tell", [lambda: None, broken])
def test_a_timer_that_stops_is_passed_on_and_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tell: Callable[[], object]
) -> None:
    monkeypatch.setattr(timer, "_RESTART_SECONDS", 0.0)
    told: list[None] = []

    def on_failing() -> None:
        told.append(None)
        tell()

    async def stop_twice() -> StoppingRunner:
        runner = StoppingRunner(2, on_failing)
        group = TimerGroup([("sweep", cast("TimerRunner", runner))])
        group.lead(is_host_start=True)
        await asyncio.wait_for(runner.runs.wait(), 10)
        await group.stop()
        return runner

    runner = asyncio.run(stop_twice())
    assert runner.begun == [True, False, False]
    assert len(told) == 2
    assert caplog.text.count("timer_stopped function=sweep") == 2


def test_a_timer_that_stopped_and_was_passed_on_is_not_started_again_beside_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timer, "_RESTART_SECONDS", 0.01)

    async def leave() -> list[bool]:
        runners: list[tuple[str, TimerRunner]] = []
        group = TimerGroup(runners)
        runner = StoppingRunner(1, group.leave)
        runners.append(("sweep", cast("TimerRunner", runner)))
        group.lead(is_host_start=True)
        await asyncio.sleep(0.1)
        left = list(runner.begun)
        group.lead(is_host_start=False)
        await asyncio.wait_for(runner.runs.wait(), 10)
        await group.stop()
        return left

    assert asyncio.run(leave()) == [True]


class FullDisk(TimerStatusStore):
    def read(self, function_name: str) -> TimerStatus | None:
        raise ValueError("no JSON")

    def write(self, function_name: str, status: TimerStatus) -> None:
        raise OSError(28, "No space left on device")


def test_a_timer_fires_although_its_status_can_neither_be_read_nor_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it missed may fire twice then, or not at all; without this it never fired again."""
    fired: list[bool] = []

    class Runner(TimerRunner):
        async def _fire(self, *, past_due: bool, status: TimerStatus | None) -> None:
            fired.append(past_due)

        async def _sleep_until(self, moment: datetime) -> None:
            if len(fired) == 2:
                await asyncio.Event().wait()

    schedule = SimpleNamespace(next_after=lambda moment, _zone: moment + timedelta(minutes=5))
    trigger = SimpleNamespace(use_monitor=True, run_on_startup=False, schedule=schedule)

    async def fire_twice(store: TimerStatusStore) -> None:
        function = cast("Any", SimpleNamespace(name="sweep", retry=None))
        runner = Runner(function, cast("Any", trigger), cast("Any", None), store, UTC)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.run(is_host_start=True), 0.1)

    with caplog.at_level(logging.WARNING):
        asyncio.run(fire_twice(FullDisk(cast("Any", None))))
    assert fired == [False, False]
    assert "timer_status_unknown function=sweep" in caplog.text
    assert "timer_status_not_written function=sweep" in caplog.text
