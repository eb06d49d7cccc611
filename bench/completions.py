"""Completions a second of one stage: one task a call against a hundred a call, and a stage of 1,000 against 10,000.

Run: python bench/completions.py
"""

import itertools
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from core.models import JobRecord, Lease, StageDefinition, StageRef, TaskRecord
from coremachine.local.postgres import LocalPostgres
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.postgresql import Pool, create_pool


def planned_stage(pool: Pool, count: int) -> tuple[str, list[str], float]:
    """Submit a job and plan its one stage: its id, the task ids, the seconds that planning took."""
    job_id = uuid4().hex * 2
    stage = StageDefinition.model_validate({"number": 1, "name": "s", "task_type": "t", "parallelism": "single"})
    definition = {"job_type": "bench", "stages": [stage.model_dump(mode="json")]}
    JobRepository(pool).submit_job(
        JobRecord(job_id=job_id, job_type="bench", total_stages=1, definition=definition, correlation_id="bench")
    )
    ids = [f"s1-{index:06d}" for index in range(count)]
    rows = (
        TaskRecord(
            job_id=job_id, run=1, task_id=task_id, stage=1, task_index=index, task_type="t", queue="q", parameters={}
        )
        for index, task_id in enumerate(ids)
    )
    start = time.perf_counter()
    TaskRepository(pool).plan_stage(StageRef(job_id, 1, 1), rows)
    return job_id, ids, time.perf_counter() - start


def completions_per_second(pool: Pool, count: int, batch: int, calls: int) -> tuple[float, float]:
    """(completions a second, planned tasks a second); claims are not in the measured time."""
    job_id, ids, planning = planned_stage(pool, count)
    tasks, stages = TaskRepository(pool), StageCompletionRepository(pool)
    batches = list(itertools.islice((ids[at : at + batch] for at in range(0, len(ids), batch)), calls))
    leases = [uuid4() for _ in batches]
    for lease, chunk in zip(leases, batches, strict=True):
        tasks.claim_tasks(StageRef(job_id, 1, 1), chunk, lease=Lease(lease, "bench"))
    start = time.perf_counter()
    for lease, chunk in zip(leases, batches, strict=True):
        stages.complete_task_and_check_stage(
            StageRef(job_id, 1, 1), lease_id=lease, results={key: {"ok": True} for key in chunk}
        )
    return sum(map(len, batches)) / (time.perf_counter() - start), count / planning


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalPostgres(Path(folder) / "data", keep=False) as url,
        create_pool(url) as pool,
    ):
        JobRepository(pool)._ensure_schema_exists()  # noqa: SLF001 - what the deployer will call
        completions_per_second(pool, 500, 1, 500)
        base = None
        for count, batch in itertools.product((1_000, 10_000), (1, 100)):
            rates = sorted(completions_per_second(pool, count, batch, 500) for _ in range(3))
            completed, planned = rates[1]
            base = base or completed
            print(
                f"stage of {count:>6}, {batch:>3} a call: {completed:>8,.0f} completions/s "
                f"({completed / base:.1f} x the first row); planned at {planned:,.0f} tasks/s"
            )


if __name__ == "__main__":
    main()
