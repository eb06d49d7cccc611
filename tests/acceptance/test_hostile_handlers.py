"""Handlers that block their interpreter for long, and handlers that fork: what others notice of it."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from coremachine.local.host.supervisor import HostSupervisor
from tests.acceptance.hosts import EVERY_SECOND, StartHost, beginnings, client, starting_hosts
from tests.acceptance.steps import has_ended, stand_ins_of, submit, wait_for_end, wait_until
from tests.databases import Engine

pytestmark = [
    pytest.mark.acceptance,
    # The SDK leaves sockets of a broker that is gone to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator["Gate"]:
    made = Gate(tmp_path)
    yield made
    made.open()


class Gate:
    """What the blocking task and its neighbours wait for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.mkfifo(folder / "gate")

    def open(self) -> None:
        (self.folder / "open").touch()
        with suppress(OSError):  # nobody waits for it
            os.close(os.open(self.folder / "gate", os.O_WRONLY | os.O_NONBLOCK))


def log_of(folder: Path) -> str:
    return (folder / "host.log").read_text()


def block_one_worker(host: HostSupervisor, folder: Path, job_type: str) -> tuple[str, int]:
    """Submit the job, and wait until its process has been silent for a while: the job, and the process."""
    with client(host) as http:
        job_id = submit(http, job_type, folder=str(folder))
    (pid,) = {beginning["pid"] for beginning in beginnings(folder, 4)}
    wait_until(lambda: "lease_stand_in" in log_of(folder), "the stand-in to notice", 60)
    return job_id, pid


