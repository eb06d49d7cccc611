"""Announces the next tasks of stages that are announced in windows, as their tasks begin and end."""

import math
import time
from collections.abc import Callable, Sequence

from core.announcing.announcer import new_cause
from core.basics.cache import LatestCache
from core.basics.faults import fault_point
from core.basics.joined_calls import CallerEnded, JoinedCalls
from core.basics.threads import LookingThread
from core.errors import StoreUnavailable
from core.models import StageRef
from core.models.definition import MESSAGE_SECONDS, WHOLE_SECONDS
from core.orchestration_manager import OrchestrationManager
from core.state_manager import StateManager

# A process looks at a stage's window after any of its messages, if it has not for this long; else it makes up for it
# that much later. With a marked one it always looks: as its tasks begin or, where ends alone make room, after them.
LOOK_SECONDS = 0.5
# Retries of a stage that are due within the same time of this length share a message, which takes all of them.
RETRY_SECONDS = 0.25
# What is known of a stage's tasks weighs as much as this number of them, when others have ended.
KNOWN_TASKS = 10


class StageWindows:
    """One per process. Any process may take tasks into any window at any time: PostgreSQL counts, and takes no more.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self, state: StateManager, orchestration: OrchestrationManager, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = state
        self._orchestration = orchestration
        self._clock = clock
        self._looked_at: LatestCache[StageRef, float] = LatestCache(256)
        self._mean_seconds: LatestCache[StageRef, float] = LatestCache(256)
        # Stages of which a message ended after the last look: so no message is the last that nobody looks after.
        self._owed: set[StageRef] = set()
        self._looks = LookingThread("windows", LOOK_SECONDS, self.look_now, lambda: bool(self._owed))
        # When messages of retries come, in parts of RETRY_SECONDS.
        self._retries: LatestCache[tuple[StageRef, int], bool] = LatestCache(1024)
        # Messages that begin or end at the same time look once.
        self._fills: JoinedCalls[tuple[StageRef, str | None], None, int] = JoinedCalls(
            lambda key, asked: [self._fill(*key)] * len(asked), names=lambda _: (), most=1, for_all=StoreUnavailable
        )

    def note_times(self, ref: StageRef, tasks: int, mean_seconds: float) -> float:
        """Note how long tasks of a message lasted, each in its slot; what is known now, for the size of the next."""
        known = self._mean_seconds.get(ref)
        weight = 1.0 if known is None else tasks / (tasks + KNOWN_TASKS)
        seconds = mean_seconds * weight + (known or 0.0) * (1.0 - weight)
        self._mean_seconds.put(ref, seconds)
        return seconds

    def seconds_of(self, ref: StageRef, tasks: int) -> float:
        """How long this number of the stage's tasks last one after the other; 0 where nothing is known."""
        return tasks * (self._mean_seconds.get(ref) or 0.0)

    def return_what_lasts(self, ref: StageRef, task_ids: Sequence[str]) -> Sequence[str]:
        """Put those of a message's tasks back into the line for which it has no time, and announce; what is left of it.

        It was sent when nothing was known of how long they last, or something else.
        """
        seconds = self.seconds_of(ref, 1)
        if len(task_ids) * seconds <= WHOLE_SECONDS or len(task_ids) == 1:
            return task_ids
        most = max(1, int(MESSAGE_SECONDS / seconds))
        returned = frozenset(self._state.return_tasks_to_line(ref, task_ids[most:], seconds))
        if not returned:
            return task_ids
        fault_point("tasks.returned")
        self.fill(ref)
        return [task_id for task_id in task_ids if task_id not in returned]

    def share_retry(self, ref: StageRef, delay_seconds: float, base_seconds: float) -> float | None:
        """When the message of a retry is to come, in seconds from now. None: one comes then, and takes this one too.

        Args:
            base_seconds: How long the stage waits at most before a second attempt: messages come no later than that.
        """
        now, part = self._clock(), min(RETRY_SECONDS, base_seconds)
        place = math.ceil((now + delay_seconds) / part)
        if self._retries.get((ref, place)):
            return None
        self._retries.put((ref, place), True)
        return max(delay_seconds, place * part - now)

    def after_message(self, ref: StageRef, *, is_due: bool) -> None:
        """Some tasks of a stage that is announced in windows may have ended, and it goes on: fill it.

        Args:
            is_due: At once; else if this process has not looked for a while, or in another thread when it has not.
        """
        if is_due or self._is_time(ref):
            self.fill(ref)
        else:
            self._owed.add(ref)
        if self._owed:
            self._looks.need()

    def look_now(self) -> None:
        """Fill the windows whose time it is by now. In an outage they are left to the next message, or the janitor."""
        for ref in [each for each in list(self._owed) if self._is_time(each)]:
            try:
                self.fill(ref)
            except StoreUnavailable:
                self._owed.discard(ref)

    def _is_time(self, ref: StageRef) -> bool:
        looked_at = self._looked_at.get(ref)
        return looked_at is None or self._clock() - looked_at >= LOOK_SECONDS

    def fill(self, ref: StageRef, cause: str | None = None) -> int:
        """Announce as many of the stage's tasks as its window has room for; how many. 0: it is full, or has no window.

        Those whose message no queue took are the janitor's to announce.
        """
        try:
            return self._fills.call((ref, cause), None)
        except CallerEnded:
            # The thread that looked for this one, too, was ended by somebody.
            return self._fill(ref, cause)

    def _fill(self, ref: StageRef, cause: str | None) -> int:
        fault_point("window.due")
        self._looked_at.put(ref, self._clock())
        self._owed.discard(ref)
        tasks = self._state.take_next_tasks(ref, self._mean_seconds.get(ref))
        if not tasks:
            return 0
        fault_point("window.taken")
        first = tasks[0]
        if first.is_again:
            cause = cause or new_cause("again")
        return self._orchestration.announce_tasks(
            first,
            first.stage,
            first.tasks_per_message,
            tasks,
            on_sent=lambda ids: self._state.mark_taken_tasks_announced(ref.job_ref, ids),
            cause=cause,
            mark_each=first.mark_each,
        )
