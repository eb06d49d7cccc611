"""Fires timers: one task per function, in the one worker that the supervisor appointed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from azure.functions.meta import Datum

from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import IndexedFunction, TimerTrigger
from coremachine.local.host.invoker import Call
from coremachine.local.host.retry import NOT_RETRIED, Retrying
from coremachine.local.host.self_check import self_check
from coremachine.local.host.tracing import child_trace_parent

log = logging.getLogger(__name__)

# The host keeps no status of timers that fire more often than once a minute.
_SHORTEST_MONITORED = timedelta(minutes=1)
# Sleeping in pieces notices a clock that was set, or a machine that was suspended.
_LONGEST_SLEEP_SECONDS = 30.0
# After this number of failures in a row, another worker may fire the timers: this one may be what is broken.
_MOST_FAILURES = 3
# The same at fewer that take this long together: each may wait for a pool of connections that is broken here.
_LONGEST_FAILING = timedelta(seconds=15)
# The pause before a timer whose own task ended with an error is started again, unless another worker leads by then.
_RESTART_SECONDS = 5.0


@dataclass(frozen=True)
class TimerStatus:
    """When a timer fired last and is to fire next."""

    last: datetime | None
    next: datetime

    def to_json(self) -> dict[str, str]:
        last = self.last or datetime.min.replace(tzinfo=UTC)
        return {
            "Last": last.isoformat(),
            "Next": self.next.isoformat(),
            "LastUpdated": last.isoformat(),
        }


class TimerStatusStore:
    """A small JSON file per function, so that a worker that takes over knows what was missed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, function_name: str) -> TimerStatus | None:
        path = self._directory / f"{function_name}.json"
        if not path.exists():
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        return TimerStatus(last=datetime.fromisoformat(document["Last"]), next=datetime.fromisoformat(document["Next"]))

    def write(self, function_name: str, status: TimerStatus) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{function_name}.json"
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(status.to_json()), encoding="utf-8")
        scratch.replace(path)


def timer_datum(*, past_due: bool, status: TimerStatus | None) -> Datum:
    """What the host sends to a timer function."""
    document: dict[str, Any] = {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": status.to_json() if status else None,
        "IsPastDue": past_due,
    }
    return Datum(json.dumps(document), "json")


def timer_call(
    function: IndexedFunction,
    *,
    past_due: bool = False,
    status: TimerStatus | None = None,
    retrying: Retrying = NOT_RETRIED,
) -> Call:
    """An invocation of a timer function."""
    return Call(
        function=function,
        data=timer_datum(past_due=past_due, status=status),
        metadata={},
        trace_parent=child_trace_parent(""),
        retrying=retrying,
    )