def test_blocked_interpreter_costs_no_lease_no_request_and_no_sweep(
    start_host: StartHost, engine: Engine, tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")  # at which a new worker's silence is reported
    host = start_host(workers=2, COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    job_id, blocked = block_one_worker(host, tmp_path, "blocked")
    # One of as many would wait for the blocked worker if that accepted a single one.
    for _ in range(50):
        assert httpx.get(f"{host.url}/api/livez", timeout=30).status_code == 200
    outlived = (
        "select task_id from app.tasks where status = 'processing' and lease_expires_at > started_at"
        " + interval '13 seconds'"
    )
    wait_until(lambda: len(engine.query(outlived)) == 4, "leases that outlive themselves", 60)
    # Whoever fired the timers before, somebody does so now.
    wait_until(lambda: "worker_blocked" in caplog.text, "the host to notice", 60)
    sweeps = log_of(tmp_path).count("sweep_ended")
    wait_until(lambda: log_of(tmp_path).count("sweep_ended") > sweeps + 1, "further sweeps", 60)
    gate.open()
    with client(host) as http:
        job = wait_for_end(http, job_id)
    assert (job["status"], job["result"]) == ("completed", {"pids": [blocked]})
    rows = engine.query("select attempt, interruptions from app.tasks")
    assert rows == [{"attempt": 1, "interruptions": 0}] * 4
    wait_until(lambda: "lease_stand_in_over" in log_of(tmp_path), "the stand-in to rest")
    connected = "select 1 from pg_stat_activity where application_name = 'coremachine-lease-stand-in'"
    wait_until(lambda: not engine.query(connected), "the stand-in to give its connection back")
    wait_until(lambda: "worker_at_work_again" in caplog.text, "the host to hear from its worker")
    assert blocked in host.worker_pids


def test_time_of_a_task_ends_while_its_interpreter_is_blocked(
    start_host: StartHost, engine: Engine, tmp_path: Path, gate: Gate
) -> None:
    """A stand-in that renewed for ever would take the timeout's meaning away."""
    host = start_host(workers=2, COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    job_id, _ = block_one_worker(host, tmp_path, "timed_blocked")
    ended = "select status from app.jobs where job_id = %s and finished_at is not null"
    assert wait_until(lambda: engine.query(ended, job_id), "the job's end", 90) == [{"status": "failed"}]
    assert not (tmp_path / "open").exists()
    errors = {row["type"] for row in engine.query("select error ->> 'type' as type from app.tasks")}
    assert errors == {"TaskTimedOut"}
    assert "outcome=timed_out" in log_of(tmp_path)


def test_killed_worker_takes_its_stand_in_with_it(
    start_host: StartHost, engine: Engine, tmp_path: Path, gate: Gate
) -> None:
    """Blocked, with a stand-in at work: the leases run out as if there had been none."""
    host = start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    job_id, blocked = block_one_worker(host, tmp_path, "blocked")
    (stand_in,) = stand_ins_of(psutil.Process(blocked))
    os.kill(blocked, signal.SIGKILL)
    wait_until(lambda: has_ended(stand_in), "the stand-in's end")
    ended = "select status from app.jobs where job_id = %s and finished_at is not null"
    assert wait_until(lambda: engine.query(ended, job_id), "the job's end", 90) == [{"status": "failed"}]
    errors = {row["type"] for row in engine.query("select error ->> 'type' as type from app.tasks")}
    assert errors == {"InterruptedTooOften"}


def test_stopped_process_is_not_stood_in_for(start_host: StartHost, engine: Engine, tmp_path: Path, gate: Gate) -> None:
    """It does not work, whatever it holds: others must have its tasks."""
    host = start_host(workers=2, COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    job_id, blocked = block_one_worker(host, tmp_path, "blocked")
    os.kill(blocked, signal.SIGSTOP)
    try:
        ended = "select status from app.jobs where job_id = %s and finished_at is not null"
        assert wait_until(lambda: engine.query(ended, job_id), "the job's end", 90) == [{"status": "failed"}]
    finally:
        os.kill(blocked, signal.SIGCONT)


def test_stopped_process_keeps_messages_for_two_locks_at_most(database_url: str, tmp_path: Path) -> None:
    """Those that the broker had sent it: up to `maxConcurrentCalls` per queue. A small job has two messages."""
    lock_seconds, jobs = 5.0, 12
    with starting_hosts(database_url, tmp_path, lock_seconds) as start:
        host = start(workers=2, COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
        stopped = host.worker_pids[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with client(host) as http:
                ids = [submit(http, "hello_world", n=1, message=f"greeting {number}") for number in range(jobs)]
                assert {wait_for_end(http, job_id)["status"] for job_id in ids} == {"completed"}
            assert time.monotonic() - began < 2 * lock_seconds + 10
            assert httpx.get(f"{host.url}/api/livez", timeout=10).status_code == 200
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_stopped_host_leaves_no_stand_in(start_host: StartHost, tmp_path: Path, gate: Gate) -> None:
    host = start_host(workers=2)
    _, blocked = block_one_worker(host, tmp_path, "blocked")
    (stand_in,) = stand_ins_of(psutil.Process(blocked))
    gate.open()
    host.stop()
    wait_until(lambda: has_ended(stand_in), "the stand-in's end")


WAYS = {
    "terminate": -signal.SIGTERM,
    "pool": 3,
    "sys_exit": 3,
    "os_exit": 7,
    "error": 1,
    "returns": 0,
    "kill": -signal.SIGTERM,
    "subprocess": 5,
}


def test_no_way_to_fork_ends_or_doubles_the_worker(start_host: StartHost, engine: Engine, tmp_path: Path) -> None:
    """A child's SIGTERM reached the worker through asyncio's wakeup descriptor, which it had inherited: it drained."""
    host = start_host()
    pids = host.worker_pids
    with client(host) as http:
        job_id = submit(http, "forking", folder=str(tmp_path), ways=list(WAYS))
        job = wait_for_end(http, job_id)
        again = submit(http, "forking", folder=str(tmp_path), ways=["subprocess"])
        assert wait_for_end(http, again)["status"] == "completed"
    assert (job["status"], job["result"]) == ("completed", WAYS)
    assert host.worker_pids == pids
    assert {beginning["pid"] for beginning in beginnings(tmp_path, len(WAYS) + 1)} == set(pids)
    assert {row["attempt"] for row in engine.query("select attempt from app.tasks")} == {1}
    log = log_of(tmp_path)
    assert log.count("forked_child_left_handler") == len(["sys_exit", "error", "returns"])
    for told in ("worker_stopping", "drained", "stale_lease_refused", "invocation_failed"):
        assert told not in log


def test_children_of_planner_finalizer_and_validator_end_there(
    start_host: StartHost, engine: Engine, tmp_path: Path
) -> None:
    host = start_host()
    with client(host) as http:
        job = wait_for_end(http, submit(http, "forking_author", folder=str(tmp_path)))
    assert (job["status"], job["result"]) == ("completed", {"ended": 0})
    assert len(engine.query("select 1 from app.tasks")) == 1
    assert log_of(tmp_path).count("forked_child_left_handler") >= len(["validator", "planner", "finalizer"])


def test_orphan_of_a_killed_worker_holds_nothing_of_it(start_host: StartHost, tmp_path: Path) -> None:
    """It had the worker's channel, so the host waited for a worker that was dead, and the listener, so that the port
    was taken when the host had ended."""
    host = start_host()
    with client(host) as http:
        wait_for_end(http, submit(http, "forking", folder=str(tmp_path), ways=["orphan"]))
    orphan = psutil.Process(int((tmp_path / "orphan").read_text()))
    try:
        (killed,) = host.worker_pids
        (stand_in,) = stand_ins_of(psutil.Process(killed))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: has_ended(stand_in), "the stand-in's end")
        wait_until(lambda: host.worker_pids and host.worker_pids != [killed], "a new worker")
        host.wait_ready(60)
        host.stop()
        socket.create_server(("127.0.0.1", host.port)).close()
        assert orphan.is_running()
    finally:
        orphan.kill()


def test_worker_that_a_handler_broke_is_replaced(start_host: StartHost, engine: Engine, tmp_path: Path) -> None:
    """All that came to it failed from then on: messages, requests and sweeps, so that nothing took the task back."""
    host = start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    with client(host) as http:
        job_id = submit(http, "breaking")
    ended = "select error ->> 'message' as message from app.jobs where job_id = %s and finished_at is not null"
    (job,) = wait_until(lambda: engine.query(ended, job_id), "the job's end", 120)
    lost = "its process died, or lost the database, 2 times without an outcome, and once it ran alone there"
    assert lost in job["message"]
    assert log_of(tmp_path).count("process_broken") == 2
    assert "threading.Lock (None)" in log_of(tmp_path)
    host.wait_ready(60)
    with client(host) as http:
        assert wait_for_end(http, submit(http, "hello_world", n=3))["status"] == "completed"


@pytest.mark.parametrize("way", ["len", "descriptors"])
def test_worker_that_a_handler_broke_for_its_host_is_replaced(
    start_host: StartHost, engine: Engine, tmp_path: Path, way: str
) -> None:
    """Each message was unreadable there, or each task failed; healthy messages became dead letters."""
    host = start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)
    broken = host.worker_pids
    with client(host) as http:
        submit(http, "breaking", way=way)
        # The broken worker may give no answer, or an empty one.
        with suppress(httpx.HTTPError, AssertionError, ValueError):
            submit(http, "hello_world", n=3)
    wait_until(lambda: host.worker_pids not in ([], broken), "a new worker", 60)
    wait_until(lambda: "worker_broken" in log_of(tmp_path) or "process_broken" in log_of(tmp_path), "the reason")
    wait_until(lambda: not engine.query("select 1 from app.jobs where finished_at is null"), "the jobs' ends", 120)
    host.wait_ready(60)
    with client(host) as http:
        assert wait_for_end(http, submit(http, "hello_world", n=4))["status"] == "completed"
    assert engine.query("select 1 from app.jobs where job_type = 'hello_world' and status <> 'completed'") == []
    assert engine.query("select 1 from app.dead_letters") == []
