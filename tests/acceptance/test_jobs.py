"""Jobs on the whole stack, as users see them: over HTTP and the command line; messages and workers that go wrong."""

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from psycopg.rows import dict_row

from core.models import JobQueueMessage, TaskQueueMessage
from coremachine.local.stack import LocalStack
from tests.acceptance.steps import run_command, submit, wait_for_end, wait_until

pytestmark = pytest.mark.acceptance

JOBS, TASKS = "coremachine-jobs", "coremachine-tasks"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The project's own app on two workers, swept every second."""
    folder = tmp_path_factory.mktemp("jobs") / "stack"
    settings = {"COREMACHINE_SWEEP_SCHEDULE": "* * * * * *"}
    with LocalStack(folder, http_port=0, amqp_port=0, admin_port=0, workers=2, environment=settings) as running:
        yield running


@pytest.fixture(scope="module")
def http(stack: LocalStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{stack.url}/api/", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def database(stack: LocalStack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.info.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def all_tasks(http: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = http.get(f"jobs/{job_id}/tasks", params=query).json()
        tasks += page["value"]
        if "next_cursor" not in page:
            return tasks
        query["cursor"] = page["next_cursor"]


def assert_nothing_is_lost(tasks: list[dict[str, Any]], n: int, message: str) -> None:
    """Each greeting and each reply is there once, with its own result."""
    assert Counter((task["stage"], task["status"]) for task in tasks) == {(1, "completed"): n, (2, "completed"): n}
    assert sorted(task["result"].get("greeting", "") for task in tasks if task["stage"] == 1) == sorted(
        f"{message} #{number}" for number in range(n)
    )
    assert {task["result"]["reply"] for task in tasks if task["stage"] == 2} == {
        f"You said: {message} #{number}" for number in range(n)
    }


def counts(stack: LocalStack, queue: str) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{stack.info.admin_url}/queues").json()[queue]
    return found


def test_greetings_over_the_command_line_come_in_several_pages(
    stack: LocalStack, http: httpx.Client, tmp_path: Path
) -> None:
    done = run_command(
        "submit", "hello_world", "-p", "n=250", "-p", "message=CLI", "--wait", "--url", stack.url, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["result"]) == ("completed", {"greetings": 250, "replies": 250})
    assert_nothing_is_lost(all_tasks(http, job["job_id"]), 250, "CLI")


def stop_worker_at_work(stack: LocalStack, database: psycopg.Connection[dict[str, Any]], job_id: str) -> int | None:
    """The pid of a worker that stands still with tasks of the job in its hands; None if the job ended before."""
    assert stack.host is not None
    held = "select task_id, lease_id from app.tasks where job_id = %s and status = 'processing' and lease_owner like %s"
    while database.execute("select 1 from app.jobs where job_id = %s and finished_at is null", [job_id]).fetchone():
        if not database.execute(
            "select 1 from app.tasks where job_id = %s and status = 'completed' limit 1", [job_id]
        ).fetchone():
            continue
        for pid in stack.host.worker_pids:
            owner = f"%:{pid}:%"
            if not database.execute(held, [job_id, owner]).fetchone():
                continue
            os.kill(pid, signal.SIGSTOP)
            # What it sent before may still be under way in the server.
            seen: list[Any] = [object()]
            while (now := database.execute(held, [job_id, owner]).fetchall()) != seen:
                seen = now
                database.execute("select pg_sleep(0.05)")
            if seen:
                return pid
            os.kill(pid, signal.SIGCONT)
    return None


def test_worker_killed_in_the_middle_loses_nothing(
    stack: LocalStack, http: httpx.Client, database: psycopg.Connection[dict[str, Any]]
) -> None:
    """SIGKILL while it holds leases: they run out, the janitor takes the tasks back, others run them."""
    assert stack.host is not None
    pid = None
    for turn in range(20):
        n, message = 1000 + turn, f"Killed {turn}"
        job_id = submit(http, n=n, message=message)
        pid = stop_worker_at_work(stack, database, job_id)
        if pid is not None:
            break
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # A real broker ends a dead receiver's locks after a minute; here they end as soon as it is gone.
    workers = stack.host
    wait_until(lambda: pid not in workers.worker_pids and len(workers.worker_pids) == 2, "another worker")
    httpx.post(f"{stack.info.admin_url}/faults/expire-locks")

    job = wait_for_end(http, job_id)
    assert (job["status"], job["result"]) == ("completed", {"greetings": n, "replies": n})
    assert_nothing_is_lost(all_tasks(http, job_id), n, message)
    events = database.execute("select event from app.job_events where job_id = %s", [job_id]).fetchall()
    assert "task_interrupted" in {row["event"] for row in events}


@pytest.mark.parametrize(("logical", "queue"), [("jobs", JOBS), ("tasks", TASKS)])
def test_message_that_is_no_json_is_kept_with_its_reason(
    stack: LocalStack, http: httpx.Client, logical: str, queue: str
) -> None:
    """At its first delivery it goes to the database. The app goes on."""
    with (
        ServiceBusClient.from_connection_string(stack.info.service_bus_connection) as client,
        client.get_queue_sender(queue) as sender,
    ):
        sender.send_messages(ServiceBusMessage(b"no JSON at all", message_id=f"bad-{queue}"))
    found = wait_until(
        lambda: {
            item["message_id"]: item for item in http.get("dead-letters", params={"queue": logical}).json()["value"]
        }.get(f"bad-{queue}"),
        "the dead letter",
    )
    assert (found["kind"], found["reason"]) == ("unreadable", "MessageUnreadable")
    assert http.get(f"dead-letters/{found['dead_letter_id']}").json()["body"] == "no JSON at all"
    wait_until(lambda: counts(stack, queue)["dead_letter"] == 0, "the dead-letter queue to be empty")
    log = (stack.data_dir / "logs" / "host.log").read_text()
    assert f"message bad-{queue}: expected a " in log
    assert "body: Invalid JSON" in log

    job = wait_for_end(http, submit(http, n=2, message=f"after {queue}"))
    assert job["status"] == "completed"


def test_messages_of_a_deleted_job_do_nothing(
    stack: LocalStack, http: httpx.Client, database: psycopg.Connection[dict[str, Any]]
) -> None:
    job_id = submit(http, n=1, message="deleted")
    assert wait_for_end(http, job_id)["status"] == "completed"
    (task, *_) = all_tasks(http, job_id)
    for table in ("job_events", "tasks", "stages", "jobs"):
        database.execute(f"delete from app.{table} where job_id = %s", [job_id])  # type: ignore[call-overload]  # noqa: S608
    assert http.get(f"jobs/{job_id}").status_code == 404
    dead = {queue: counts(stack, queue)["dead_letter"] for queue in (JOBS, TASKS)}

    late_task = TaskQueueMessage(job_id=job_id, job_type="hello_world", stage=1, task_ids=(task["task_id"],))
    late_job = JobQueueMessage(job_id=job_id, job_type="hello_world", stage=2)
    with ServiceBusClient.from_connection_string(stack.info.service_bus_connection) as client:
        for queue, message in ((TASKS, late_task), (JOBS, late_job)):
            with client.get_queue_sender(queue) as sender:
                sender.send_messages(ServiceBusMessage(message.model_dump_json(), message_id=f"late-{queue}"))

    def taken(queue: str) -> bool:
        found = counts(stack, queue)
        return found["active"] == found["locked"] == 0

    for queue in (TASKS, JOBS):
        wait_until(lambda queue=queue: taken(queue), f"{queue} to be empty")
        assert counts(stack, queue)["dead_letter"] == dead[queue]
    assert http.get(f"jobs/{job_id}").status_code == 404


def test_unknown_job_type_is_answered_with_the_nearest_name(http: httpx.Client) -> None:
    answer = http.post("jobs/submit/helo_world", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job_type")
    assert "did you mean 'hello_world'" in answer.json()["detail"]


def test_parameter_of_a_wrong_type_is_named(http: httpx.Client) -> None:
    answer = http.post("jobs/submit/hello_world", json={"n": "three", "messag": "x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameters")
    errors = {error["field"]: error for error in answer.json()["errors"]}
    assert set(errors) == {"n", "messag"}
    assert "int" in errors["n"]["expected"]
    assert "message" in errors["messag"]["hint"]


def test_rerun_with_other_parameters_is_no_answer_to_the_old_ones(
    stack: LocalStack, http: httpx.Client, tmp_path: Path
) -> None:
    given = ("hello_world", "-p", "n=3", "-p", "message=truth", "--url", stack.url)

    def command(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = run_command(*arguments, folder=tmp_path)
        return done.returncode, json.loads(done.stdout or "{}")

    code, first = command("submit", *given, "--wait")
    assert (code, first["result"]["greetings"]) == (0, 3)
    job_id = first["job_id"]
    code, other = command("rerun", job_id, "--all", "-p", "n=4", "--wait", "--url", stack.url)
    assert (code, other["result"]["greetings"]) == (0, 4)

    refused = run_command("submit", *given, "--wait", folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "Conflict (409, other_parameters)" in refused.stderr
    assert f"GET /api/jobs/{job_id}/runs/2" in refused.stderr
    assert http.get(f"jobs/{job_id}/runs/2").json()["parameters"]["n"] == 4

    said = {"job_type": "hello_world", "parameters": {"n": 3, "message": "truth"}, "correlation_id": "said-too-late"}
    with (
        ServiceBusClient.from_connection_string(stack.info.service_bus_connection) as client,
        client.get_queue_sender(JOBS) as sender,
    ):
        sender.send_messages([ServiceBusMessage(json.dumps(said))])

    def letters() -> list[dict[str, Any]]:
        found = http.get("dead-letters", params={"queue": "jobs"}).json()["value"]
        return [one for one in found if one["reason"] == "OtherParameters" and job_id in one["description"]]

    wait_until(letters, "the submission among the dead letters, since nobody reads an answer")
    code, again = command("submit", *given, "--wait", "--if-ended", "rerun", "--strict")
    assert (code, again["job_id"], again["run"], again["result"]["greetings"]) == (0, job_id, 3, 3)
    assert again["run_started_at"] > other["finished_at"] > again["created_at"]

    body = {"job_type": "hello_world", "parameters": {"n": 3, "message": "truth"}}
    body |= {"if_ended": "rerun", "idempotency_key": "truth-1"}
    with (
        ServiceBusClient.from_connection_string(stack.info.service_bus_connection) as client,
        client.get_queue_sender(JOBS) as sender,
    ):
        sender.send_messages([ServiceBusMessage(json.dumps(body)) for _ in range(2)])
    wait_until(lambda: http.get(f"jobs/{job_id}").json()["run"] == 4, "the run that the message asked for")
    wait_until(lambda: {counts(stack, JOBS)[state] for state in ("active", "locked")} == {0}, "both messages settled")
    assert wait_for_end(http, job_id)["run"] == 4


def test_command_line_tells_what_is_wrong_and_its_exit_code(stack: LocalStack, tmp_path: Path) -> None:
    unknown = run_command("submit", "helo_world", "--url", stack.url, folder=tmp_path)
    assert (unknown.returncode, "did you mean 'hello_world'" in unknown.stderr) == (3, True)
    wrong = run_command("submit", "hello_world", "-p", "n=0", "--url", stack.url, folder=tmp_path)
    assert wrong.returncode == 2
    assert "n: expected" in wrong.stderr
    nobody = run_command("list", "--url", "http://127.0.0.1:1", folder=tmp_path)
    assert nobody.returncode == 6


def test_all_invariants_hold_after_all_of_that(stack: LocalStack, tmp_path: Path) -> None:
    """The last test of this file: a worker was killed, messages were bad, jobs were cancelled and deleted."""
    done = run_command("db", "verify", folder=tmp_path, COREMACHINE_DATABASE_URL=stack.info.database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["violations"] == []


def post_bare(stack: LocalStack, path: str, *headers: str) -> tuple[int, dict[str, Any]]:
    """What `curl -X POST` sends: no body, no Content-Length, no Content-Type, unless they are among the headers."""
    url = urlsplit(stack.url)
    head = "\r\n".join([f"POST {path} HTTP/1.1", f"Host: {url.netloc}", "Connection: close", *headers])
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=30) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            first, _, body = answer.read().partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)


def test_post_without_any_body_is_taken_where_nothing_is_lost_by_it(stack: LocalStack, http: httpx.Client) -> None:
    job_id = submit(http, "hello_world", n=2, message="bare")
    wait_for_end(http, job_id)
    http.post(f"jobs/{job_id}/rerun", json={"mode": "all"})
    wait_for_end(http, job_id)
    for action, code in (("pause", "job_has_ended"), ("resume", "job_has_ended"), ("cancel", "job_has_ended")):
        status, problem = post_bare(stack, f"/api/jobs/{job_id}/{action}")
        assert (status, problem["code"]) == (409, code)
    # Each was understood: it is the job's state that allows nothing. What has something to choose is asked for.
    assert post_bare(stack, f"/api/jobs/{job_id}/rerun")[1]["code"] == "nothing_failed"
    assert post_bare(stack, "/api/dead-letters/redrive")[1]["code"] == "invalid_request"

    status, answer = post_bare(stack, "/api/jobs/submit/hello_world")
    assert (status, answer["job_type"]) == (202, "hello_world")

    # A header speaks of a body that did not come: it is not the defaults that were meant.
    for header in ("Content-Type: application/json", "Transfer-Encoding: chunked\r\nContent-Type: application/json"):
        for path in ("/api/jobs/submit/hello_world", f"/api/jobs/{job_id}/rerun", f"/api/jobs/{job_id}/cancel"):
            headers = [header, "", "0"] if "chunked" in header else [header]
            status, problem = post_bare(stack, path, *headers)
            assert (status, problem["code"]) == (411, "length_required")
    assert (
        post_bare(stack, f"/api/jobs/{job_id}/rerun", "Content-Type: application/json", "Content-Length: 0")[0] == 409
    )
