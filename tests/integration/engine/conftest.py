"""A database of its own, cloned from a template, for each test."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from core.models import JobRecord, StageDefinition, TaskRecord
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.postgresql import Pool, create_pool
from infrastructure.verify import verify
from local.broker.config import default_config_path, load_config
from local.broker.thread import BrokerThread
from local.memory_queue import MemoryQueues

from .containers import postgres_container, reason_not_to_run, service_bus_emulator
from .transports import ServiceBusQueues

_numbers = itertools.count(1)
# So many calls at most can be made at one moment.
CROWD = 16


def make_template(server_url: str) -> str:
    """A migrated database on the server, to be cloned; returns the server's URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("create database template_engine")
    with create_pool(make_conninfo(server_url, dbname="template_engine")) as pool:
        JobRepository(pool)._ensure_schema_exists()
    return server_url


@contextmanager
def clone_template(server_url: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"create database {name} template template_engine")
    yield make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    return make_template(postgres_url)


@pytest.fixture
def database_url(template_url: str) -> Iterator[str]:
    with clone_template(template_url) as url:
        yield url


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with create_pool(database_url, max_size=20) as pool:
        yield pool


@dataclass
class Engine:
    """The repositories, and short ways to reach a state."""

    pool: Pool
    jobs: JobRepository = field(init=False)
    tasks: TaskRepository = field(init=False)
    stages: StageCompletionRepository = field(init=False)

    def __post_init__(self) -> None:
        self.jobs, self.tasks = JobRepository(self.pool), TaskRepository(self.pool)
        self.stages = StageCompletionRepository(self.pool)

    def submit(self, *, stages: int = 2, job_timeout_seconds: float | None = None, **stage_settings: Any) -> str:
        job_id = uuid4().hex * 2
        definition = {
            "job_type": "test",
            "timeout_seconds": job_timeout_seconds,
            "stages": [
                StageDefinition.model_validate(
                    {"number": number, "name": f"s{number}", "task_type": "t", "parallelism": "single"} | stage_settings
                ).model_dump(mode="json")
                for number in range(1, stages + 1)
            ],
        }
        job = JobRecord(
            job_id=job_id, job_type="test", total_stages=stages, definition=definition, correlation_id="corr"
        )
        assert self.jobs.submit_job(job).created
        return job_id

    def plan(self, job_id: str, stage: int, count: int, *, run: int = 1) -> tuple[str, int]:
        rows = (
            TaskRecord(
                job_id=job_id,
                run=run,
                task_id=f"s{stage}-{index:05d}",
                stage=stage,
                task_index=index,
                task_type="t",
                queue="q",
                parameters={"index": index},
            )
            for index in range(count)
        )
        return self.tasks.plan_stage(job_id, run, stage, rows)

    def claim(self, job_id: str, stage: int, *task_ids: str) -> UUID:
        lease_id = uuid4()
        rows = self.tasks.claim_tasks(job_id, 1, stage, task_ids, lease_id=lease_id, owner="test")
        assert {row["outcome"] for row in rows} == {"claimed"}
        return lease_id

    def job_status(self, job_id: str) -> str:
        job = self.jobs.find_job(job_id)
        assert job is not None
        return job.status.value

    def task(self, job_id: str, task_id: str) -> dict[str, Any]:
        (row,) = self.query("select * from app.tasks where job_id = %s and task_id = %s", job_id, task_id)
        return row

    def query(self, text: str, *values: Any) -> list[dict[str, Any]]:
        with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(text, values).fetchall()  # type: ignore[arg-type]

    def execute(self, text: str, *values: Any) -> None:
        with self.pool.connection() as connection:
            connection.execute(text, values)  # type: ignore[arg-type]


@pytest.fixture
def engine(pool: Pool, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """After each test all invariants hold, unless it breaks them by hand (marker `breaks_invariants`)."""
    yield Engine(pool)
    if request.node.get_closest_marker("breaks_invariants") is None:
        assert verify(pool) == []


@pytest.fixture
def at(database_url: str) -> Iterator[Callable[[float], Engine]]:
    """The same database at a time that stands still: so many seconds after a midnight."""
    with ExitStack() as opened:

        def engine_at(seconds: float) -> Engine:
            now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
            url = make_conninfo(database_url, options=f"-c app.fake_now={now.isoformat()}")
            return Engine(opened.enter_context(create_pool(url, max_size=20)))

        yield engine_at


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[Any]]]:
    with ThreadPoolExecutor(CROWD) as executor:

        def run_together(*calls: Callable[[], Any]) -> list[Any]:
            """All calls start at one moment; their results come back in order."""
            start = threading.Barrier(len(calls))

            def one(call: Callable[[], Any]) -> Any:
                start.wait(timeout=60)
                return call()

            return [future.result(timeout=60) for future in [executor.submit(one, call) for call in calls]]

        yield run_together


@pytest.fixture(scope="session")
def broker() -> Iterator[BrokerThread]:
    """With the project's own queues, which drop a message id seen within a minute."""
    with BrokerThread(load_config(default_config_path())) as running:
        yield running


@pytest.fixture(scope="session")
def broker_queues(broker: BrokerThread) -> Iterator[ServiceBusQueues]:
    queues = ServiceBusQueues(broker.connection_string)
    yield queues
    queues.close()


@pytest.fixture(scope="session")
def containers() -> Iterator[tuple[str, ServiceBusQueues]]:
    """A PostgreSQL server with a template, and the queues of Microsoft's emulator."""
    if reason := reason_not_to_run():
        pytest.skip(reason)
    with postgres_container() as server_url, service_bus_emulator() as connection_string:
        queues = ServiceBusQueues(connection_string)
        yield make_template(server_url), queues
        queues.close()


@dataclass
class Platform:
    """What an engine runs on."""

    engine: Engine
    queues: MemoryQueues | ServiceBusQueues


@pytest.fixture(
    params=[
        "memory",
        "broker",
        # docker-py leaves sockets to the garbage collector.
        pytest.param("emulator", marks=[pytest.mark.docker, pytest.mark.filterwarnings("ignore::ResourceWarning")]),
    ]
)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """In memory, on the local broker through the real SDK, on Microsoft's emulator; each on PostgreSQL."""
    if request.param == "memory":
        yield Platform(request.getfixturevalue("engine"), MemoryQueues())
        return
    if request.param == "broker":
        queues = request.getfixturevalue("broker_queues")
        queues.clear()
        yield Platform(request.getfixturevalue("engine"), queues)
        return
    server_url, queues = request.getfixturevalue("containers")
    queues.clear()
    with clone_template(server_url) as database_url, create_pool(database_url, max_size=20) as pool:
        yield Platform(Engine(pool), queues)
