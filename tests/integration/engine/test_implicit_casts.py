"""A database in which somebody made casts to text implicit, as people do who come from another one."""

import psycopg

from core.models import JobRef
from infrastructure.dashboard import DashboardQueries
from infrastructure.queries import JobQueries
from infrastructure.results import ResultRepository
from infrastructure.verify import verify

from .conftest import Engine
from .machine_suite import Rig

CASTS = ("integer", "bigint", "double precision", "timestamptz", "jsonb", "uuid")


def test_they_change_no_answer(database_url, pool):
    """`text || integer` is not unique then: no task could be claimed, and no stage planned."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for source in CASTS:
            connection.execute(f"create cast ({source} as text) with inout as implicit")
    rig = Rig(Engine(pool))
    job_id = rig.run(n=3, bad=[1])
    assert rig.job(job_id).result == {"total": 4, "failed": 1}
    assert verify(pool) == []
    assert JobQueries(pool).get_job_detail(job_id).job.status == "completed_with_errors"
    assert JobQueries(pool).list_runs(job_id)
    assert DashboardQueries(pool).list_unusual(JobRef(job_id, 1), 10)
    assert DashboardQueries(pool).list_bars(JobRef(job_id, 1), 10)
    assert JobQueries(pool).list_tasks(job_id).items
    assert JobQueries(pool).list_events(job_id).items
    assert ResultRepository(pool).mean_task_seconds("shapes", 2) is not None
