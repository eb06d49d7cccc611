"""The dashboard in this process: the real engine on a real database, queues in memory, and the API in a thread."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import uvicorn

from core.advancing.submission import Submitter
from core.errors import PermanentTaskError, RetryableTaskError
from core.fan_in import load_fan_in_results
from core.machine import CoreMachine
from core.models import TaskDefinition
from core.operating.bulk import BulkControl
from core.operating.dead_letters import DeadLetters
from core.orchestration_manager import AppRole, OrchestrationManager
from core.running.engine_parts import EngineParts
from core.running.leases import LeaseKeeper
from core.running.task_slots import TaskSlots
from core.scheduling.schedules import Schedules
from core.scheduling.ticker import ScheduleTicker
from core.state_manager import StateManager
from core.webhooks.signing import WebhookSecrets
from core.webhooks.targets import TargetRules
from core.webhooks.webhooks import Webhooks
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.apps import AppRepository
from infrastructure.audit import AuditRepository
from infrastructure.dashboard import DashboardQueries
from infrastructure.dead_letters import DeadLetterRepository
from infrastructure.failures import FailureQueries
from infrastructure.insight import InsightQueries
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.limits import LimitRepository
from infrastructure.postgresql import Pool
from infrastructure.queries import JobQueries
from infrastructure.results import ResultRepository
from infrastructure.schedules import ScheduleRepository
from infrastructure.webhooks import WebhookRepository
from jobs.base import JobBase
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry
from jobs.views import Figure, NothingToShow, Outline, ViewAnswer, ViewRequest
from triggers.access import AccessRules
from triggers.api import create_api
from triggers.ports import Check

PUMPS = 6
_PATIENCE = {"max_attempts": 2, "base_delay_seconds": 0.01, "max_delay_seconds": 0.02}


class Gate:
    """Tasks that are to be seen at work wait here until the test has seen them."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        # What converting a scene takes, by its number.
        self.work: Callable[[int], None] = lambda _number: None
        # Broken scenes that a rerun finds repaired.
        self.is_repaired = False

    def wait(self, context: Any) -> None:
        opened = self._opened
        while not opened.wait(0.02):
            context.check_cancelled()

    def open(self) -> None:
        """Let all go that wait now; who comes later waits again."""
        opened, self._opened = self._opened, threading.Event()
        opened.set()


PICTURE = base64.b64decode("R0lGODlhAQABAIAAAGeZpwAAACwAAAAAAQABAAACAkQBADs=")


def show_scenes(request: ViewRequest) -> ViewAnswer:
    """The preview of a catalog: a page, and a picture."""
    if request.part == "picture.gif":
        return ViewAnswer(PICTURE, "image/gif")
    return ViewAnswer(b"<!doctype html><title>Scenes</title>", "text/html; charset=utf-8")


def draw_scenes(request: ViewRequest) -> Figure:
    """The scenes side by side, at the coast of Portugal."""
    count = (request.result or {}).get("items")
    if not count:
        raise NothingToShow("The catalog has no scenes.")

    def square(number: int) -> Outline:
        west, south = -9.4 + number % 6 * 0.22, 38.5 + number // 6 * 0.18
        ring = [(west, south), (west + 0.2, south), (west + 0.2, south + 0.16), (west, south + 0.16), (west, south)]
        return Outline(f"scene-{number:04d}.tif", [ring], "north" if number >= count / 2 else "south")

    return Figure("Scenes of the folder", [square(number) for number in range(count)], "picture.gif")


