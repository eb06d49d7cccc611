"""What a plain task queue leaves to its user: results, and a counter that tells who was the last."""

import time
from uuid import uuid4

import psycopg

from bench.workload import POLL_SECONDS, WrongOutcome, check_fan

# 32 counters per job, since a counter's row is locked until its transaction is committed: with a single one, the tasks
# of a job would commit one after another.
SCHEMA = """
create table bench_jobs (job text primary key, todo integer, outcome jsonb);
create table bench_parts (job text, part integer, todo integer, primary key (job, part));
create table bench_results (job text, index integer, result jsonb, primary key (job, index));

-- Splits a job's counter; `bench_jobs.todo` counts the parts that are not done.
create function bench_expect(p_job text, p_n integer) returns void language sql as $$
  insert into bench_parts
    select p_job, part, (p_n - 1 - part) / 32 + 1 from generate_series(0, least(p_n, 32) - 1) part;
  update bench_jobs set todo = least(p_n, 32) where job = p_job;
$$;

-- Keeps a result and counts down, in one transaction; true for the last one of the job.
-- Only the last one of a part locks the job's row, and waits there for those of other parts.
create function bench_done(p_job text, p_index integer, p_result jsonb) returns boolean language plpgsql as $$
declare
  v_todo integer;
begin
  insert into bench_results values (p_job, p_index, p_result);
  update bench_parts set todo = todo - 1 where job = p_job and part = p_index % 32
    returning todo into strict v_todo;
  if v_todo = 0 then
    update bench_jobs set todo = todo - 1 where job = p_job returning todo into strict v_todo;
    return v_todo = 0;
  end if;
  return false;
end $$;
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
