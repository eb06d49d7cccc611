"""CoreMachine's engine alone: the real machine and repositories; messages go through memory instead of a broker."""

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg

from bench.jobs import build_registry
from bench.processes import Workers
from bench.workload import POLL_SECONDS, WrongOutcome, check_fan
from core.app_queues import JOBS_QUEUE
from core.machine import CoreMachine
from core.models import QueueMessage, TaskQueueMessage
from core.models.message import JOBS_QUEUE_MESSAGE
from core.models.submission import SubmitRequest
from core.orchestration_manager import AppRole, OrchestrationManager
from core.ports import MessageSender
from core.running.engine_parts import EngineParts
from core.running.leases import LeaseKeeper
from core.state_manager import StateManager
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.migrations import Migrator
from infrastructure.postgresql import Pool, create_pool
from infrastructure.results import ResultRepository

THREADS = 2
_ENDED = ("completed", "completed_with_errors", "failed", "cancelled")

Body = tuple[str, bytes]


def make_machine(pool: Pool, sender: MessageSender) -> CoreMachine:
    """Wired as `infrastructure.factory` does it, but for the sender."""
    registry = build_registry(["tasks"])
    state = StateManager(JobRepository(pool), TaskRepository(pool), StageCompletionRepository(pool))
    role = AppRole(app_name="bench", served_queues=frozenset({"tasks"}))
    return CoreMachine(
        EngineParts(
            catalog=registry,
            state=state,
            orchestration=OrchestrationManager(registry, sender, role),
            results=ResultRepository(pool),
            keeper=LeaseKeeper(TaskRepository(pool)),
            owner=f"bench:{uuid4().hex[:8]}",
        )
    )


class EnginePeer:
    """What both have in common: submissions, and looking at what came out."""

    def versions(self) -> dict[str, str]:
        return {"coremachine": version("coremachine")}

    def prepare(self, database_url: str) -> None:
        with psycopg.connect(database_url) as connection:
            Migrator(connection).migrate()
        self._pool = create_pool(database_url)
        self._jobs = JobRepository(self._pool)
        self._machine = make_machine(self._pool, self._start(database_url))

    def run_fan(self, n: int) -> float:
        return self.run_job("bench_fan", n)

    def run_job(self, job_type: str, n: int, jobs: int = 1, fail_every: int = 0) -> float:
        """So many fan jobs at once."""
        start = time.perf_counter()
        ids = [self._submit(job_type, n=n, fail_every=fail_every) for _ in range(jobs)]
        self._finish(ids)
        seconds = time.perf_counter() - start
        failing = -(-n // fail_every) if fail_every else 0
        for job_id in ids:
            check_fan(self._result(job_id), n - failing)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        ids = [self._submit("bench_chain") for _ in range(count)]
        self._finish(ids)
        seconds = time.perf_counter() - start
        for job_id in ids:
            if self._result(job_id) != {"completed": 3}:
                raise WrongOutcome(f"expected three completed tasks, found {self._result(job_id)}")
        return seconds

    def close(self) -> None:
        self._pool.close()

    def _submit(self, job_type: str, **parameters: Any) -> str:
        return self._machine.submit_job(SubmitRequest(job_type, {"nonce": uuid4().hex, **parameters})).job_id

    def _result(self, job_id: str) -> dict[str, Any] | None:
        job = self._jobs.find_job(job_id)
        return job.result if job else None

    def _start(self, database_url: str) -> MessageSender:
        raise NotImplementedError

    def _finish(self, job_ids: list[str]) -> None:
        raise NotImplementedError


class OneProcess(EnginePeer):
    """Messages are delivered by two threads of this process."""

    def _start(self, database_url: str) -> MessageSender:
        del database_url
        self._queues = MemoryQueues()
        return self._queues

    def _finish(self, job_ids: list[str]) -> None:
        self._queues.run(self._machine, threads=min(THREADS, 1 + len(job_ids)), timeout_seconds=3600)

    def plan_stage(self, n: int, padding: int = 0) -> dict[str, float]:
        """Plan and announce n tasks, as one message asks for: seconds, and how far that raised the process's peak.

        Args:
            padding: Characters in the parameters of each.
        """
        self._submit("bench_fan", n=n, padding=padding)
        before = peak_megabytes()
        start = time.perf_counter()
        self._queues.deliver(self._machine)
        seconds = time.perf_counter() - start
        self._queues.clear()
        return {"seconds": seconds, "megabytes": peak_megabytes() - before}


def peak_megabytes() -> float:
    """The most that this process has ever held.

    Not `ru_maxrss`, which begins with what the process had that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


class SharedQueues:
    """A `MessageSender` whose messages any of some processes may take."""

    def __init__(self, shared: "Queue[Body]") -> None:
        self._shared = shared

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        for message in messages:
            self._shared.put((queue, message.model_dump_json().encode()))

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        timer = threading.Timer(delay_seconds, self.send_messages, (queue, [message]))
        timer.daemon = True
        timer.start()


def make_worker(database_url: str, shared: "Queue[Body]", threads: int) -> Callable[[Any], Any]:
    """A worker process: some threads take messages until the process ends."""
    machine = make_machine(create_pool(database_url, max_size=max(4, threads)), SharedQueues(shared))

    def pump() -> None:
        while True:
            queue, body = shared.get()
            if queue == JOBS_QUEUE:
                machine.process_job_message(JOBS_QUEUE_MESSAGE.validate_json(body))
            else:
                machine.process_task_message(TaskQueueMessage.model_validate_json(body))

    for number in range(threads):
        threading.Thread(target=pump, name=f"pump-{number}", daemon=True).start()
    return lambda message: message


class ManyProcesses(EnginePeer):
    """Messages are delivered by some threads in each of two processes; this one submits and waits."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads

    def _start(self, database_url: str) -> MessageSender:
        shared = cast("Queue[Body]", multiprocessing.get_context("spawn").Queue())
        self._workers = Workers(2, make_worker, database_url, shared, self._threads)
        self._look = psycopg.connect(database_url, autocommit=True)
        return SharedQueues(shared)

    def _finish(self, job_ids: list[str]) -> None:
        wait_for_ends(self._look, job_ids)

    def close(self) -> None:
        self._workers.close()
        self._look.close()
        super().close()


def wait_for_ends(connection: psycopg.Connection[Any], job_ids: Sequence[str]) -> None:
    """Look at the rows until every job has ended."""
    waiting = list(job_ids)
    while True:
        rows = connection.execute(
            "select job_id from app.jobs where job_id = any (%s) and status <> all (%s)", (waiting, list(_ENDED))
        )
        waiting = [job_id for (job_id,) in rows.fetchall()]
        if not waiting:
            return
        time.sleep(POLL_SECONDS)


one = OneProcess
two = ManyProcesses


def eight() -> ManyProcesses:
    """Two processes of four threads: eight messages in hand."""
    return ManyProcesses(4)
