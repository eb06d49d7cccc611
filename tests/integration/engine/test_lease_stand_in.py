"""Leases that are renewed by their owner's name: the function, and the process that calls it, on a real database."""

import ctypes
import os
import subprocess
import sys
from uuid import uuid4

import psutil
import pytest

from core.models import Lease, StageRef
from core.models.lease import HeldTask
from core.running.leases import LeaseKeeper
from infrastructure import stand_in, stand_in_process
from infrastructure.settings import load_settings
from infrastructure.stand_in import LeaseStandIn
from tests.acceptance.steps import stand_ins_of, wait_until

from .machine_suite import Rig

LEASE_SECONDS = 60
OWNER, OTHER = "app:host:1:aa", "app:host:1:bb"
NO_BROKER = "Endpoint=sb://localhost:1;SharedAccessKeyName=n;SharedAccessKey=a2V5"


def claim(engine, job_id, *task_ids, owner=OWNER):
    lease_id = uuid4()
    engine.tasks.claim_tasks(StageRef(job_id, 1, 1), task_ids, lease=Lease(lease_id, owner))
    return lease_id


def planned(engine, count=3, **settings):
    job_id = engine.submit(stages=1, lease_seconds=LEASE_SECONDS, **settings)
    engine.plan(job_id, 1, count)
    return job_id


def outcomes(engine, owner=OWNER):
    return {(row.job_id, row.task_id): row.outcome for row in engine.tasks.renew_leases_of_owner(owner)}


def expiries(engine, job_id):
    rows = engine.query("select task_id, lease_expires_at from app.tasks where job_id = %s", job_id)
    return {row["task_id"]: row["lease_expires_at"] for row in rows}


class TestRenewalByOwner:
    def test_all_of_the_owner_are_renewed_and_nothing_else(self, engine):
        first, second = planned(engine), planned(engine)
        claim(engine, first, "s1-00000")
        claim(engine, first, "s1-00001")
        claim(engine, second, "s1-00000")
        claim(engine, first, "s1-00002", owner=OTHER)
        before = expiries(engine, first)
        assert outcomes(engine) == {
            (first, "s1-00000"): "renewed",
            (first, "s1-00001"): "renewed",
            (second, "s1-00000"): "renewed",
        }
        after = expiries(engine, first)
        assert [after[task] > before[task] for task in sorted(after)] == [True, True, False]

    def test_how_long_the_leases_last_is_told_as_it_is_now(self, at):
        job_id = planned(at(0))
        claim(at(0), job_id, "s1-00000")
        (row,) = at(50).tasks.renew_leases_of_owner(OWNER)
        assert row.seconds_left == LEASE_SECONDS

    def test_lease_that_ran_out_and_that_nobody_took_back_is_renewed(self, at):
        """As the heartbeat does when the database was away for longer than the lease."""
        job_id = planned(at(0))
        lease_id = claim(at(0), job_id, "s1-00000")
        assert outcomes(at(300)) == {(job_id, "s1-00000"): "renewed"}
        (expired,) = at(301).query("select count(*) from app.find_expired_stages(10)")
        assert expired["count"] == 0
        assert at(301).task(job_id, "s1-00000")["lease_id"] == lease_id

    def test_time_of_a_task_is_noted_and_its_lease_runs_out(self, at):
        job_id = planned(at(0), task_timeout_seconds=70)
        claim(at(0), job_id, "s1-00000")
        assert outcomes(at(50)) == {(job_id, "s1-00000"): "renewed"}
        (row,) = at(71).tasks.renew_leases_of_owner(OWNER)
        assert (row.outcome, row.seconds_left) == ("timed_out", 50 + LEASE_SECONDS - 71)
        assert at(71).task(job_id, "s1-00000")["timed_out_at"] is not None

    def test_what_ended_or_was_released_is_left_alone(self, engine):
        rig = Rig(engine)
        job_id = planned(engine)
        lease_id = claim(engine, job_id, "s1-00000", "s1-00001", "s1-00002")
        engine.stages.complete_task_and_check_stage(StageRef(job_id, 1, 1), lease_id=lease_id, results={"s1-00000": {}})
        engine.tasks.release_tasks(StageRef(job_id, 1, 1), lease_id=lease_id, task_ids=["s1-00001"], started=True)
        assert outcomes(engine) == {(job_id, "s1-00002"): "renewed"}
        rig.machine.cancel_job(job_id, None)
        assert outcomes(engine) == {(job_id, "s1-00002"): "stop"}
        rig.machine.cancel_job(job_id, None, grace_seconds=0)
        assert outcomes(engine) == {}

    def test_nobody_is_called_that(self, engine):
        assert outcomes(engine) == {}


