"""Runs jobs in this process, on the real engine, to their end."""

import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.models.status import TaskStatus
from core.models.submission import SubmitRequest
from coremachine.testing.clock import Clock
from coremachine.testing.database import EngineDatabase, session_database
from coremachine.testing.engine import Crashes, EngineProcess
from coremachine.testing.queues import FaultyQueues, MessageFaults
from coremachine.testing.results import JobResult, read_result
from infrastructure.queries import JobQueries
from jobs.base import JobBase
from jobs.registry import Handler, Registry

SWEEP_SECONDS = 30.0
# Each sweep comes later than the one before by this factor: what is due in weeks, such as a time limit, comes too.
SWEEP_GROWTH = 1.1
LONGEST_SWEEP_SECONDS = 86_400.0
# Far more than any job needs: each sweep repairs all that it finds, and one repair may uncover the next.
MOST_SWEEPS = 100
_NO_FAULTS = MessageFaults()
_turn = threading.Lock()
_finished: list[JobResult] = []


class JobStuck(AssertionError):
    """The job has not ended, and nothing would end it."""


class JobRunner:
    """An engine for one test, with an empty database. Its clock is turned whenever nothing is due.

    Args:
        database: That of this process by default.
        registry: The app's own; else it is made of the jobs that are run and the handlers of their modules.
        handlers: These replace those of the same task types.
        queues: Logical names of the task queues.
        inline: Whether small stages run without messages, as they do in an app. Message faults make it False.
        faults: What the broker does to messages.
    """

    def __init__(
        self,
        database: EngineDatabase | None = None,
        *,
        registry: Registry | None = None,
        handlers: Iterable[Handler] = (),
        queues: Sequence[str] = ("tasks",),
        inline: bool | None = None,
        faults: MessageFaults = _NO_FAULTS,
    ) -> None:
        self.database = database or session_database()
        self.database.empty()
        self.clock = Clock(self.database.turn_clock)
        self.queues = FaultyQueues(self.clock, faults)
        self._task_queues = tuple(queues)
        self._served = () if inline is False or (inline is None and faults.is_any) else self._task_queues
        self._registry = registry
        self._jobs: list[type[JobBase]] = []
        self._handlers = list(handlers)
        self._process: EngineProcess | None = None

    def run(
        self,
        job: type[JobBase] | str,
        parameters: Mapping[str, Any] | None = None,
        *,
        crash_at: str | Sequence[str] = (),
        timeout_seconds: float = 60.0,
    ) -> JobResult:
        """Submit a job and run it to its end.

        Args:
            job: A job class, or the job type of one that the runner knows.
            crash_at: Fault points (`core.basics.faults.FAULT_POINTS`) at which the process dies and another follows;
                `name:2` is the second time.
            timeout_seconds: Of real time; time that the engine waits for costs none.

        Raises:
            ParameterErrors: The job refuses its parameters.
            JobStuck: Nothing would end it, or it takes too long.
            UnreachedCrash: A point of `crash_at` was not reached.
        """
        crashes = Crashes([crash_at] if isinstance(crash_at, str) else crash_at)
        request = SubmitRequest(job if isinstance(job, str) else self._add(job), dict(parameters or {}))
        job_id = None
        while job_id is None:  # as a client that asks again when its request was cut off
            job_id = crashes.survive(lambda: self.process.machine.submit_job(request).job_id, self._restart)
        self._run_to_end(job_id, crashes, timeout_seconds)
        crashes.expect_none_left()
        return note_finished(read_result(self.database.pool, job_id))

    @property
    def process(self) -> EngineProcess:
        """The engine as it runs now: `process.machine` can cancel, pause and rerun, `process.janitor` can sweep."""
        if self._process is None:
            self._restart()
        assert self._process is not None  # noqa: S101 - made just now
        return self._process

    def result(self, job_id: str) -> JobResult:
        """A job as it is now."""
        return read_result(self.database.pool, job_id)

    def _add(self, job: type[JobBase]) -> str:
        if self._registry is None and job not in self._jobs:
            self._jobs.append(job)
            self._process = None
        return job.job_type

    def _restart(self) -> None:
        registry = self._registry or Registry(
            self._jobs, self._found_handlers(), self._task_queues, instead=self._handlers
        )
        self._process = EngineProcess(
            registry, self.database, self.queues, task_queues=self._task_queues, served=self._served
        )

    def _found_handlers(self) -> list[Handler]:
        """`HANDLERS` of the jobs' modules; those that are marked there, the registry finds."""
        modules = dict.fromkeys(sys.modules[job.__module__] for job in self._jobs)
        return [handler for module in modules for handler in getattr(module, "HANDLERS", ())]

    def _run_to_end(self, job_id: str, crashes: Crashes, timeout_seconds: float) -> None:
        until = time.monotonic() + timeout_seconds
        queries = JobQueries(self.database.pool)
        seconds = SWEEP_SECONDS
        for _ in range(MOST_SWEEPS):
            if not self._deliver_all(crashes, until):
                raise JobStuck(self._too_slow(job_id, timeout_seconds))
            status = queries.find_job_status(job_id)
            if status is not None and status.is_terminal:
                return
            self.clock.advance(seconds)
            seconds = min(seconds * SWEEP_GROWTH, LONGEST_SWEEP_SECONDS)
            crashes.survive(self.process.janitor.sweep, self._restart)
        result = self.result(job_id)
        raise JobStuck(f"expected the job to end, found it {result.status} after {MOST_SWEEPS} sweeps\n{result.report}")

    def _too_slow(self, job_id: str, timeout_seconds: float) -> str:
        """How far it came, and what to do."""
        result = self.result(job_id)
        ended = sum(TaskStatus.stored(task.status).is_terminal for task in result.tasks)
        more = max(2 * timeout_seconds, 60)
        return (
            f"expected the job to end within timeout_seconds={timeout_seconds:g}, found it {result.status} with "
            f"{ended:,} of the {len(result.tasks):,} tasks ended that are planned; give the test fewer tasks, or more "
            f"time: run_job(..., timeout_seconds={more:g})"
        )

    def _deliver_all(self, crashes: Crashes, until: float) -> bool:
        """Deliver until there is no message, and the clock goes to the next that is due; whether time sufficed."""
        while (seconds := self.queues.seconds_to_next()) is not None:
            if time.monotonic() > until:
                return False
            if seconds > 0:
                self.clock.advance(seconds)
            crashes.survive(lambda: self.queues.deliver(self.process.machine), self._restart)
        return True


def run_job(
    job: type[JobBase] | str,
    parameters: Mapping[str, Any] | None = None,
    *,
    registry: Registry | None = None,
    handlers: Iterable[Handler] = (),
    queues: Sequence[str] = ("tasks",),
    faults: MessageFaults = _NO_FAULTS,
    crash_at: str | Sequence[str] = (),
    inline: bool | None = None,
    timeout_seconds: float = 60.0,
) -> JobResult:
    """Run one job to its end, in this process, in an empty database. The arguments are those of `JobRunner`."""
    with _turn:
        runner = JobRunner(registry=registry, handlers=handlers, queues=queues, faults=faults, inline=inline)
        return runner.run(job, parameters, crash_at=crash_at, timeout_seconds=timeout_seconds)


def note_finished(result: JobResult) -> JobResult:
    """Keep a result for the report of a test that fails."""
    _finished.append(result)
    return result


def take_finished() -> list[JobResult]:
    """The jobs that ended since the last call, for the report of a test that failed."""
    taken = list(_finished)
    _finished.clear()
    return taken
