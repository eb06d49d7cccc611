"""Announces tasks of stages with limits, as many as these let begin; stages that share a limit have them in turn."""

from collections.abc import Sequence

from core.announcing.announcer import new_cause
from core.basics.joined_calls import CallerEnded, JoinedCalls
from core.errors import StoreUnavailable
from core.models import StageRef
from core.models.announcement import LimitedTask
from core.orchestration_manager import OrchestrationManager, task_message
from core.state_manager import StateManager

# A look serves no more stages of one limit than this, and a process looks no more often in a row.
STAGES_PER_LOOK = 16
LOOKS = 16


class LimitTurns:
    """One per process. Any process may serve any stage at any time: a place is kept for what is announced."""

    def __init__(self, state: StateManager, orchestration: OrchestrationManager) -> None:
        self._state = state
        self._orchestration = orchestration
        # Messages that begin or end at the same time look once.
        self._looks: JoinedCalls[tuple[str, ...] | None, None, int] = JoinedCalls(
            lambda names, asked: [self._serve(names)] * len(asked), names=lambda _: (), most=1, for_all=StoreUnavailable
        )

    def serve(self, names: Sequence[str] | None) -> int:
        """Announce tasks of the stages whose turn it is at these limits, or at all (None); how many.

        What is not served now is by the next process that frees a place, or by the janitor.
        """
        asked = None if names is None else tuple(names)
        try:
            return self._looks.call(asked, None)
        except CallerEnded:
            # The thread that looked for this one, too, was ended by somebody.
            return self._serve(asked)

    def _serve(self, names: tuple[str, ...] | None) -> int:
        count = 0
        passed: set[StageRef] = set()
        for _ in range(LOOKS):
            refs = self._state.find_limit_waiters(names, STAGES_PER_LOOK)
            if passed.issuperset(refs):
                break
            for ref in refs:
                announced = self.serve_stage(ref)
                count += announced
                if announced == 0:
                    passed.add(ref)
        return count

    def serve_stage(self, ref: StageRef) -> int:
        """Announce what the stage's limits let begin, or schedule the next; how many. 0 for one without limits."""
        tasks = self._state.take_limited_tasks(ref)
        if not tasks:
            return 0
        cause = new_cause("turn")
        later = [task for task in tasks if task.wait_seconds > 0]
        first = tasks[0]
        count = self._orchestration.announce_tasks(
            first,
            first.stage,
            first.tasks_per_message,
            [task for task in tasks if task.wait_seconds <= 0],
            on_sent=lambda ids: self._state.mark_tasks_announced(ref.job_ref, ids),
            cause=cause,
            mark_each=1,
        )
        return count + sum(self._schedule(task, cause) for task in later)

    def _schedule(self, task: LimitedTask, cause: str) -> bool:
        attempt = task.attempt + 1
        message = task_message(task, task.stage, [task.task_id], attempt=attempt, cause=cause, takes_next=True)
        is_sent = self._orchestration.announce_retry(message, task.queue, task.wait_seconds)
        if is_sent:
            self._state.mark_tasks_announced(task.stage_ref.job_ref, [task.task_id])
        return is_sent
