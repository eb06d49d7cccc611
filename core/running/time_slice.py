"""When a message of one short task goes on with the next tasks of its stage, which have no message yet."""

from collections.abc import Sequence

from core.models.definition import SLICE_SECONDS
from core.models.transition import NextTask
from core.running.attempts import TaskOutcome
from core.running.engine_parts import EngineParts


class TimeSlice:
    """The time of one message. A task that completes in it takes the next one, if that should end in it as well.

    So tasks that last, and whatever fails or drains, leave the next task to a message of its own.
    """

    def __init__(self, parts: EngineParts) -> None:
        self._owner, self._clock, self._drain = parts.owner, parts.clock, parts.drain
        self._until = self._clock() + SLICE_SECONDS

    def next_after(self, ended: Sequence[TaskOutcome]) -> NextTask | None:
        """What to ask for, together with the end of this task; None: nothing more."""
        if len(ended) != 1 or ended[0].result is None or self._drain.is_draining:
            return None
        if self._clock() + ended[0].duration_seconds > self._until:
            return None
        return NextTask(ended[0].task.task_type, self._owner)
