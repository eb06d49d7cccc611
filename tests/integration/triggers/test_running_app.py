"""The whole app in the Functions host, on a real PostgreSQL and the project's broker, asked over HTTP alone."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from psycopg.conninfo import make_conninfo

from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from infrastructure.migrations import Migrator

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> Iterator[str]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create database running_app")
    yield make_conninfo(postgres_url, dbname="running_app")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("drop database running_app with (force)")


@pytest.fixture(scope="module")
def http(
    database_url: str, project_broker: BrokerThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    environment = {
        "COREMACHINE_DATABASE_URL": database_url,
        "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
        "ServiceBusConnection": project_broker.connection_string,
        # As App Service says that it vouches for who asks.
        "WEBSITE_AUTH_ENABLED": "true",
    }
    log_file = tmp_path_factory.mktemp("host") / "host.log"
    host = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=log_file)
    host.start()
    try:
        host.wait_ready(120)
        with httpx.Client(base_url=host.url, timeout=60) as client:
            yield client
    finally:
        host.stop()


@pytest.fixture(scope="module")
def ready(http: httpx.Client, database_url: str) -> httpx.Client:
    """After the empty database was told as such, and migrated."""
    before = http.get("/api/readyz")
    assert before.status_code == 503, before.text
    (database,) = [check for check in before.json()["checks"] if check["name"] == "database"]
    assert "coremachine db migrate" in database["detail"]
    with psycopg.connect(database_url) as connection:
        Migrator(connection).migrate()
    return http


def test_migrated_app_is_ready(ready):
    response = ready.get("/api/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert [check["name"] for check in response.json()["checks"]] == ["database", "service_bus", "registry"]


def test_job_runs_to_its_end_and_is_told_stage_by_stage(ready):
    submitted = ready.post("/api/jobs/submit/hello_world", json={"n": 25}, headers={"X-Correlation-Id": "order-7"})
    assert submitted.status_code == 202
    links = submitted.json()["links"]
    assert submitted.headers["location"] == links["self"]
    job = ready.get(links["self"], params={"wait": 30}).json()
    assert job["status"] == "completed", job
    assert job["result"] == {"greetings": 25, "replies": 25}
    assert job["correlation_id"] == "order-7"
    assert job["parameters"] == {"n": 25, "message": "Hello World", "failure_rate": 0.0}
    assert [(stage["name"], stage["expected_count"], stage["counts"]["completed"]) for stage in job["stages"]] == [
        ("greet", 25, 25),
        ("reply", 25, 25),
    ]
    again = ready.post("/api/jobs/submit/hello_world", json={"n": 25}).json()
    assert (again["job_id"], again["created"], again["status"]) == (job["job_id"], False, "completed")


def test_tasks_come_in_pages_by_stage(ready):
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 7}).json()["job_id"]
    assert ready.get(f"/api/jobs/{job_id}?wait=30").json()["status"] == "completed"
    tasks, query = [], {"stage": 2, "limit": 3}
    while True:
        page = ready.get(f"/api/jobs/{job_id}/tasks", params=query).json()
        tasks += page["value"]
        if "next_cursor" not in page:
            break
        query["cursor"] = page["next_cursor"]
    assert [task["name"] for task in tasks] == [f"reply-{index}" for index in range(7)]
    assert tasks[0]["result"] == {"reply": "You said: Hello World #0"}
    assert ready.get(f"/api/jobs/{job_id}/tasks?status=failed").json() == {"value": []}
    events = ready.get(f"/api/jobs/{job_id}/events").json()["value"]
    assert {event["job_id"] for event in events} == {job_id}
    assert job_id in {
        job["job_id"] for job in ready.get("/api/jobs?status=completed&job_type=hello_world").json()["value"]
    }


def test_ended_job_cannot_be_cancelled(ready):
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 1}).json()["job_id"]
    assert ready.get(f"/api/jobs/{job_id}?wait=30").json()["status"] == "completed"
    refused = ready.post(f"/api/jobs/{job_id}/cancel", json={"reason": "too late"})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_has_ended")


def test_job_is_cancelled(ready):
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 20_000}).json()["job_id"]
    cancelled = ready.post(f"/api/jobs/{job_id}/cancel", json={"reason": "wrong number"})
    assert cancelled.status_code == 202
    assert ready.get(f"/api/jobs/{job_id}?wait=30").json()["status"] == "cancelled"


def test_job_is_paused_and_goes_on_when_it_is_resumed(ready):
    """The message that came to the paused job is gone; the one that resume sends brings it on."""
    actor = {"X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com"}
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 3_000}).json()["job_id"]
    paused = ready.post(f"/api/jobs/{job_id}/pause", json={"reason": "disk full"}, headers=actor)
    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    assert ready.get(f"/api/jobs/{job_id}?wait=1").json()["paused_at"] is not None
    refused = ready.post(f"/api/jobs/{job_id}/rerun", json={"mode": "all"})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_has_not_ended")
    assert refused.json()["allowed_actions"] == ["cancel", "resume"]

    resumed = ready.post(f"/api/jobs/{job_id}/resume", headers=actor)
    assert (resumed.status_code, resumed.json()["changed"], resumed.json()["paused"]) == (200, True, False)
    job = ready.get(f"/api/jobs/{job_id}?wait=30").json()
    while job["status"] not in {"completed", "failed"}:
        job = ready.get(f"/api/jobs/{job_id}?wait=30").json()
    assert (job["status"], job["result"]) == ("completed", {"greetings": 3_000, "replies": 3_000})
    events = ready.get(f"/api/jobs/{job_id}/events", params={"limit": 1000}).json()["value"]
    (told,) = [event for event in events if event["event"] == "job_paused"]
    assert told["detail"] == {"reason": "disk full", "actor": "ada@example.com"}


def test_job_is_run_once_more_from_a_stage_with_another_parameter(ready):
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 3, "message": "first"}).json()["job_id"]
    assert ready.get(f"/api/jobs/{job_id}?wait=30").json()["status"] == "completed"
    nothing = ready.post(f"/api/jobs/{job_id}/rerun")
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_failed")
    wrong = ready.post(f"/api/jobs/{job_id}/rerun", json={"from_stage": 2, "parameters": {"massage": "x"}})
    assert (wrong.status_code, wrong.json()["errors"][0]["hint"]) == (400, "did you mean 'message'?")

    rerun = ready.post(f"/api/jobs/{job_id}/rerun", json={"from_stage": 2, "parameters": {"message": "second"}})
    assert (rerun.status_code, rerun.json()["run"], rerun.json()["kept_count"]) == (202, 2, 3)
    job = ready.get(f"/api/jobs/{job_id}?wait=30").json()
    assert (job["status"], job["run"], job["parameters"]["message"]) == ("completed", 2, "second")
    assert [stage["from_run"] for stage in job["stages"]] == [1, None]
    assert [stage["counts"]["completed"] for stage in job["stages"]] == [3, 3]
    runs = ready.get(job["links"]["runs"]).json()["value"]
    assert [(run["run"], run["status"], run["parameters"]["message"]) for run in runs] == [
        (2, "completed", "second"),
        (1, "completed", "first"),
    ]
    old = ready.get(f"/api/jobs/{job_id}/tasks", params={"run": 1, "stage": 2}).json()["value"]
    assert len(old) == 3


def test_waiting_client_sees_the_end_soon(ready):
    """The answer comes within a poll of the end, not at the end of the wait."""
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 2}).json()["job_id"]
    response = ready.get(f"/api/jobs/{job_id}", headers={"Prefer": "wait=30"})
    assert response.headers["preference-applied"] == "wait=30"
    assert response.json()["status"] == "completed"
    assert response.elapsed.total_seconds() < 15


def test_messages_that_nobody_can_read_are_kept_and_tied_to_their_job(ready, project_broker):
    """At their first delivery: nothing stays in the broker."""
    job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 4}).json()["job_id"]
    assert ready.get(f"/api/jobs/{job_id}?wait=30").json()["status"] == "completed"
    bodies = {
        "broken": b"\xff\xfe not json",
        "of-no-run": json.dumps({"job_id": job_id, "job_type": "hello_world", "run": 0}).encode(),
    }
    with ServiceBusClient.from_connection_string(project_broker.connection_string) as client:
        with client.get_queue_sender("coremachine-jobs") as sender:
            sender.send_messages([ServiceBusMessage(body, message_id=name) for name, body in bodies.items()])
        found = wait_for_dead_letters(ready, len(bodies))
        with client.get_queue_receiver("coremachine-jobs", sub_queue="deadletter") as receiver:
            assert receiver.receive_messages(max_wait_time=1) == []

    broken, tied = found["broken"], found["of-no-run"]
    # The host hands over text: each byte that is none is the replacement character, of three bytes.
    assert (broken["kind"], broken["job_id"], broken["body_size"]) == ("unreadable", None, 11 + 2 * 2)
    assert {(each["reason"], each["delivery_count"]) for each in found.values()} == {("MessageUnreadable", 1)}
    assert "not json" in ready.get(f"/api/dead-letters/{broken['dead_letter_id']}").json()["body"]
    assert (tied["kind"], tied["job_id"], tied["run"]) == ("job", job_id, 1)
    (event,) = [
        event
        for event in ready.get(f"/api/jobs/{job_id}/events").json()["value"]
        if event["event"] == "message_dead_lettered"
    ]
    assert event["detail"]["dead_letter_id"] == tied["dead_letter_id"]
    explained = ready.get(f"/api/jobs/{job_id}/explain").json()
    assert [finding["code"] for finding in explained["findings"]] == ["completed", "dead_lettered"]
    # Other tests' letters of the shared broker may stand beside these.
    groups = ready.get("/api/dead-letters?group=true").json()["value"]
    told = [group["description"] for group in groups if group["reason"] == "MessageUnreadable"]
    assert any("Invalid JSON" in text for text in told)
    assert any("run: " in text for text in told)
    ids = [broken["dead_letter_id"], tied["dead_letter_id"]]
    redriven = ready.post("/api/dead-letters/redrive", json={"ids": ids}).json()
    assert redriven["counts"] == {"unreadable": 2}


def wait_for_dead_letters(http, count):
    """By their message ids."""
    deadline = time.monotonic() + 120
    while True:
        found = http.get("/api/dead-letters?queue=jobs").json()["value"]
        if len(found) >= count:
            return {each["message_id"]: each for each in found}
        assert time.monotonic() < deadline, f"{count} dead letters are expected, these came: {found}"
        time.sleep(0.1)


def test_cursor_of_another_list_is_refused(ready):
    cursor = ready.get("/api/jobs?limit=1").json()["next_cursor"]
    job_id = "ab" * 32
    refused = ready.get(f"/api/jobs/{job_id}/events", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "cursor")


def test_the_dashboard_is_served_by_the_host_and_its_forms_arrive(ready):
    page = ready.get("/api/ui")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert ready.get("/api/ui/static/ui.css").headers["content-type"] == "text/css; charset=utf-8"
    origin = {"Origin": str(ready.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    form = {"p.n": "2", "p.message": "by form\r\nin two lines", "if_ended": "return"}
    sent = ready.post("/api/ui/submit/hello_world", data=form, headers=origin)
    assert sent.status_code == 303, sent.text
    job_id = sent.headers["location"].partition("?")[0].rpartition("/")[2]
    job = ready.get(f"/api/jobs/{job_id}?wait=30").json()
    assert (job["status"], job["parameters"]["message"]) == ("completed", "by form\nin two lines")
    for path in (f"jobs/{job_id}", f"jobs/{job_id}?tab=tasks", "schedules", "dead-letters", "queues"):
        assert ready.get(f"/api/ui/{path}").status_code == 200, path
