"""What is done to a running stack. Each fault takes its decisions from the run's own random numbers."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError

from coremachine.local.stack import LocalStack
from tests.chaos.jobs import LEASE_SECONDS

# How long a fault that wants a worker at work waits for one.
_BUSY_SECONDS = 30.0

JOBS_QUEUE, TASKS_QUEUE = "coremachine-jobs", "coremachine-tasks"


@dataclass
class FaultRecord:
    """One fault as it happened; `held` are the tasks that were being worked on at that moment."""

    name: str
    at: datetime
    held: list[tuple[str, str]] = field(default_factory=list)
    detail: str = ""


class Faults:
    """The faults by name, and the memory of what was done.

    Args:
        down_seconds: How long PostgreSQL stays away in `postgres_down`.
    """

    def __init__(self, stack: LocalStack, seed: int, down_seconds: float) -> None:
        self._stack, self._seed, self._down_seconds = stack, seed, down_seconds
        self._rng = random.Random(seed)
        self.records: list[FaultRecord] = []
        self.by_name: dict[str, Callable[[], str]] = {
            "kill_worker": self.kill_worker,
            "kill_busy_worker": self.kill_busy_worker,
            "kill_all_workers": self.kill_all_workers,
            "freeze_worker": self.freeze_worker,
            "postgres_fast": lambda: self._end_postgres(signal.SIGINT),
            "postgres_immediate": lambda: self._end_postgres(signal.SIGQUIT),
            "postgres_down": self.postgres_down,
            "kill_broker": self.kill_broker,
            "terminate_backends": self.terminate_backends,
            "expire_leases": self.expire_leases,
            "duplicate_messages": self.duplicate_messages,
            "reject_sends": lambda: self._ask_broker(f"server-busy?count={self._rng.randint(1, 20)}"),
            "drop_connections": lambda: self._ask_broker("drop-connections"),
            "expire_locks": lambda: self._ask_broker("expire-locks"),
        }

    def do(self, name: str) -> FaultRecord:
        """Do it and remember it. A part that is away already makes the fault one without effect."""
        held = self._held_tasks()
        record = FaultRecord(name, datetime.now(UTC), held)
        # Each fault has numbers of its own: how many an earlier one took depends on what it found.
        self._rng.seed(f"{self._seed}:{len(self.records)}")
        self.records.append(record)
        try:
            record.detail = self.by_name[name]()
        except (psycopg.OperationalError, ServiceBusError, httpx.TransportError, ProcessLookupError) as error:
            record.detail = f"without effect ({type(error).__name__})"
        return record

    def kill_worker(self) -> str:
        pids = self._worker_pids()
        if not pids:
            return "without effect (no worker runs)"
        place = self._rng.randrange(len(pids))
        os.kill(pids[place], signal.SIGKILL)
        return f"worker {place + 1} of {len(pids)}"

    def kill_busy_worker(self) -> str:
        """One that holds tasks, as soon as there is one: it is stopped, so that what it holds stays with it."""
        # Locked, so that what the worker has already sent completes none of them; its backend then waits for us.
        held = (
            "select count(*) from (select from app.tasks"
            " where status = 'processing' and lease_owner like %s for update skip locked) held"
        )
        cut = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pg_backend_pid() = any (pg_blocking_pids(pid))"
        )
        until = time.monotonic() + _BUSY_SECONDS
        with self.connect() as connection:
            while time.monotonic() < until:
                for place, pid in enumerate(self._worker_pids()):
                    with connection.transaction():
                        os.kill(pid, signal.SIGSTOP)
                        (count,) = _one(connection.execute(held, [f"%:{pid}:%"]))
                        os.kill(pid, signal.SIGKILL if count else signal.SIGCONT)
                        if count:
                            connection.execute(cut)
                            return f"worker {place + 1}, which held {count} tasks"
        return f"without effect (no worker held tasks for {_BUSY_SECONDS:.0f} s)"

    def kill_all_workers(self) -> str:
        pids = self._worker_pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return f"{len(pids)} workers"

    def freeze_worker(self) -> str:
        """It does not run for longer than its leases, then goes on as if nothing had been: a zombie."""
        pids = self._worker_pids()
        if not pids:
            return "without effect (no worker runs)"
        pid = self._rng.choice(pids)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(LEASE_SECONDS * 1.5)
        finally:
            os.kill(pid, signal.SIGCONT)
        return f"for {LEASE_SECONDS * 1.5} s"

    def postgres_down(self) -> str:
        """The stack starts a dead server again at once; this holds it back."""
        with self._stack._restarting:
            self._end_postgres(signal.SIGINT)
            time.sleep(self._down_seconds)
        return f"for {self._down_seconds:.0f} s"

    def kill_broker(self) -> str:
        broker = self._stack.broker
        if broker is None or broker.pid is None:
            return "without effect (it does not run)"
        os.kill(broker.pid, signal.SIGKILL)
        return "all messages are lost"

    def terminate_backends(self) -> str:
        share = self._rng.uniform(0.2, 1)
        with self.connect() as connection:
            (count,) = _one(
                connection.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity "
                    "where backend_type = 'client backend' and pid <> pg_backend_pid() and random() < %s",
                    [share],
                )
            )
        return f"{count} connections"

    def expire_leases(self) -> str:
        share = self._rng.uniform(0.1, 1)
        with self.connect() as connection:
            count = connection.execute(
                "update app.tasks set lease_expires_at = app.clock() - interval '1 second' "
                "where status = 'processing' and random() < %s",
                [share],
            ).rowcount
        return f"{count} leases"

    def duplicate_messages(self) -> str:
        """Messages that the system sent, might have sent, or sent long ago, in any order and more than once."""
        with self.connect() as connection:
            jobs = connection.execute("select job_id, job_type, stage from app.jobs order by job_id").fetchall()
            tasks = connection.execute(
                "select t.job_id, j.job_type, t.stage, t.attempt, t.task_id "
                "from app.tasks t join app.jobs j using (job_id) order by md5(t.task_id || %s) limit 300",
                [str(self._rng.random())],
            ).fetchall()
        of_jobs = [body for row in jobs for body in self._job_messages(*row)]
        of_tasks = [self._task_message(*row) for row in tasks]
        connection_string = self._stack.info.service_bus_connection
        with ServiceBusClient.from_connection_string(connection_string, retry_total=1) as client:
            for queue, bodies in ((JOBS_QUEUE, of_jobs), (TASKS_QUEUE, of_tasks)):
                chosen = self._rng.choices(bodies, k=min(100, len(bodies))) if bodies else []
                with client.get_queue_sender(queue) as sender:
                    for body in chosen:
                        sender.send_messages(ServiceBusMessage(json.dumps(body), message_id=uuid4().hex))
        return f"{min(100, len(of_jobs))} of jobs, {min(100, len(of_tasks))} of tasks"

    def connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(self._stack.info.database_url, autocommit=True, connect_timeout=5)

    def _job_messages(self, job_id: str, job_type: str, stage: int) -> Iterator[dict[str, Any]]:
        named = {"job_id": job_id, "job_type": job_type}
        for number in range(1, stage + 1):
            yield {"message_type": "job", **named, "stage": number}
            yield {"message_type": "stage_complete", **named, "completed_stage": number}
        # Of a stage and of a run that are not there yet.
        yield {"message_type": "job", **named, "stage": stage + 1}
        yield {"message_type": "job", **named, "run": 2, "stage": stage}

    def _task_message(self, job_id: str, job_type: str, stage: int, attempt: int, task_id: str) -> dict[str, Any]:
        message = {"job_id": job_id, "job_type": job_type, "stage": stage, "task_ids": [task_id]}
        return {**message, "attempt": self._rng.randint(1, attempt + 1)}

    def _ask_broker(self, fault: str) -> str:
        answer = httpx.post(f"{self._stack.info.admin_url}/faults/{fault}", timeout=10)
        return answer.text

    def _end_postgres(self, number: signal.Signals) -> str:
        """The signals are those of `pg_ctl stop`: SIGINT for -m fast, SIGQUIT for -m immediate."""
        pid = None if self._stack.postgres is None else self._stack.postgres.pid
        if pid is None:
            return "without effect (it does not run)"
        os.kill(pid, number)
        return ""

    def _worker_pids(self) -> list[int]:
        assert self._stack.host is not None
        return self._stack.host.worker_pids

    def _held_tasks(self) -> list[tuple[str, str]]:
        with contextlib.suppress(psycopg.OperationalError), self.connect() as connection:
            return connection.execute("select job_id, task_id from app.tasks where status = 'processing'").fetchall()
        return []


def _one(cursor: "psycopg.Cursor[tuple[Any, ...]]") -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row is not None
    return row
