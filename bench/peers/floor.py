"""The floor: plain psycopg on CoreMachine's own SQL functions. No engine, no queue, no handlers, no messages."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from bench.jobs import ChainJob, FanJob
from bench.processes import Workers
from bench.workload import RESULT, check_fan, summarize
from infrastructure.database_errors import Fault, fault_of
from infrastructure.migrations import Migrator

BATCH = 100
PROCESSES = 2
_COPY = "copy app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, parameters) from stdin"
_COMPLETE_AND_PLAN = (
    "select app.complete_stage_and_plan_next(%s, 1, %s, %s, %s, %s, %s, %s, %s, %s::text[], %s, %s, 'floor', 100)"
)
_PLAN_SMALL = "select app.plan_small_stage(%s, 1, %s, %s, %s, %s, %s::text[], %s, %s, 'floor', 100)"


class Client:
    """One connection and the calls that a job is made of."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self._connection.close()

    def submit(self, job: type[FanJob | ChainJob]) -> str:
        job_id = uuid4().hex * 2
        definition = job.definition().model_dump(mode="json")
        values = (job_id, job.job_type, Jsonb({}), Jsonb(definition), "floor")
        self._connection.execute("select * from app.submit_job(%s, %s, %s, %s, %s)", values)
        return job_id

    def plan_one(self, job_id: str, stage: int, parameters: dict[str, Any]) -> tuple[str, UUID]:
        """A stage of one task, born claimed."""
        task_id, lease_id = f"s{stage}-000000", uuid4()
        arrays: tuple[Any, ...] = ([task_id], ["bench_work"], ["tasks"], [None], [Jsonb(parameters)])
        self._connection.execute(_PLAN_SMALL, (job_id, stage, *arrays, lease_id))
        return task_id, lease_id

    def plan_many(self, job_id: str, stage: int, n: int) -> list[str]:
        ids = [f"s{stage}-{index:06d}" for index in range(n)]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute("select app.begin_stage_plan(%s, 1, %s)", (job_id, stage))
            with cursor.copy(_COPY) as copy:
                for index, task_id in enumerate(ids):
                    copy.write_row((job_id, 1, task_id, stage, index, "bench_work", "tasks", Jsonb({"index": index})))
            cursor.execute("select app.seal_stage(%s, 1, %s, %s, %s)", (job_id, stage, n, BATCH))
        return ids

    def claim(self, job_id: str, stage: int, ids: list[str], lease_id: UUID | None = None) -> UUID:
        lease_id = lease_id or uuid4()
        self._connection.execute(
            "select * from app.claim_tasks(%s, 1, %s, %s, %s, 'floor')", (job_id, stage, ids, lease_id)
        ).fetchall()
        return lease_id

    def complete(self, job_id: str, stage: int, lease_id: UUID, ids: list[str], result: dict[str, Any]) -> bool:
        values = (job_id, stage, lease_id, ids, [Jsonb(result)] * len(ids))
        query = "select * from app.complete_task_and_check_stage(%s, 1, %s, %s, %s, %s)"
        while True:
            try:
                row = self._connection.execute(query, values).fetchone()
            except psycopg.Error as error:
                # Changed between look and lock: to be called again.
                if fault_of(error, is_broken=False) is not Fault.CHANGED:
                    raise
            else:
                return bool(row and row["is_last_task_in_stage"])

    def read_results(self, job_id: str, stage: int) -> dict[str, int]:
        query = (
            "select result from app.tasks where job_id = %s and run = 1 and stage = %s and status = 'completed' "
            "order by task_index"
        )
        with self._connection.transaction(), self._connection.cursor("results") as cursor:
            cursor.itersize = 1000
            return summarize(row["result"] for row in cursor.execute(query, (job_id, stage)))

    def finalize(self, job_id: str, result: dict[str, Any]) -> None:
        self._connection.execute("select app.finalize_job(%s, 1, %s)", (job_id, Jsonb(result)))

    def run_stage_of_one(self, job_id: str, stage: int, result: dict[str, Any]) -> None:
        task_id, lease_id = self.plan_one(job_id, stage, {"index": 0})
        self.complete(job_id, stage, lease_id, [task_id], result)

    def run_chain(self) -> None:
        job_id = self.submit(ChainJob)
        held = self.plan_one(job_id, 1, {"index": 0})
        for stage in (1, 2):
            held = self.complete_and_plan_one(job_id, stage, held)
        values = (job_id, held[1], [held[0]], [Jsonb(RESULT)], Jsonb({}))
        self._connection.execute("select app.complete_stage_and_finalize(%s, 1, 3, %s, %s, %s, %s)", values)

    def complete_and_plan_one(self, job_id: str, stage: int, held: tuple[str, UUID]) -> tuple[str, UUID]:
        """End a stage of one task and plan the next with it, born claimed."""
        task_id, lease_id = f"s{stage + 1}-000000", uuid4()
        arrays: tuple[Any, ...] = ([task_id], ["bench_work"], ["tasks"], [None], [Jsonb({"index": 0})])
        values = (job_id, stage, held[1], [held[0]], [Jsonb(RESULT)], *arrays, lease_id)
        self._connection.execute(_COMPLETE_AND_PLAN, values)
        return task_id, lease_id


def make_worker(database_url: str) -> Callable[[tuple[str, int, list[list[str]]] | int], bool]:
    """What a worker process does: batches of a stage, or so many whole chains."""
    client = Client(database_url)

    def call(message: tuple[str, int, list[list[str]]] | int) -> bool:
        if isinstance(message, int):
            for _ in range(message):
                client.run_chain()
            return False
        job_id, stage, batches = message
        is_last = False
        for ids in batches:
            is_last |= client.complete(job_id, stage, client.claim(job_id, stage, ids), ids, RESULT)
        return is_last

    return call


class FloorPeer:
    """Two worker processes, a hundred tasks a call."""

    def versions(self) -> dict[str, str]:
        return {"psycopg": psycopg.__version__}

    def prepare(self, database_url: str) -> None:
        with psycopg.connect(database_url) as connection:
            Migrator(connection).migrate()
        self._client = Client(database_url)
        self._workers = Workers(PROCESSES, make_worker, database_url)

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        client = self._client
        job_id = client.submit(FanJob)
        client.run_stage_of_one(job_id, 1, {"n": n})
        ids = client.plan_many(job_id, 2, n)
        batches = [ids[at : at + BATCH] for at in range(0, n, BATCH)]
        # The last of a stage is told so, once, to whoever ended it.
        if sum(self._workers.call([(job_id, 2, batches[at::PROCESSES]) for at in range(PROCESSES)])) != 1:
            raise AssertionError("expected one worker to be told that its tasks were the last")
        task_id, lease_id = client.plan_one(job_id, 3, {})
        outcome = client.read_results(job_id, 2)
        client.complete(job_id, 3, lease_id, [task_id], outcome)
        client.finalize(job_id, outcome)
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        start = time.perf_counter()
        self._client.run_chain()
        return time.perf_counter() - start

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        self._workers.call([count // PROCESSES] * PROCESSES)
        return time.perf_counter() - start

    def close(self) -> None:
        self._workers.close()
        self._client.close()
