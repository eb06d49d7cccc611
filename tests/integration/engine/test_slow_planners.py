"""Planners whose author's code takes long to make many tasks: what they hold meanwhile, and what ends them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import scalar_row

from core.advancing import stage_planner
from core.authors import author_code
from core.models import TaskDefinition
from infrastructure.postgresql import create_pool
from tests.databases import Engine

from .machine_suite import Behaviours, Rig, ShapesJob, build_registry

MANY = 150
OPEN = (
    "select count(*) as n from pg_stat_activity where datname = current_database() and state not in ('idle', 'active')"
)


@pytest.fixture
def slow(engine):
    """A rig whose second stage has many tasks; `act` is called with the number of each."""

    def made(act, engine=engine):
        class Slow(ShapesJob):
            @staticmethod
            def create_tasks_for_stage(stage, job_params, job_id, previous_results):
                if stage == 1:
                    yield TaskDefinition()
                    return
                for number in range(MANY):
                    act(number)
                    yield TaskDefinition(name=f"n{number}", parameters={"number": number})

        return Rig(engine, registry=build_registry(Behaviours(), Slow))

    return made


def plan_second_stage(rig):
    """Until the tasks of stage 2 are announced, or their planner has failed."""
    assert rig.queues.deliver(rig.machine)  # plans and announces stage 1
    return rig.queues.deliver(rig.machine)  # its task, and with it the planning of stage 2


def test_a_slow_planner_of_many_tasks_holds_no_connection(slow, engine):
    """From the 101st task on, it held one for as long as its author's code took: four of them were the whole pool."""
    seen = []

    def act(number):
        if number in {0, MANY - 1}:
            # All connections of the pool but the one that looks.
            stats = engine.pool.get_stats()
            seen.append((stats["pool_size"] - stats["pool_available"], engine.query(OPEN)[0]["n"]))

    rig = slow(act)
    job_id = rig.submit()
    plan_second_stage(rig)
    assert seen == [(0, 0), (0, 0)]
    assert len(rig.tasks(job_id, 2)) == MANY


def test_of_planners_that_stream_one_writes_at_a_time(slow, engine, monkeypatch):
    monkeypatch.setattr(stage_planner, "COLLECTED_BYTES", 0)
    monkeypatch.setattr(author_code, "READ_SECONDS", 0)
    lock, streams, most = threading.Lock(), [], []
    both = threading.Barrier(2)

    def act(number):
        if number == stage_planner.FEW_TASKS:
            both.wait(60)  # what is few was made by both; neither has written
        elif number == stage_planner.FEW_TASKS + 1:
            with lock:
                streams.append(threading.get_ident())
                most.append(len(streams))
        elif number == MANY - 1:
            with lock:
                streams.remove(threading.get_ident())

    rig = slow(act)
    jobs = [rig.submit(), rig.submit()]
    for _ in jobs:
        assert rig.queues.deliver(rig.machine)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: rig.queues.deliver(rig.machine), jobs))
    assert most == [1, 1]
    assert [len(rig.tasks(job_id, 2)) for job_id in jobs] == [MANY, MANY]


@pytest.mark.parametrize("is_stream", [False, True])
def test_no_timeout_of_the_server_ends_a_planner_that_streams(slow, database_url, monkeypatch, is_stream):
    """A `statement_timeout` cancelled the COPY each time, and the job was planned for ever."""
    seen = []
    copy = psycopg.Cursor.copy

    def looking_copy(self, *arguments, **options):
        with self.connection.cursor(row_factory=scalar_row) as cursor:
            seen.append(cursor.execute("select current_setting('statement_timeout')").fetchone())
        return copy(self, *arguments, **options)

    if is_stream:
        monkeypatch.setattr(stage_planner, "COLLECTED_BYTES", 0)
    monkeypatch.setattr(psycopg.Cursor, "copy", looking_copy)
    with create_pool(make_conninfo(database_url, options="-c statement_timeout=10min")) as pool:
        rig = slow(lambda _: None, Engine(pool))
        rig.submit()
        plan_second_stage(rig)
        assert seen == ["0" if is_stream else "10min"]
        assert rig.engine.query("show statement_timeout") == [{"statement_timeout": "10min"}]


@pytest.mark.parametrize("most", [0, 10**9], ids=["stream", "collected"])
def test_a_cancelled_write_is_a_failed_attempt_with_its_reason(slow, engine, monkeypatch, most):
    monkeypatch.setattr(stage_planner, "COLLECTED_BYTES", most)
    copy = psycopg.Cursor.copy

    def cancelled_copy(self, *arguments, **options):
        opened = copy(self, *arguments, **options)
        pid = self.connection.info.backend_pid

        class Cancelled:
            def __enter__(self):
                writer = opened.__enter__()
                engine.query("select pg_cancel_backend(%s)", pid)
                return writer

            def __exit__(self, *error):
                return opened.__exit__(*error)

        return Cancelled()

    monkeypatch.setattr(psycopg.Cursor, "copy", cancelled_copy)
    rig = slow(lambda _: None)
    job_id = rig.submit()
    rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert (job.status, job.error["type"], job.error["attempt"]) == ("failed", "PlanningCancelled", 3)
    assert "canceling statement due to user request; raise statement_timeout" in job.error["message"]
    assert rig.tasks(job_id, 2) == []
