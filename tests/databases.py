"""Databases cloned from a migrated template, and the repositories on one."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Literal

from core.models import JobRecord, Lease, StageDefinition, StageRef, TaskRecord
from infrastructure.connections import own_transaction
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.postgresql import Pool, create_pool

_numbers = itertools.count(1)


def set_defaults(server_url: str) -> None:
    """Set what COREMACHINE_TEST_SETTINGS says (name=value;name=value) for the server: no answer depends on it."""
    for setting in filter(None, os.environ.get("COREMACHINE_TEST_SETTINGS", "").split(";")):
        name, _, value = setting.partition("=")
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(SQL("alter system set {} = {}").format(SQL(name), Literal(value)))  # type: ignore[arg-type]
            connection.execute("select pg_reload_conf()")


def connect(database_url: str, *, autocommit: bool = False) -> psycopg.Connection:
    """A connection of the test's own, at read committed whatever the server's default is."""
    options = "-c default_transaction_isolation=read\\ committed"
    return psycopg.connect(make_conninfo(database_url, options=options), autocommit=autocommit)


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


@dataclass
class Engine:
    """The repositories, and short ways to reach a state."""

    pool: Pool
    jobs: JobRepository = field(init=False)
    tasks: TaskRepository = field(init=False)
    stages: StageCompletionRepository = field(init=False)
    # When the rows were made older by hand, and by how many seconds.
    aged: list[tuple[datetime, float]] = field(default_factory=list)

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
        return self.tasks.plan_stage(StageRef(job_id, run, stage), rows)

    def claim(self, job_id: str, stage: int, *task_ids: str) -> UUID:
        lease_id = uuid4()
        rows = self.tasks.claim_tasks(StageRef(job_id, 1, stage), task_ids, lease=Lease(lease_id, "test"))
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
        with self.pool.connection() as connection, own_transaction(connection), connection.cursor() as cursor:
            return cursor.execute(text, values).fetchall()  # type: ignore[arg-type]

    def execute(self, text: str, *values: Any) -> None:
        with self.pool.connection() as connection, own_transaction(connection):
            connection.execute(text, values)  # type: ignore[arg-type]

    def rows_of(self, job_id: str) -> list[list[str]]:
        """Everything that is written of a job, in an order of its own."""
        tables = ("jobs", "stages", "tasks", "job_events")
        return [
            sorted(map(str, self.query(f"select * from app.{table} where job_id = %s", job_id)))  # noqa: S608 - of these
            for table in tables
        ]

    def wait_for_lock(self, kind: str | None = None, *, waiting: int = 1) -> None:
        """Until so many other connections wait for a lock, of a kind if given (advisory, transactionid, tuple)."""
        query = (
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
            "and (%s::text is null or wait_event = %s)"
        )
        for _ in range(10_000):
            if len(self.query(query, kind, kind)) >= waiting:
                return
        raise AssertionError("nobody waits")
