"""Processes that die at fault points, and those that follow them, over one database and one broker in memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from core.app_queues import JOBS_QUEUE
from core.basics.faults import NthHit, armed
from core.errors import DeliveryError
from core.models.message import JOBS_QUEUE_MESSAGE, TaskQueueMessage
from core.models.submission import SubmitRequest
from core.operating.janitor import JanitorTimings
from coremachine.local.memory_queue import MemoryQueues
from tests.databases import Engine
from tests.integration.engine.machine_suite import Rig

OPEN_TASK = ("pending", "queued", "processing", "pending_retry")
# Far more than any story needs: each sweep repairs all that it finds, and one repair may uncover the next.
MOST_SWEEPS = 100
NO_PATIENCE = JanitorTimings(announce=0.0, hold=0.0, job=0.0, lost=0.0)


class Crash(BaseException):
    """The process is gone; nothing in it may catch this."""


class UnsteadyQueues(MemoryQueues):
    """Refuses the first message of each job, and the first of each stage 2: the janitor has to send them."""

    def __init__(self) -> None:
        super().__init__()
        self._refused: set[tuple[str, str | None]] = set()

    def send_messages(self, queue, messages):
        first = messages[0]
        is_meant = queue == JOBS_QUEUE or first.stage == 2
        if is_meant and (queue, first.job_id) not in self._refused:
            self._refused.add((queue, first.job_id))
            raise DeliveryError(queue, "refused once")
        super().send_messages(queue, messages)


class World:
    """What outlives a process: the database, the broker, and what handlers did to the outside.

    Args:
        loses_messages: Whether the broker forgets everything whenever a process dies.
        two_apps: One app runs tasks and signals, another moves jobs. Else one app does both.
    """

    def __init__(
        self,
        engine: Engine,
        queues: MemoryQueues | None = None,
        *,
        on_the_spot: bool = False,
        loses_messages: bool = False,
        two_apps: bool = False,
    ) -> None:
        self.engine = engine
        self.queues = queues or MemoryQueues()
        self._on_the_spot, self._loses_messages, self._two_apps = on_the_spot, loses_messages, two_apps
        self.effects: Counter[tuple[str, str]] = Counter()
        self.acts: dict[str, Callable[[Any], Any]] = {}
        self.crashes: list[str] = []
        self.job_ids: list[str] = []
        self._start_processes()

    @contextmanager
    def dying_at(self, *hits: tuple[str, int]) -> Iterator[None]:
        """The process that reaches a point for the nth time in all dies there."""
        counted = [NthHit(point, nth) for point, nth in hits]

        def die(reached: str) -> None:
            hits = [is_hit(reached) for is_hit in counted]  # each of them counts
            if any(hits):
                self.crashes.append(reached)
                raise Crash(reached)

        with armed(die):
            yield

    def survive(self, call: Callable[[], Any]) -> Any:
        """What the call returns; None if the process dies of it, and another one has started then."""
        try:
            return call()
        except Crash:
            if self._loses_messages:
                self.queues.clear()
            self.expire_leases()
            self._start_processes()
            return None

    def expire_leases(self) -> None:
        text = "update app.tasks set lease_expires_at = app.clock() where status = 'processing' and job_id = any(%s)"
        self.engine.execute(text, self.job_ids)

    def submit(self, **parameters: Any) -> str:
        """As a client does that asks again when its request was cut off."""
        wanted = {"label": uuid4().hex, **parameters}
        job_id = None
        while job_id is None:
            job_id = self.survive(lambda: self.rig.machine.submit_job(SubmitRequest("shapes", wanted)).job_id)
        self.job_ids.append(job_id)
        return job_id

    def run_to_the_end(self) -> None:
        """Deliver what there is and sweep, until no job is open."""
        for _ in range(MOST_SWEEPS):
            # None: a process died, and the next one goes on.
            while self.survive(self._deliver) is not False:
                pass
            if all(self.rig.job(job_id).status.is_terminal for job_id in self.job_ids):
                return
            self.survive(self._sweep)
        raise AssertionError(f"still open after {MOST_SWEEPS} sweeps: {[self.rig.job(i) for i in self.job_ids]}")

    def assert_all_completed(self, results: dict[str, dict[str, Any]], *, run: int = 1) -> None:
        """Each job has its result, each stage ended once, nothing is open, and every task's handler ran."""
        for job_id, result in results.items():
            job = self.rig.job(job_id)
            assert (job.status, job.run, job.result) == ("completed", run, result)
            events = self.engine.query(
                "select stage, event, count(*) as count from app.job_events where job_id = %s and run = %s"
                " and (event like 'stage%%' or event like 'job%%') group by stage, event",
                job_id,
                run,
            )
            counts = {(row["stage"], row["event"]): row["count"] for row in events}
            for stage in (1, 2, 3):
                assert counts[stage, "stage_completed"] == 1
                assert counts[stage, "stage_planned"] == 1
            assert counts[None, "job_completed"] == 1
            rows = self.engine.query("select * from app.tasks where job_id = %s and run = %s", job_id, run)
            assert {row["status"] for row in rows} == {"completed"}
            assert all(self.effects[job_id, row["task_id"]] >= 1 for row in rows)
            assert len(rows) == 2 + self.rig.job(job_id).parameters["n"]

    def __call__(self, context: Any) -> Any:
        """Behind every handler."""
        self.effects[context.job_id, context.task_id] += 1
        act = self.acts.get(context.task_id)
        return act(context) if act else None

    def is_first(self, context: Any) -> bool:
        """Whether this is the first time in all that this task's handler runs."""
        return self.effects[context.job_id, context.task_id] == 1

    def _start_processes(self) -> None:
        self.rig = Rig(self.engine, self.queues, on_the_spot=self._on_the_spot, behave=self, timings=NO_PATIENCE)
        self.worker = Rig(self.engine, self.queues, advances_jobs=False, behave=self) if self._two_apps else self.rig

    def _deliver(self) -> bool:
        def process(queue: str, body: bytes) -> None:
            if queue == JOBS_QUEUE:
                self.rig.machine.process_job_message(JOBS_QUEUE_MESSAGE.validate_json(body))
            else:
                self.worker.machine.process_task_message(TaskQueueMessage.model_validate_json(body))

        return self.queues.deliver_to(process, skip_delays=True)

    def _sweep(self) -> None:
        report = self.rig.janitor.sweep()
        assert report.errors == {}
