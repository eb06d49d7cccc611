"""Runs the claimed tasks of one message side by side, and gives their outcomes in groups."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from core.basics.threads import ThreadReserve
from core.isolation.function import process_pool
from core.models.definition import SLICE_SECONDS, WHOLE_SECONDS
from core.models.transition import ClaimedRow
from core.running.attempts import Attempts, TaskOutcome
from core.running.task_slots import Place, Slot, TaskSlots
from core.safety.safe_log import safe_logger

if TYPE_CHECKING:
    from core.isolation.pool import ProcessPool

log = safe_logger(__name__)

# Results wait this long for company before they are written together.
GATHER_SECONDS = 0.02
# Another thread joins whenever the tasks of a message last this long without an end in sight.
GROW_SECONDS = 0.002
# How often a message whose tasks wait looks for a spare slot.
SPARE_SECONDS = 0.02
# A message whose tasks wait longer is split: what has not begun goes to a process with slots for it.
SPLIT_SECONDS = 2.0
# How often a task that waits for a slot or a process looks whether it is still to run.
ROOM_SECONDS = 0.5

_reserve = ThreadReserve("tasks")


# The line for the processes of a pool, as that for slots: first come, first served, and young stages ahead.
_rooms: "WeakKeyDictionary[ProcessPool, TaskSlots]" = WeakKeyDictionary()


class TaskBatch:
    """Runs the attempts of one message: one thread for each slot that the message has.

    A message takes further slots that are spare. After a time slice, as long as another one waits for its first, it
    keeps but one, and that one goes around. For one that is ahead of it, it does so after each task.

    Args:
        attempts: Entered by the caller.
        slots: The slots of this process.
        slot: One that the caller took, which this releases. None: the message waits for its first one here.
        begin: Called when the first task has a slot, and has begun.
        is_ahead: In line for a slot it goes before those that are not.
    """

    def __init__(
        self,
        attempts: Attempts,
        slots: TaskSlots,
        slot: Slot | None = None,
        begin: Callable[[], object] | None = None,
        *,
        is_ahead: bool = False,
    ) -> None:
        self._attempts = attempts
        self._is_ahead = is_ahead
        self._slots, self._slot, self._begin = slots, slot, begin
        self._unwritten = len(attempts.tasks)
        self._most_threads = min(slots.count, len(attempts.tasks))
        self._lock = threading.Lock()
        self._threads = 0
        self._began = time.monotonic()
        # When each thread began its present task; and of those that have ended, how many and how long they took.
        self._since: dict[int, float] = {}
        self._ended, self._seconds = 0, 0.0
        self._room = self._room_in(process_pool()) if attempts.has_process else None
        stage = attempts.stage
        # An attempt's time runs from its claim, so that tasks which wait for a thread are released in good time.
        self._patience_seconds = min(stage.lease_seconds, stage.task_timeout_seconds or stage.lease_seconds)

    def outcomes(self) -> Iterator[list[TaskOutcome]]:
        """Groups of outcomes as they come, until every task has one or was taken back by `give_up_waiting`.

        After `Attempts.abandon` nothing more comes but what had ended before.

        A group is empty when nothing came for a while: time to ask `is_to_be_split`.
        """
        if self._slot is None:
            with self._line_up() as place:
                while self._slot is None:
                    if not self._attempts.are_waiting:
                        return
                    self._slot = place.wait(min(ROOM_SECONDS, self._patience_seconds / 4))
                    if self._slot is None:
                        yield []
        self._start_thread(self._slot.hand_over())
        if self._begin is not None:
            self._begin()
        while self._unwritten > 0 and not self._attempts.is_abandoned:
            group = self._gather(self._grow())
            self._unwritten -= len(group)
            yield group
            self._attempts.drop([outcome.task for outcome in group])  # written by now

    def _grow(self) -> float:
        """One thread more, if tasks wait and a slot is spare; how many seconds until that should be asked again."""
        if not self._attempts.are_waiting:
            return self._patience_seconds / 4
        if self._threads >= self._most_threads:
            return min(SLICE_SECONDS, self._patience_seconds) / 2
        slot = self._slots.take_spare()
        if slot is None:
            return SPARE_SECONDS
        self._start_thread(slot)
        return GROW_SECONDS

    def _start_thread(self, slot: Slot) -> None:
        """Where the system gives no thread, those that run do it all, or this one."""
        with self._lock:
            self._threads += 1
            is_first = self._threads == 1
        try:
            _reserve.start(partial(self._work, slot))
        except RuntimeError:
            log.warning("thread_not_started", extra={"checkpoint": "THREADS", "started": self._threads - 1})
            self._most_threads = 1
            if is_first:
                self._work(slot)
                return
            with self._lock:
                self._threads -= 1
            self._slots.release(slot)

    @property
    def is_to_be_split(self) -> bool:
        """Whether tasks wait that would last too long: others may have slots, their lease runs, small jobs wait.

        So after a time slice one that turns out to have much work left, and any in the end.
        """
        seconds = time.monotonic() - self._began
        if not self._attempts.waiting_count or seconds < SLICE_SECONDS:
            return False
        return seconds > min(SPLIT_SECONDS, self._patience_seconds / 2) or self.seconds_left > WHOLE_SECONDS

    @property
    def count(self) -> int:
        """How many tasks the message has."""
        return len(self._attempts.tasks)

    @property
    def has_begun(self) -> bool:
        """Whether it has had a slot."""
        return bool(self._ended or self._since)

    @property
    def seconds_left(self) -> float:
        """How long the tasks last that wait, one after the other, by those that have begun."""
        return self._attempts.waiting_count * self.mean_seconds

    @property
    def mean_seconds(self) -> float:
        """How long a task lasts that has begun, as far as can be known by now."""
        now = time.monotonic()
        running = [now - since for since in list(self._since.values())]
        return (self._seconds + sum(running)) / max(self._ended + len(running), 1)

    def give_up_waiting(self) -> list[ClaimedRow]:
        """Take the tasks back that have not begun; the caller releases them."""
        taken = self._attempts.take_back()
        self._unwritten -= len(taken)
        return taken

    def _gather(self, timeout_seconds: float) -> list[TaskOutcome]:
        """What has ended: waits for the first, then a moment for others. Empty when none came in time."""
        group: list[TaskOutcome] = []
        deadline = time.monotonic() + timeout_seconds
        while len(group) < self._unwritten:
            try:
                outcome = self._attempts.ended.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if outcome is None:
                break
            if not group:
                deadline = time.monotonic() + GATHER_SECONDS
            self._ended += 1
            self._seconds += outcome.duration_seconds
            group.append(outcome)
        return group

    def _work(self, slot: Slot | None) -> None:
        try:
            if slot is not None and self._room is not None:
                self._slots.release(slot)
                self._work_in(self._room)
                return
            since = time.monotonic()
            while slot is not None and (outcome := self._run_next()):
                self._attempts.ended.put(outcome)
                if self._slots.is_awaited and self._slots.is_wanted(
                    is_ahead=self._is_ahead, is_over=time.monotonic() - since >= SLICE_SECONDS
                ):
                    slot = self._step_aside(slot)
                    since = time.monotonic()
        finally:
            if slot is not None:
                self._slots.release(slot)

    def _run_next(self) -> TaskOutcome | None:
        thread = threading.get_ident()
        self._since[thread] = time.monotonic()
        try:
            return self._attempts.run_next()
        finally:
            del self._since[thread]

    def _step_aside(self, slot: Slot) -> Slot | None:
        """Let another message have the slot; the message's last thread waits for another one, behind those in line."""
        self._slots.release(slot)
        with self._lock:
            if self._threads > 1:
                self._threads -= 1
                return None
        return self._take_in_turn(self._slots)

    @staticmethod
    def _room_in(pool: "ProcessPool") -> TaskSlots:
        room = _rooms.get(pool)
        return _rooms.setdefault(pool, TaskSlots(pool.most)) if room is None else room

    def _line_up(self) -> Place:
        return self._slots.line_up(is_ahead=self._is_ahead)

    def _take_in_turn(self, slots: TaskSlots) -> Slot | None:
        """One of these slots, however long that takes; None: no task waits any more."""
        with slots.line_up(is_ahead=self._is_ahead) as place:
            while self._attempts.are_waiting:
                if slot := place.wait(ROOM_SECONDS):
                    return slot
        return None

    def _work_in(self, room: TaskSlots) -> None:
        """Without room for a task's process it has not begun: it takes no slot, and can be released."""
        while place := self._take_in_turn(room):
            try:
                if slot := self._take_in_turn(self._slots):
                    self._run_in_slot(slot)
            finally:
                room.release(place)

    def _run_in_slot(self, slot: Slot) -> None:
        try:
            if outcome := self._run_next():
                self._attempts.ended.put(outcome)
        finally:
            self._slots.release(slot)
