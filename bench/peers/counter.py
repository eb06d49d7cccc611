"""What a plain task queue leaves to its user: results, and a counter that tells who was the last."""

import time
from uuid import uuid4

import psycopg

from bench.workload import POLL_SECONDS, WrongOutcome, check_fan

SCHEMA = """
create table bench_jobs (job text primary key, todo integer, outcome jsonb);
create table bench_results (job text, index integer, result jsonb, primary key (job, index));

-- Keeps a result and counts down, in one transaction; what is left.
create function bench_done(p_job text, p_index integer, p_result jsonb) returns integer language sql as $$
  insert into bench_results values (p_job, p_index, p_result);
  update bench_jobs set todo = todo - 1 where job = p_job returning todo;
$$;
"""
RESULTS = "select result from bench_results where job = $1 order by index"


class CounterJobs:
    """Submits nothing itself: makes job rows, and sees their end."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)

    def create_schema(self) -> None:
        self._connection.execute(SCHEMA)

    def start(self, count: int) -> list[str]:
        jobs = [uuid4().hex for _ in range(count)]
        self._connection.execute("insert into bench_jobs (job) select unnest(%s::text[])", (jobs,))
        return jobs

    def wait(self, jobs: list[str], n: int | None = None) -> None:
        """Until all have an outcome.

        Args:
            n: They are fan jobs, and their outcome is checked.
        """
        query = "select job, outcome from bench_jobs where job = any (%s) and outcome is not null"
        waiting = set(jobs)
        while True:
            for job, outcome in self._connection.execute(query, (list(waiting),)).fetchall():
                waiting.discard(job)
                if n is not None:
                    check_fan(outcome, n)
                elif outcome != {}:
                    raise WrongOutcome(f"expected an empty outcome, found {outcome}")
            if not waiting:
                return
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        self._connection.close()