@pytest.fixture
def stand_ins(database_url, monkeypatch):
    """Makes stand-ins for this very process."""
    monkeypatch.setattr(stand_in, "_RESTART_SECONDS", 0.0)
    made = []

    def make(owner=OWNER, **settings):
        environment = {"COREMACHINE_DATABASE_URL": database_url, "ServiceBusConnection": NO_BROKER, **settings}
        made.append(LeaseStandIn(load_settings(environment), owner))
        return made[-1]

    yield make
    for one in made:
        one.close()


def processes():
    return stand_ins_of(psutil.Process())


# Opens the pipe when the lease of the task is another than it was: argv has the database, the pipe, what it was.
OPENS_WHEN_RENEWED = """
import os, sys, time, psycopg
database, pipe, before = sys.argv[1:]
with psycopg.connect(database, autocommit=True) as connection:
    for _ in range(3000):
        [now] = connection.execute("select lease_expires_at::text from app.tasks where lease_id is not null").fetchone()
        if now != before:
            break
        time.sleep(0.02)
    [names] = connection.execute("select array_agg(application_name) from pg_stat_activity").fetchone()
os.close(os.open(pipe, os.O_WRONLY))
sys.exit(0 if now != before and "coremachine-lease-stand-in" in names else 1)
"""


def test_leases_are_renewed_while_this_interpreter_is_blocked(engine, database_url, stand_ins, tmp_path):
    """Really blocked: a call in C that keeps the GIL, until another process has seen the lease renewed."""
    job_id = planned(engine, 1)
    keeper = LeaseKeeper(engine.tasks, stand_ins())
    lease_id = claim(engine, job_id, "s1-00000")
    (before,) = engine.query("select lease_expires_at::text as at from app.tasks")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = [HeldTask(job_id, 1, "s1-00000", lease_id, LEASE_SECONDS)]
    keeper.hold(held)
    opener = subprocess.Popen([sys.executable, "-c", OPENS_WHEN_RENEWED, database_url, str(pipe), before["at"]])
    os.close(ctypes.PyDLL(None).open(str(pipe).encode(), os.O_RDONLY))
    assert opener.wait(60) == 0
    keeper.drop(held)
    keeper.close()


def test_stand_in_that_dies_is_replaced(stand_ins):
    stand_ins().watch(LEASE_SECONDS)
    (first,) = wait_until(processes, "a stand-in")  # a new process has no command line for a moment
    first.kill()
    (second,) = wait_until(lambda: [one for one in processes() if one.pid != first.pid], "another stand-in")
    assert second.is_running()


def test_drained_machine_has_none(engine, stand_ins):
    rig = Rig(engine)
    rig.machine._keeper._stand_in = stand_ins()
    rig.run(n=1)
    assert len(wait_until(processes, "a stand-in")) == 1
    rig.machine.drain()
    assert processes() == []
    rig.machine._keeper._stand_in.watch(LEASE_SECONDS)
    assert processes() == []


def test_short_lease_makes_it_ready(stand_ins):
    """A lease of five seconds leaves no time to import what takes half a second, or more on a busy machine."""
    one = stand_ins()
    one.watch(LEASE_SECONDS)
    (process,) = wait_until(processes, "a stand-in")
    one.watch(5.0)
    wait_until(lambda: any("psycopg" in part.path for part in process.memory_maps()), "what it needs to be loaded")


def test_setting_of_zero_means_none(stand_ins):
    stand_ins(COREMACHINE_LEASE_STAND_IN_SECONDS="0").watch(LEASE_SECONDS)
    assert processes() == []


def test_stand_in_that_cannot_start_costs_no_task(stand_ins, monkeypatch, caplog):
    monkeypatch.setattr(stand_in.sys, "executable", "/nowhere/python")
    stand_ins().watch(LEASE_SECONDS)
    assert "lease_stand_in_not_started" in caplog.text


def test_it_is_small_as_long_as_it_is_not_needed():
    slow = "('psycopg', 'pydantic', 'azure', 'psycopg_pool')"
    script = f"import sys, {stand_in_process.__name__}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
