"""The step that a job waits for, and what is known of it: values of the planner, the advancer and inline stages."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from core.basics.cache import LatestCache
from core.basics.strict_json import EncodedJson
from core.models import JobRecord, StageDefinition
from core.models.announcement import UnannouncedTask
from core.models.context import CompletedTask, StageSummary
from core.models.transition import ClaimedRow, PlannedTask, PlanOutcome, SmallStage

# A stage of at most this many tasks is planned in one round trip.
FEW_TASKS = 100
# A step that took less may run before its stage's results are written: a crash repeats at most this much more work.
QUICK_SECONDS = 0.05


@dataclass
class Plan:
    """What came of planning: `planned`, or why not.

    Args:
        waiting: Tasks that need a message.
        claimed: The stage's tasks, all born under `lease_id`, for this process to run at once; `rows` as planned.
        is_windowed: The stage has tasks, which wait to be taken into its window.
    """

    outcome: PlanOutcome = PlanOutcome.PLANNED
    waiting: list[UnannouncedTask] = field(default_factory=list)
    claimed: list[ClaimedRow] = field(default_factory=list)
    rows: Sequence[PlannedTask] = ()
    lease_id: UUID | None = None
    tasks_per_message: int = 1
    is_windowed: bool = False


@dataclass(frozen=True)
class Draft:
    """A stage's tasks as its author makes them; nothing is written. `rest` is empty if they are few."""

    job: JobRecord
    stage: StageDefinition
    first: list[PlannedTask]
    rest: Iterator[PlannedTask]


@dataclass
class NextStep:
    """A step that a job waits for, planning or finalizing, and what this process already has for it: added as it comes.

    Args:
        job: `queued` with the stage to plan, or `finalizing`.
        results: All tasks of the stage before, none of them failed, as the database would return them. None: read them.
        summaries: How the stages before ended; empty: read them.
        draft: The tasks of the stage to plan; `small` as they will be written, if they are few.
        plan: The stage is planned already.
        summary: What the author's finalizer returned.
        error: What the author's planner or finalizer raised; raised again where it would have been.
    """

    job: JobRecord
    results: Sequence[CompletedTask] | None = None
    summaries: tuple[StageSummary, ...] = ()
    draft: Draft | None = None
    small: SmallStage | None = None
    plan: Plan | None = None
    summary: EncodedJson | None = None
    error: Exception | None = None


class StepTimes:
    """How long authors' planners and finalizers took the last time: whether results may wait for them.

    A step is a job type and the stage that is planned; the finalizer's is one after the last.
    """

    def __init__(self) -> None:
        self._seconds: LatestCache[tuple[str, int], float] = LatestCache(256)

    def is_quick(self, job_type: str, stage: int) -> bool:
        """False for a step that was never measured."""
        seconds = self._seconds.get((job_type, stage))
        return seconds is not None and seconds < QUICK_SECONDS

    @contextmanager
    def measured(self, job_type: str, stage: int) -> Iterator[None]:
        """Note how long the code inside takes, whether it raises or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds.put((job_type, stage), time.monotonic() - began)
