"""What the engine of one process works with; made once, where its parts are put together."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.operating.unknown_work import DEFAULT_PATIENCE_SECONDS
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, ResultStore
from core.running.drain import Drain
from core.running.leases import LeaseKeeper
from core.running.patience import PATIENCE_SECONDS, Patience
from core.running.task_slots import DEFAULT_SLOTS, TaskSlots
from core.state_manager import StateManager


@dataclass(frozen=True)
class EngineParts:
    """The parts of a `CoreMachine`.

    Args:
        owner: The process's name in leases.
        slots: How many tasks run at once in this process.
        clock: Seconds, monotonic.
        unknown_work_patience_seconds: How long work that this release does not know is postponed before it fails.
        patience_seconds: How long an outcome waits for a database that is away.
    """

    catalog: JobCatalog
    state: StateManager
    orchestration: OrchestrationManager
    results: ResultStore
    keeper: LeaseKeeper
    owner: str
    slots: TaskSlots = field(default_factory=lambda: TaskSlots(DEFAULT_SLOTS))
    clock: Callable[[], float] = time.monotonic
    unknown_work_patience_seconds: float = DEFAULT_PATIENCE_SECONDS
    drain: Drain = field(default_factory=Drain)
    patience_seconds: float = PATIENCE_SECONDS

    @property
    def patience(self) -> Patience:
        return Patience(self.patience_seconds, self.drain.wait)

    def may_run_inline(self, until: float) -> bool:
        """Whether this process may still take the next step itself, instead of leaving it to a message."""
        return self.clock() < until and not self.drain.is_draining
