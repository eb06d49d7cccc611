"""Queues in this process's memory: the engine alone, for tests, benchmarks and trying a job without any stack."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from core.app_queues import JOBS_QUEUE
from core.machine import CoreMachine
from core.models import QueueMessage
from core.models.message import read_job_message, read_task_message


@dataclass(order=True)
class _Entry:
    due: float
    number: int
    queue: str = field(compare=False)
    body: bytes = field(compare=False)


class MemoryQueues:
    """A `MessageSender` whose messages wait here, as JSON, until `deliver` hands them to a machine.

    Args:
        clock: Seconds, monotonic.
        now: The same clock's time of day.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._clock = clock
        self._now = now
        self._entries: list[_Entry] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._in_hand: dict[int, _Entry] = {}

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        self._put(queue, messages, self._clock())

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        self._put(queue, [message], self._clock() + delay_seconds)

    def oldest_enqueued_at(self, queue: str) -> datetime | None:
        """A `core.ports.QueueInspector`; messages that are being handled count too."""
        with self._changed:
            now = self._clock()
            waiting = [entry for entry in self._entries if entry.due <= now]
            dues = [entry.due for entry in (*waiting, *self._in_hand.values()) if entry.queue == queue]
            return self._now() - timedelta(seconds=max(0.0, now - min(dues))) if dues else None

    def seconds_to_next(self) -> float | None:
        """How long until a message is due: 0 if one is, None if there is none."""
        with self._changed:
            return max(0.0, self._entries[0].due - self._clock()) if self._entries else None

    def clear(self) -> int:
        """Lose everything, as a broker does that restarts without its store; returns how many messages there were."""
        with self._changed:
            count = len(self._entries)
            self._entries.clear()
            return count

    def deliver(self, machine: CoreMachine, *, skip_delays: bool = False) -> bool:
        """Hand the next due message to the machine; False when none is due.

        Args:
            skip_delays: Scheduled messages count as due.
        """

        def process(queue: str, body: bytes) -> None:
            if queue == JOBS_QUEUE:
                machine.process_job_message(read_job_message(queue, body))
            else:
                machine.process_task_message(read_task_message(queue, body), queue=queue)

        return self.deliver_to(process, skip_delays=skip_delays)

    def deliver_to(self, process: Callable[[str, bytes], None], *, skip_delays: bool = False) -> bool:
        """Hand the next due message (queue, body) to a function; what raises goes back to the queue."""
        entry = self._take(skip_delays=skip_delays)
        if entry is None:
            return False
        try:
            process(entry.queue, entry.body)
        except BaseException:
            with self._changed:
                heapq.heappush(self._entries, entry)  # abandoned: it is there again at once
            raise
        finally:
            with self._changed:
                del self._in_hand[entry.number]
                self._changed.notify_all()
        return True

    def run(self, machine: CoreMachine, *, threads: int = 1, timeout_seconds: float = 60.0) -> None:
        """Deliver from this number of threads until no message waits or is being handled.

        Raises:
            TimeoutError: Something still waits.
        """
        deadline = self._clock() + timeout_seconds
        errors: list[BaseException] = []

        def work() -> None:
            try:
                while not errors and self._wait_for_work(deadline):
                    self.deliver(machine)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                errors.append(error)

        pumps = [threading.Thread(target=work, name=f"pump-{number}", daemon=True) for number in range(threads)]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        if errors:
            raise errors[0]

    def _wait_for_work(self, deadline: float) -> bool:
        with self._changed:
            while True:
                if not self._entries and not self._in_hand:
                    return False
                now = self._clock()
                if self._entries and self._entries[0].due <= now:
                    return True
                if now >= deadline:
                    raise TimeoutError(f"{len(self._entries)} messages wait, {len(self._in_hand)} are being handled")
                until = min(deadline, self._entries[0].due) if self._entries else deadline
                self._changed.wait(until - now)

    def _put(self, queue: str, messages: Sequence[QueueMessage], due: float) -> None:
        with self._changed:
            for message in messages:
                body = message.model_dump_json().encode()
                heapq.heappush(self._entries, _Entry(due, next(self._numbers), queue, body))
            self._changed.notify_all()

    def _take(self, *, skip_delays: bool) -> _Entry | None:
        with self._changed:
            if not self._entries or (not skip_delays and self._entries[0].due > self._clock()):
                return None
            entry = heapq.heappop(self._entries)
            self._in_hand[entry.number] = entry
            return entry