class SceneJob(JobBaseMixin, JobBase):
    """Scenes are listed, each is converted, and a catalog is made of them."""

    job_type = "scene_catalog"
    view = "tests.integration.ui.dashboard_app:show_scenes"
    figure = "tests.integration.ui.dashboard_app:draw_scenes"
    description = "Convert the scenes of a folder and make a catalog of them"
    stages: ClassVar = [
        {"number": 1, "name": "list scenes", "task_type": "scene_list", "parallelism": "single"},
        {
            "number": 2,
            "name": "convert",
            "task_type": "scene_convert",
            "parallelism": "fan_out",
            "retry": _PATIENCE,
            "failure": {"on_failure": "tolerate", "max_failed": 5},
        },
        {"number": 3, "name": "catalog", "task_type": "scene_catalog", "parallelism": "fan_in"},
    ]
    parameters_schema: ClassVar = {
        "folder": {"type": "str", "required": True, "min": 3, "max": 300, "description": "where the scenes are"},
        "scenes": {"type": "int", "default": 12, "min": 1, "max": 5000, "description": "how many to convert"},
        "resampling": {"type": "str", "default": "bilinear", "allowed": ["nearest", "bilinear", "cubic"]},
        "overviews": {"type": "bool", "default": True, "description": "whether smaller versions are made"},
        "broken": {
            "type": "list",
            "default": [],
            "items": {"type": "int"},
            "description": "scenes that cannot be read",
        },
        "held": {"type": "list", "default": [], "items": {"type": "int"}},
        "unsteady": {"type": "list", "default": [], "items": {"type": "int"}},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        if stage == 1:
            return [TaskDefinition(name="inventory")]
        return [
            TaskDefinition(name=f"scene-{number:04d}.tif", parameters={"number": number})
            for listed in previous_results
            for number in range(listed.result["count"])
        ]

    @staticmethod
    def finalize_job(context):
        (made,) = [task.result for task in context.results(3)]
        return made


class TileJob(JobBaseMixin, JobBase):
    """Tiles are fetched from a server, which takes few requests at once."""

    job_type = "tile_fetch"
    description = "Fetch tiles from a server that takes one request at a time"
    stages: ClassVar = [
        {
            "number": 1,
            "name": "fetch",
            "task_type": "tile_fetch",
            "parallelism": "single",
            "limits": [{"name": "tiles/{params.server}", "at_once": 1, "rate": "1000/min"}],
        }
    ]
    parameters_schema: ClassVar = {
        "server": {"type": "str", "required": True, "min": 1, "max": 100},
        "tiles": {"type": "int", "default": 2, "min": 1, "max": 50},
        "is_held": {"type": "bool", "default": False},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(name=f"tile-{number}") for number in range(job_params["tiles"])]

    @staticmethod
    def finalize_job(context):
        return {"tiles": sum(1 for _ in context.results(1))}


def scene_handlers(gate: Gate) -> list[Handler]:
    def list_scenes(params, context):
        return {"count": context.job_parameters["scenes"]}

    def convert(params, context):
        number, wishes = params["number"], context.job_parameters
        gate.work(number)
        if number in wishes["held"]:
            gate.wait(context)
        if number in wishes["unsteady"] and context.attempt == 1:
            raise RetryableTaskError("the storage account did not answer within 30 s")
        if number in wishes["broken"] and not gate.is_repaired:
            print(f"reading block 12 of scene-{number:04d}.tif")  # noqa: T201 - the attempt's log
            raise PermanentTaskError(f"scene-{number:04d}.tif: TIFFFillTile: read error at row 512, column 1024")
        return {"cog": f"cogs/scene-{number:04d}.tif", "megabytes": 41 + number % 7}

    def catalog(params, context):
        return {"items": sum(1 for _ in load_fan_in_results(params).results())}

    def fetch(params, context):
        if context.job_parameters["is_held"]:
            gate.wait(context)
        return {}

    return [
        Handler("tile_fetch", fetch, queue="tasks"),
        Handler("scene_list", list_scenes, queue="tasks"),
        Handler("scene_convert", convert, queue="raster"),
        Handler("scene_catalog", catalog, queue="tasks"),
    ]


@dataclass
class AppServices:
    """What `triggers.services.Services` has, without Azure."""

    pool: Pool
    machine: CoreMachine
    registry: Registry
    queues: MemoryQueues
    state: StateManager
    missing: dict[str, str] = field(default_factory=dict)

    queue_names: dict[str, str] = field(
        default_factory=lambda: {"jobs": "cm-jobs", "tasks": "cm-tasks", "raster": "cm-raster"}
    )

    def __post_init__(self) -> None:
        self.apps = AppRepository(self.pool)
        self.queries, self.dashboard = JobQueries(self.pool), DashboardQueries(self.pool)
        self.failures, self.insight = FailureQueries(self.pool), InsightQueries(self.pool)
        self.dead_letter_queries = DeadLetterRepository(self.pool)
        self.dead_letters = DeadLetters(self.dead_letter_queries, self.state, self.queues, ["jobs", "tasks", "raster"])
        self.audit = AuditRepository(self.pool)
        self.limits = LimitRepository(self.pool)
        self.webhook_queries = WebhookRepository(self.pool)
        secrets = WebhookSecrets("k" * 43, {})
        self.webhooks = Webhooks(self.webhook_queries, secrets, TargetRules())
        self.bulk = BulkControl(self.machine, self.queries, self.audit)
        self.schedule_queries = ScheduleRepository(self.pool)
        orchestration = OrchestrationManager(self.registry, self.queues, AppRole("test"))
        submitter = Submitter(self.registry, self.state, orchestration)
        ticker = ScheduleTicker(self.schedule_queries, submitter)
        self.schedules = Schedules(self.schedule_queries, self.registry, ticker, most_bytes=1 << 20)

    def find_job_status(self, job_id):
        return self.queries.find_job_status(job_id)

    def find_ended_jobs(self, job_ids):
        return self.queries.find_ended_jobs(job_ids)

    def find_missing_queues(self):
        return self.missing

    def find_postponed_messages(self):
        return self.machine.postponed_messages.find()

    def find_unnamed_queues(self, queues):
        return tuple(queue for queue in queues if queue not in {"jobs", "tasks", "raster"})

    def check_readiness(self):
        return [
            Check("database", ok=True, detail="schema version 21"),
            Check("service_bus", ok=True, detail="2 queues"),
        ]

    def check_database(self):
        return self.check_readiness()[0]


@dataclass
class DashboardApp:
    """A running app: `url` is its dashboard. `settle` runs everything that waits to its end."""

    url: str
    services: AppServices
    gate: Gate
    is_pumping: threading.Event

    @property
    def machine(self) -> CoreMachine:
        return self.services.machine


def make_services(pool: Pool, gate: Gate) -> AppServices:
    registry = Registry([HelloWorldJob, SceneJob, TileJob], [*HANDLERS, *scene_handlers(gate)], ["tasks", "raster"])
    queues = MemoryQueues()
    state = StateManager(JobRepository(pool), TaskRepository(pool), StageCompletionRepository(pool))
    machine = CoreMachine(
        EngineParts(
            catalog=registry,
            state=state,
            orchestration=OrchestrationManager(registry, queues, AppRole("geo-worker")),
            results=ResultRepository(pool),
            keeper=LeaseKeeper(TaskRepository(pool)),
            owner="geo-worker:vm-7:4711:ab12",
            slots=TaskSlots(4),
        )
    )
    return AppServices(pool, machine, registry, queues, state)


@contextmanager
def running_app(pool: Pool) -> Iterator[DashboardApp]:
    """The API on a free port, and threads that deliver messages while `is_pumping` is set."""
    gate, stopped, is_pumping = Gate(), threading.Event(), threading.Event()
    services = make_services(pool, gate)
    is_pumping.set()

    def pump() -> None:
        while not stopped.is_set():
            if not is_pumping.is_set() or not services.queues.deliver(services.machine):
                stopped.wait(0.01)

    threads = [threading.Thread(target=pump, name=f"pump-{number}") for number in range(PUMPS)]
    with serving(lambda: services) as url:
        for thread in threads:
            thread.start()
        try:
            yield DashboardApp(url, services, gate, is_pumping)
        finally:
            gate.open()
            stopped.set()
            for thread in threads:
                thread.join()


@contextmanager
def serving(get_services: Callable[[], Any], access: AccessRules | None = None) -> Iterator[str]:
    """The address of the dashboard over these services."""
    api = create_api(get_services, access=access)
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="warning"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/api/ui"
    finally:
        server.should_exit = True
        thread.join()
