"""Announces the next tasks of stages that are announced in windows, as their tasks begin and end."""

import time
from collections.abc import Callable

from core.basics.cache import LatestCache
from core.basics.faults import fault_point
from core.models import StageRef
from core.orchestration_manager import OrchestrationManager
from core.state_manager import StateManager

# A process looks at a stage's window after any of its messages, if it has not for this long. With a marked one it
# always looks: as its tasks begin or, where ends alone make room, after them.
LOOK_SECONDS = 0.5


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

    def after_message(self, ref: StageRef, *, is_due: bool) -> None:
        """Some tasks of a stage that is announced in windows may have ended, and it goes on: fill it.

        Args:
            is_due: Whatever happens; else only if this process has not looked for a while.
        """
        looked_at = self._looked_at.get(ref)
        if is_due or looked_at is None or self._clock() - looked_at >= LOOK_SECONDS:
            self.fill(ref)

    def fill(self, ref: StageRef, cause: str | None = None) -> int:
        """Announce as many of the stage's tasks as its window has room for; how many. 0: it is full, or has no window.

        Those whose message no queue took are the janitor's to announce.
        """
        fault_point("window.due")
        self._looked_at.put(ref, self._clock())
        tasks = self._state.take_next_tasks(ref)
        if not tasks:
            return 0
        fault_point("window.taken")
        first = tasks[0]
        return self._orchestration.announce_tasks(
            first,
            first.stage,
            first.tasks_per_message,
            tasks,
            on_sent=lambda ids: self._state.mark_tasks_announced(ref.job_ref, ids),
            cause=cause,
            mark_each=first.mark_each,
        )
