"""The real engine of one process, over the tests' database and queues in memory."""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

from core.basics.faults import FAULT_POINTS, NthHit, armed
from core.machine import CoreMachine
from core.operating.janitor import Janitor
from core.orchestration_manager import AppRole, OrchestrationManager
from core.ports import JobCatalog
from core.running.engine_parts import EngineParts
from core.running.leases import LeaseKeeper
from core.running.task_slots import TaskSlots
from core.state_manager import StateManager
from coremachine.local.memory_queue import MemoryQueues
from coremachine.testing.database import EngineDatabase
from infrastructure.janitor_store import JanitorRepository
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.results import ResultRepository

T = TypeVar("T")

SLOTS = 4
_numbers = itertools.count(1)


class Crashed(BaseException):
    """The process is gone; nothing in it may catch this."""


class UnreachedCrash(AssertionError):
    """The test asked for a crash that never came."""

    def __init__(self, points: Sequence[str]) -> None:
        super().__init__(
            f"crash_at: expected the process to die at {', '.join(points)}, found that it did not get there; "
            "choose a point that this job reaches, or inline=False for those between messages"
        )


class EngineProcess:
    """A machine and a janitor. Another one takes its place when it dies.

    Args:
        served: The queues whose tasks it may run without a message.
    """

    def __init__(
        self,
        catalog: JobCatalog,
        database: EngineDatabase,
        queues: MemoryQueues,
        *,
        task_queues: Sequence[str],
        served: Sequence[str],
    ) -> None:
        pool = database.pool
        state = StateManager(JobRepository(pool), TaskRepository(pool), StageCompletionRepository(pool))
        orchestration = OrchestrationManager(catalog, queues, AppRole("test", served_queues=frozenset(served)))
        self.machine = CoreMachine(
            EngineParts(
                catalog=catalog,
                state=state,
                orchestration=orchestration,
                results=ResultRepository(pool),
                keeper=LeaseKeeper(TaskRepository(pool)),
                owner=f"test-process-{next(_numbers)}",
                slots=TaskSlots(SLOTS),
            )
        )
        self.janitor = Janitor(
            JanitorRepository(pool), state, orchestration, queues=list(task_queues), inspector=queues
        )


class Crashes:
    """The places at which processes die.

    Args:
        points: Names of fault points, or name:nth to let one pass nth - 1 times.

    Raises:
        ValueError: There is no such point.
    """

    def __init__(self, points: Sequence[str]) -> None:
        self._hits = [(point, _hit(point)) for point in points]
        self._left = list(points)

    def survive(self, call: Callable[[], T], restart: Callable[[], None]) -> T | None:
        """What the call returns; None if the process dies of it, and another one has started then."""
        try:
            with armed(self._reach):
                return call()
        except Crashed:
            restart()
            return None

    def expect_none_left(self) -> None:
        """Raise `UnreachedCrash` if a process was to die and did not."""
        if self._left:
            raise UnreachedCrash(self._left)

    def _reach(self, reached: str) -> None:
        dead = [point for point, is_hit in self._hits if is_hit(reached)]  # each of them counts
        if dead:
            self._left = [point for point in self._left if point not in dead]
            raise Crashed(reached)


def _hit(point: str) -> NthHit:
    name, _, nth = point.partition(":")
    if name not in FAULT_POINTS or not (nth or "1").isdecimal() or int(nth or 1) < 1:
        expected = f"one of {', '.join(FAULT_POINTS)}, with :<which time> if it is not the first"
        raise ValueError(f"crash_at: expected {expected}, found {point!r}")
    return NthHit(name, int(nth or 1))
