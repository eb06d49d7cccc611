"""What must hold when all is over: looked up in the rows, the events and the effects table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from infrastructure.postgresql import create_pool
from infrastructure.verify import verify
from tests.chaos.jobs import TolerantChaosJob


@dataclass(frozen=True)
class SubmittedJob:
    """A job of the run, with what it was asked for."""

    job_id: str
    job_type: str
    n: int
    fail_every: int

    @property
    def expected_status(self) -> str:
        if not self.fail_every:
            return "completed"
        return "completed_with_errors" if self.job_type == TolerantChaosJob.job_type else "failed"

    @property
    def expected_result(self) -> dict[str, int] | None:
        """What its last stage adds up; None for a job that fails."""
        if self.expected_status == "failed":
            return None
        kept = [index for index in range(self.n) if not self.fail_every or index % self.fail_every]
        return {"count": len(kept), "total": sum(kept)}


# Each returns rows that break what its key says.
_STATEMENTS = {
    # The end of a failed stage is its job's, and has no event of its own.
    "each stage of each run is planned once and ends once": """
        select * from (
          select s.job_id, s.run, s.stage, s.status, count(*) filter (where e.event = 'stage_planned') plans,
            count(*) filter (where e.event in ('stage_completed', 'stage_completed_with_errors')) ends
          from app.stages s left join app.job_events e
            on e.job_id = s.job_id and e.run = s.run and e.stage = s.stage and e.task_id is null
          group by s.job_id, s.run, s.stage, s.status
        ) counted where plans <> 1 or ends <> case status when 'failed' then 0 else 1 end
    """,
    "each job ends once": """
        select * from (
          select j.job_id, j.status, count(e.event) ends from app.jobs j left join app.job_events e
            on e.job_id = j.job_id and e.event in ('job_completed', 'job_completed_with_errors', 'job_failed')
          group by j.job_id, j.status
        ) counted where ends <> 1
    """,
    "each completed task has a result, and each stage has all of its tasks": """
        select s.job_id, s.stage, s.expected_count, count(t.task_id) tasks,
          count(*) filter (where t.status = 'completed' and t.result is null) without_result
        from app.stages s left join app.tasks t using (job_id, run, stage)
        group by s.job_id, s.run, s.stage, s.expected_count
        having s.expected_count is distinct from count(t.task_id)
          or count(*) filter (where t.status = 'completed' and t.result is null) > 0
    """,
    "an accepted result is of the attempt that was the task's last, by its own effect": """
        select t.job_id, t.task_id, t.attempt, t.result ->> 'attempt' accepted, last.attempt last_attempt,
          t.result ->> 'lease_id' accepted_lease, last.lease_id last_lease
        from app.tasks t left join lateral (
          select e.attempt, e.lease_id from chaos.effects e where e.job_id = t.job_id and e.task_id = t.task_id
          order by e.attempt desc, e.effect_id desc limit 1
        ) last on true
        where t.status = 'completed' and (last.lease_id::text is distinct from t.result ->> 'lease_id'
          or (t.result ->> 'attempt')::integer is distinct from t.attempt)
    """,
    "no two attempts have the same lease": """
        select job_id, task_id, lease_id, count(*) from chaos.effects
        group by job_id, task_id, lease_id having count(*) > 1
    """,
}


def find_violations(database_url: str, jobs: list[SubmittedJob]) -> list[str]:
    """A sentence for each thing that is wrong; empty when all is well."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.execute("create index if not exists effects_by_task on chaos.effects (job_id, task_id)")
        found = list(_outcomes(connection, jobs))
        for rule, statement in _STATEMENTS.items():
            rows = connection.execute(statement).fetchall()
            found += [f"{rule}: {_plain(row)}" for row in rows[:5]]
            found += [f"{rule}: and {len(rows) - 5} more"] if len(rows) > 5 else []
    with create_pool(database_url, max_size=1) as pool:
        for violation in verify(pool):
            found.append(f"{violation.invariant}: {violation.proves}: {[_plain(row) for row in violation.rows[:5]]}")
    return found


def find_hanging(database_url: str) -> list[str]:
    """Where each job that has not ended stands, and which of its tasks are open."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        jobs = connection.execute(
            "select job_id, job_type, status, run, stage, attempt, due_at, announced_at, updated_at, error "
            "from app.jobs where finished_at is null order by created_at"
        ).fetchall()
        told = [f"job {_plain(job)}" for job in jobs]
        tasks = connection.execute(
            "select t.job_id, t.stage, t.status, count(*), min(t.task_id) example, max(t.attempt) attempt, "
            "max(t.interruptions) interruptions, bool_or(t.is_watched) watched, "
            "min(t.lease_expires_at) lease_expires_at, min(t.lease_owner) lease_owner, "
            "min(t.due_at) due_at, min(t.announced_at) announced_at "
            "from app.tasks t join app.jobs j using (job_id, run) where j.finished_at is null "
            "and t.status in ('pending', 'queued', 'processing', 'pending_retry') group by 1, 2, 3 limit 50"
        ).fetchall()
    return told + [f"tasks {_plain(row)}" for row in tasks]


def _outcomes(connection: "psycopg.Connection[dict[str, Any]]", jobs: list[SubmittedJob]) -> Iterator[str]:
    rows = {row["job_id"]: row for row in connection.execute("select * from app.jobs").fetchall()}
    for job in jobs:
        row = rows.pop(job.job_id, None)
        if row is None:
            yield f"job {job.job_id}: expected its row, found none"
        elif (row["status"], row["result"]) != (job.expected_status, job.expected_result):
            yield (
                f"job {job.job_id} ({job.job_type}, n={job.n}, fail_every={job.fail_every}): expected "
                f"{job.expected_status} with {job.expected_result}, found {row['status']} with {row['result']} "
                f"and error {row['error']}"
            )
        elif row["run"] != 1:
            yield f"job {job.job_id}: expected run 1, found {row['run']}"
    for job_id in rows:
        yield f"job {job_id}: expected no other jobs, found it"


def _plain(row: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in row.items() if value is not None}


def shares(total: int, jobs: int) -> list[int]:
    """So many tasks for each of the jobs: three stages, two of them with one task."""
    each, rest = divmod(max(total, 3 * jobs), jobs)
    return [each + (place < rest) - 2 for place in range(jobs)]
