"""When a message of one short task goes on with the next tasks of its stage, which have no message yet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.basics.cache import LatestCache
from core.models import StageRef
from core.models.definition import SLICE_SECONDS
from core.models.transition import NextTask
from core.running.attempts import TaskOutcome
from core.running.engine_parts import EngineParts

# A stage is young in a process until this many of its tasks have come there, or have run for this long together.
YOUNG_TASKS = 200
YOUNG_SECONDS = 2.0
# A young stage counts as present for this long after its last message came.
PRESENT_SECONDS = 0.15
# More than these are not kept.
MOST_SEEN = 100


@dataclass(slots=True)
class _Had:
    """What a stage had of a process. Threads that meet may lose a little of it."""

    tasks: int = 0
    seconds: float = 0.0


class YoungStages:
    """The stages for which a process has done little yet, and which had a message there a moment ago. One per process.

    While one is present, messages of older stages do not go on: a small job does not wait for the time of many messages
    of a large one, and its own go ahead where they wait for a slot. Each of the others runs its own task, so that a
    large job goes on whatever else comes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._had: LatestCache[StageRef, _Had] = LatestCache(256)
        self._seen_at: dict[StageRef, float] = {}

    def note(self, ref: StageRef, tasks: int) -> bool:
        """A message of this number of tasks came, or it goes on with as many; whether its stage was young then."""
        had = self._had.get(ref)
        if had is None:
            had = _Had()
            self._had.put(ref, had)
        is_young = had.tasks < YOUNG_TASKS and had.seconds < YOUNG_SECONDS
        had.tasks += tasks
        if len(self._seen_at) > MOST_SEEN:
            self._forget_old()
        if is_young:
            self._seen_at[ref] = self._clock()
            return True
        self._seen_at.pop(ref, None)
        return False

    def note_seconds(self, ref: StageRef, seconds: float) -> None:
        """Its tasks had slots for this long: few tasks that last are no small job."""
        had = self._had.get(ref)
        if had is not None:
            had.seconds += seconds

    def note_much(self, ref: StageRef) -> None:
        """One message of it has more work than a small job: it is young no more, although its first tasks still run."""
        self._had.put(ref, _Had(YOUNG_TASKS))
        self._seen_at.pop(ref, None)

    def forget(self, ref: StageRef) -> None:
        """The stage has ended."""
        self._seen_at.pop(ref, None)

    def may_go_on(self, ref: StageRef) -> bool:
        """Whether a message of the stage may claim another task."""
        had = self._had.get(ref)
        if had is None or (had.tasks < YOUNG_TASKS and had.seconds < YOUNG_SECONDS):
            return True
        self._forget_old()
        return not self._seen_at.keys() - {ref}

    def _forget_old(self) -> None:
        since = self._clock() - PRESENT_SECONDS
        for ref, seen_at in list(self._seen_at.items()):
            if seen_at < since:
                self._seen_at.pop(ref, None)


class TimeSlice:
    """The time of one message. A task that completes in it claims the next one, if that should end in it as well.

    So tasks that last, and whatever fails or drains, leave the next task to a message of its own.
    """

    def __init__(self, parts: EngineParts, ref: StageRef, young: YoungStages) -> None:
        self._owner, self._clock, self._drain = parts.owner, parts.clock, parts.drain
        self._ref, self._young = ref, young
        self._until = self._clock() + SLICE_SECONDS

    def next_after(self, ended: Sequence[TaskOutcome]) -> NextTask | None:
        """What to ask for, together with the end of this task; None: nothing more."""
        if len(ended) != 1 or ended[0].result is None or self._drain.is_draining:
            return None
        if self._clock() + ended[0].duration_seconds > self._until or not self._young.may_go_on(self._ref):
            return None
        self._young.note(self._ref, 1)
        return NextTask(ended[0].task.task_type, self._owner)
