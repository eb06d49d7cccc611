"""A machine over real PostgreSQL and a job of each shape, for tests."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import uuid4

from core.fan_in import load_fan_in_results
from core.machine import CoreMachine
from core.models import TaskDefinition
from core.models.submission import SubmitRequest
from core.operating.janitor import Janitor, JanitorTimings
from core.orchestration_manager import AppRole, OrchestrationManager
from core.ports import QueueInspector
from core.running.engine_parts import EngineParts
from core.running.leases import LeaseKeeper
from core.running.task_slots import TaskSlots
from core.state_manager import StateManager
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.janitor_store import JanitorRepository
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.results import ResultRepository
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry

FAST_RETRY = {"max_attempts": 3, "base_delay_seconds": 0.01, "max_delay_seconds": 0.02}


class ShapesJob(JobBaseMixin, JobBase):
    """List n numbers (single), square each (fan_out), sum them (fan_in)."""

    job_type = "shapes"
    stages: ClassVar = [
        {"number": 1, "name": "list", "task_type": "list", "parallelism": "single", "retry": FAST_RETRY},
        {
            "number": 2,
            "name": "square",
            "task_type": "square",
            "parallelism": "fan_out",
            "tasks_per_message": 7,
            "retry": FAST_RETRY,
            "failure": {"on_failure": "continue"},
        },
        {"number": 3, "name": "sum", "task_type": "sum", "parallelism": "fan_in", "retry": FAST_RETRY},
    ]
    parameters_schema: ClassVar = {
        "n": {"type": "int", "default": 5},
        "label": {"type": "str", "default": ""},
        "bad": {"type": "list", "default": []},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        if stage == 1:
            return [TaskDefinition()]
        return (
            TaskDefinition(name=f"n{number}", parameters={"number": number})
            for listed in previous_results
            for number in range(listed.result["count"])
        )

    @staticmethod
    def finalize_job(context):
        (total,) = [task.result for task in context.results(3)]
        return {"total": total["total"], "failed": context.stages[1].failed}


class Behaviours:
    """What handlers do beside their work: tests replace it by task name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.before: dict[str, Callable[[Any], Any]] = {}

    def __call__(self, context):
        self.calls[context.task_id] += 1
        act = self.before.get(context.task_id)
        return act(context) if act else None


def build_registry(behave: Behaviours, job: type[ShapesJob] = ShapesJob) -> Registry:
    def list_numbers(params, context):
        behave(context)
        return {"count": context.job_parameters["n"]}

    def square(params, context):
        told = behave(context)
        if params["number"] in context.job_parameters["bad"]:
            raise ValueError(f"bad number {params['number']}")
        return told if told is not None else {"square": params["number"] ** 2}

    def total(params, context):
        behave(context)
        loaded = load_fan_in_results(params)
        squares = [task.result["square"] for task in loaded.results()]
        return {"total": sum(squares), "failures": [task.error["message"] for task in loaded.failures()]}

    handlers = [
        Handler("list", list_numbers, queue="tasks"),
        Handler("square", square, queue="tasks"),
        Handler("sum", total, queue="tasks"),
    ]
    return Registry([job], handlers, queues=["tasks"])


class AgedQueues:
    """A look into queues whose messages are made older whenever the rows are."""

    def __init__(self, queues: QueueInspector, aged: Sequence[tuple[datetime, float]]) -> None:
        self._queues, self._aged = queues, aged

    def oldest_enqueued_at(self, queue: str) -> datetime | None:
        oldest = self._queues.oldest_enqueued_at(queue)
        if oldest is None:
            return None
        return oldest - timedelta(seconds=sum(seconds for at, seconds in self._aged if at >= oldest))


class Rig:
    """One process's engine: machine, janitor, queues, and short ways to look at what came out."""

    def __init__(
        self,
        engine,
        queues=None,
        *,
        on_the_spot: bool = False,
        advances_jobs: bool = True,
        sender=None,
        behave=None,
        timings: JanitorTimings = JanitorTimings(),  # noqa: B008 - frozen
        registry=None,
        **machine_options: Any,
    ) -> None:
        self.engine = engine
        pool = engine.pool
        self.queues = queues if queues is not None else MemoryQueues()
        self.behave = behave or Behaviours()
        self.registry = registry or build_registry(self.behave)
        self.state = StateManager(JobRepository(pool), TaskRepository(pool), StageCompletionRepository(pool))
        served = frozenset({"tasks"}) if on_the_spot else frozenset()
        role = AppRole(app_name="test", advances_jobs=advances_jobs, served_queues=served)
        self.orchestration = OrchestrationManager(self.registry, sender or self.queues, role)
        self.keeper = LeaseKeeper(TaskRepository(pool))
        self.machine = CoreMachine(
            EngineParts(
                catalog=self.registry,
                state=self.state,
                orchestration=self.orchestration,
                results=ResultRepository(pool),
                keeper=self.keeper,
                owner="test-process",
                **{"slots": TaskSlots(4), "patience_seconds": 0.0} | machine_options,
            )
        )
        self.janitor = Janitor(
            JanitorRepository(pool),
            self.state,
            self.orchestration,
            queues=["tasks"],
            inspector=AgedQueues(self.queues, engine.aged),
            timings=timings,
        )

    def submit(self, **parameters: Any) -> str:
        """A job of its own: where databases of several tests share a broker, no message id is met twice."""
        return self.machine.submit_job(SubmitRequest("shapes", {"label": uuid4().hex} | parameters)).job_id

    def run(self, **parameters: Any) -> str:
        job_id = self.submit(**parameters)
        self.queues.run(self.machine)
        return job_id

    def job(self, job_id: str):
        job = self.engine.jobs.find_job(job_id)
        assert job is not None
        return job

    def tasks(self, job_id: str, stage: int) -> list[dict[str, Any]]:
        return self.engine.query(
            "select * from app.tasks where job_id = %s and stage = %s order by task_index", job_id, stage
        )
