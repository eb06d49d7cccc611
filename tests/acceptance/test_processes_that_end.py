"""Hosts that stop in the middle of a task, tasks that kill their process, processes that die where they are told to."""

import threading
from pathlib import Path

import httpx
import psutil
import pytest

from infrastructure.verify import verify
from tests.acceptance.hosts import EVERY_SECOND, StartHost, beginnings, client
from tests.acceptance.steps import submit, wait_for_end, wait_until
from tests.databases import Engine

pytestmark = [
    pytest.mark.acceptance,
    # The SDK leaves sockets of a broker that is gone to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize("heeds_stop", [True, False], ids=["handler_stops", "handler_is_deaf"])
def test_task_of_a_host_that_stops_is_at_once_another_hosts(
    start_host: StartHost, engine: Engine, tmp_path: Path, *, heeds_stop: bool
) -> None:
    """No sweep, and a lease of ten minutes: only the host's farewell can bring the task to the other one."""
    leaving = start_host()
    with client(leaving) as http:
        job_id = submit(http, "long", folder=str(tmp_path), heeds_stop=heeds_stop)
    (first,) = beginnings(tmp_path, 1)
    staying = start_host()
    stopping = threading.Thread(target=leaving.stop)
    stopping.start()
    second = beginnings(tmp_path, 2)[1]
    assert [first["pid"], second["pid"]] == [first["pid"], *staying.worker_pids]
    assert second["attempt"] == 2
    stopping.join()
    (tmp_path / "open").touch()
    with client(staying) as http:
        job = wait_for_end(http, job_id)
    assert (job["status"], job["result"]) == ("completed", {"pid": second["pid"], "attempt": 2})
    (task,) = engine.query("select attempt, interruptions, error from app.tasks where job_id = %s", job_id)
    assert task == {"attempt": 2, "interruptions": 1, "error": None}
    assert "tasks_released" in {row["event"] for row in engine.query("select event from app.job_events")}


def test_an_isolated_attempt_of_a_host_that_stops_ends_before_another_hosts_begins_to_count(
    start_host: StartHost, engine: Engine, tmp_path: Path
) -> None:
    """Its process looks at no signal and at no context: it is given back, it ends, and nothing is done twice."""
    leaving = start_host()
    with client(leaving) as http:
        job_id = submit(http, "isolated", folder=str(tmp_path))
    (first,) = beginnings(tmp_path, 1)
    staying = start_host()
    stopping = threading.Thread(target=leaving.stop)
    stopping.start()
    second = beginnings(tmp_path, 2)[1]
    stopping.join()
    wait_until(lambda: not psutil.pid_exists(first["pid"]), "the first attempt's process to end")
    (tmp_path / "open").touch()
    with client(staying) as http:
        job = wait_for_end(http, job_id)
    assert (job["status"], job["result"]) == ("completed", {"pid": second["pid"], "attempt": 2})
    (task,) = engine.query("select attempt, interruptions, error from app.tasks where job_id = %s", job_id)
    assert task == {"attempt": 2, "interruptions": 1, "error": None}
    assert [path.name for path in tmp_path.glob("ended-*")] == ["ended-2"]


def test_task_that_kills_its_process_every_time_fails_with_that_reason(
    start_host: StartHost, engine: Engine, tmp_path: Path
) -> None:
    host = start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND, workers=2)
    with client(host) as http:
        job_id = submit(http, "deadly", folder=str(tmp_path))
    # Not over HTTP: each request hangs on a worker that is about to die.
    finished = "select status from app.jobs where job_id = %s and finished_at is not null"
    assert wait_until(lambda: engine.query(finished, job_id), "the job's end", 120) == [{"status": "failed"}]
    (task,) = engine.query("select status, attempt, interruptions, error from app.tasks where job_id = %s", job_id)
    assert (task["status"], task["attempt"], task["interruptions"]) == ("failed", 2, 2)
    assert task["error"]["type"] == "InterruptedTooOften"
    assert [beginning["attempt"] for beginning in beginnings(tmp_path, 2)] == [1, 2]


def test_task_that_kills_its_process_fails_alone(start_host: StartHost, engine: Engine, tmp_path: Path) -> None:
    """It took fifty neighbours with it each time, until none of them had an interruption left."""
    host = start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND, workers=2)
    with client(host) as http:
        job_id = submit(http, "killer")
    finished = "select status, result from app.jobs where job_id = %s and finished_at is not null"
    (job,) = wait_until(lambda: engine.query(finished, job_id), "the job's end", 240)
    assert job == {"status": "completed_with_errors", "result": {"completed": 50}}
    (killer,) = engine.query("select name, error, interruptions from app.tasks where status = 'failed'")
    assert (killer["name"], killer["interruptions"], killer["error"]["type"]) == ("killer", 4, "InterruptedTooOften")
    lost = "4 times without an outcome, and 2 times it ran alone there, so that nothing else"
    assert lost in killer["error"]["message"]
    innocent = "select max(interruptions) as most from app.tasks where status = 'completed'"
    assert engine.query(innocent) == [{"most": 2}]
    taken_back = [line for line in (tmp_path / "host.log").read_text().splitlines() if "tasks_interrupted" in line]
    assert len(taken_back) == 4
    assert all(killer["name"] in line or "s1-" in line for line in taken_back)
    assert verify(engine.pool) == []


@pytest.mark.parametrize("point", ["submit.written", "task.ran"])
def test_worker_ends_where_it_is_told_to_and_the_next_host_finishes(
    start_host: StartHost, engine: Engine, caplog: pytest.LogCaptureFixture, point: str
) -> None:
    doomed = start_host(COREMACHINE_FAULT=point)
    with client(doomed) as http:
        try:
            submit(http, "hello_world", n=3)
        except httpx.HTTPError:
            assert point == "submit.written"  # it did not live to answer
    wait_until(lambda: "exit_status=137" in caplog.text, "the worker to die")
    doomed.stop()
    with client(start_host(COREMACHINE_SWEEP_SCHEDULE=EVERY_SECOND)) as http:
        (row,) = engine.query("select job_id from app.jobs")
        job = wait_for_end(http, row["job_id"])
    assert (job["status"], job["result"]) == ("completed", {"greetings": 3, "replies": 3})
    assert verify(engine.pool) == []