class TimerRunner:
    """Runs one timer. It never overlaps itself: the next time is computed when the function is done.

    Args:
        on_failing: Called each time that its function has failed for too long or too often in a row, or that its own
            task stopped.
    """

    def __init__(
        self,
        function: IndexedFunction,
        trigger: TimerTrigger,
        dispatcher: Dispatcher,
        store: TimerStatusStore,
        zone: tzinfo,
        *,
        on_failing: Callable[[], object] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.tells_failure = on_failing
        self._failures = 0
        self._failed_for = timedelta()
        self._function = function
        self._trigger = trigger
        self._dispatcher = dispatcher
        self._store = store
        self._zone = zone
        self._now = now

    async def run(self, *, is_host_start: bool) -> None:
        """Fire until cancelled. `run_on_startup` counts when the host starts, not when a worker takes over."""
        last: datetime | None = None
        previous = self._read_status() if self._is_monitored() else None
        missed = previous is not None and previous.next <= self._now()
        if missed or (is_host_start and self._trigger.run_on_startup):
            last = self._now()
            await self._fire(past_due=missed, status=previous)
        following = self._next()
        while True:
            status = TimerStatus(last=last, next=following)
            if self._is_monitored():
                self._write_status(status)
            await self._sleep_until(following)
            last = self._now()
            await self._fire(past_due=False, status=status)
            following = self._next()

    def _read_status(self) -> TimerStatus | None:
        try:
            return self._store.read(self._function.name)
        except (OSError, ValueError, KeyError) as error:
            text = "timer_status_unknown function=%s error=%r: what it missed does not fire"
            log.warning(text, self._function.name, error)
            return None

    def _write_status(self, status: TimerStatus) -> None:
        try:
            self._store.write(self._function.name, status)
        except OSError as error:  # a full disk, which must not end the timer
            text = "timer_status_not_written function=%s error=%r: free space, else a restart may miss a time of it"
            log.warning(text, self._function.name, error)

    def _next(self) -> datetime:
        return self._trigger.schedule.next_after(self._now(), self._zone)

    def _is_monitored(self) -> bool:
        if not self._trigger.use_monitor:
            return False
        first = self._next()
        return self._trigger.schedule.next_after(first, self._zone) - first >= _SHORTEST_MONITORED

    async def _fire(self, *, past_due: bool, status: TimerStatus | None) -> None:
        """Run the function, again by its retry policy. The dispatcher logs failures; the schedule goes on."""
        policy = self._function.retry
        limit = 0 if policy is None else policy.max_retry_count
        retry = 0
        while True:
            begun = self._now()
            call = timer_call(self._function, past_due=past_due, status=status, retrying=Retrying(retry, limit or 0))
            outcome = self._dispatcher.submit(call, "timer" if retry == 0 else f"retry {retry} of a timer")
            await asyncio.gather(asyncio.wrap_future(outcome), return_exceptions=True)
            self._count(outcome.exception(), begun)
            if policy is None or outcome.exception() is None or (limit is not None and retry >= limit):
                return
            retry += 1
            await asyncio.sleep(policy.delay(retry))

    def _count(self, error: BaseException | None, begun: datetime) -> None:
        if error is None:
            self._failures, self._failed_for = 0, timedelta()
            return
        self._failures += 1
        self._failed_for += self._now() - begun
        if self._failures == _MOST_FAILURES or self._failed_for >= _LONGEST_FAILING:
            self._failures, self._failed_for = 0, timedelta()
            self.tells_failure()

    async def _sleep_until(self, moment: datetime) -> None:
        while (left := (moment - self._now()).total_seconds()) > 0:  # noqa: ASYNC110 - it is the clock that is waited for
            await asyncio.sleep(min(left, _LONGEST_SLEEP_SECONDS))


class TimerGroup:
    """All timers of an app, started when this worker becomes the leader."""

    def __init__(self, runners: list[tuple[str, TimerRunner]]) -> None:
        self._runners = runners
        self._tasks: set[asyncio.Task[None]] = set()

    def lead(self, *, is_host_start: bool) -> None:
        if self._tasks:
            return
        for name, runner in self._runners:
            keeping = _keep_running(name, runner, is_host_start=is_host_start)
            self._tasks.add(asyncio.create_task(keeping, name=f"timer-{name}"))
        if self._runners:
            log.info("timers_started functions=%s", ",".join(name for name, _ in self._runners))

    def leave(self) -> None:
        """Another worker leads: this one was silent for too long, or its timers fail."""
        if self._tasks:
            log.info("timers_left")
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def stop(self) -> None:
        """Fire no more; invocations in flight are the dispatcher's to wait for."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _keep_running(name: str, runner: TimerRunner, *, is_host_start: bool) -> None:
    """Until cancelled. Each time that the timer stops, another worker may take over; else it starts again here."""
    while True:
        try:
            await runner.run(is_host_start=is_host_start)
        except Exception as error:
            log.exception("timer_stopped function=%s: another worker fires it, or this one again soon", name)
            self_check.failed(f"timer {name}", error)
        try:
            runner.tells_failure()
        except Exception:
            log.exception(
                "timer_not_passed_on function=%s: a function may have changed modules that the host needs", name
            )
        is_host_start = False
        await asyncio.sleep(_RESTART_SECONDS)
