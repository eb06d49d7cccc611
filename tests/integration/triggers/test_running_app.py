"""The whole app in the Functions host, on a real PostgreSQL and the project's broker, asked over HTTP alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineContext, PipelineResponse
from azure.core.pipeline.policies import HeadersPolicy, RequestIdPolicy, UserAgentPolicy
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LROBasePolling
from azure.core.rest import HttpRequest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from psycopg.conninfo import make_conninfo

from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from infrastructure.migrations import Migrator
from tests.webhook_receiver import is_signed, receiver

ROOT = Path(__file__).parents[3]
WEBHOOK_SECRET = "whsec_dGhlIHNlY3JldCBvZiB0ZXN0cw=="  # noqa: S105 - of this test
NODE_MODULES = ROOT / ".node" / "node_modules"


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
    folder = tmp_path_factory.mktemp("host")
    environment = {
        "COREMACHINE_DATABASE_URL": database_url,
        "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
        "ServiceBusConnection": project_broker.connection_string,
        # As App Service says that it vouches for who asks.
        "WEBSITE_AUTH_ENABLED": "true",
        # Without a key for secrets: generated requests write no webhook, which would lead out of this machine.
        "COREMACHINE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "COREMACHINE_WEBHOOK_SECRET_TESTS": WEBHOOK_SECRET,
        # Nor do they ask a storage account for rasters.
        "COREMACHINE_RASTER_ROOTS": str(folder),
    }
    host = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=folder / "host.log")
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
    assert [check["name"] for check in response.json()["checks"]] == ["database", "service_bus", "registry", "slots"]


def test_process_registers_itself_and_is_the_consumer_of_its_queues(ready):
    deadline = time.monotonic() + 30
    while not (apps := ready.get("/api/apps").json()["value"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (app,) = apps
    assert (app["status"], app["mode"], app["queues"]) == ("live", "standalone", ["jobs", "raster", "tasks"])
    assert "hello_world_reply" in app["task_types"]
    assert app["job_types"] == ["flood_risk_cog", "hello_world"]
    queues = {each["queue"]: each for each in ready.get("/api/queues").json()["value"]}
    assert {name: each["consumers"] for name, each in queues.items()} == {"jobs": 1, "tasks": 1, "raster": 1}


def test_job_runs_to_its_end_and_is_told_stage_by_stage(ready):
    submitted = ready.post("/api/jobs/submit/hello_world", json={"n": 25}, headers={"X-Correlation-Id": "order-7"})
    assert submitted.status_code == 202
    links = submitted.json()["links"]
    assert submitted.headers["location"] == links["poll"]
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


class ImpatientPolling(LROBasePolling):
    """Asks again after a moment where it was told to wait: 30 s for a job that begins later."""

    def _sleep(self, delay):
        super()._sleep(min(delay, 0.1))


class TestPollers:
    """A job that has not ended when it is first looked at, followed by clients of other systems."""

    @pytest.fixture
    def azure(self, ready):
        with PipelineClient(
            str(ready.base_url), policies=[RequestIdPolicy(), HeadersPolicy(), UserAgentPolicy()]
        ) as client:
            yield client

    @staticmethod
    def begin(ready, azure, parameters, **query):
        url = ready.base_url.join("/api/jobs/submit/hello_world").copy_merge_params({"api-version": "1", **query})
        request = HttpRequest("POST", str(url), json=parameters)
        first = azure.send_request(request)
        assert first.status_code == 202
        response = PipelineResponse(request, first, PipelineContext(azure))
        return LROPoller(azure, response, lambda found: found.http_response.json(), ImpatientPolling(timeout=0.1))

    def test_azure_core_follows_a_job_to_its_result(self, ready, azure):
        poller = self.begin(ready, azure, {"n": 31})
        job = poller.result(timeout=60)
        assert (poller.status(), job["status"], job["result"]["greetings"]) == ("Succeeded", "completed", 31)

    def test_azure_core_raises_for_a_job_that_was_cancelled(self, ready, azure):
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        poller = self.begin(ready, azure, {"n": 32}, start_at=later)
        (job,) = ready.get("/api/jobs?limit=1").json()["value"]
        assert ready.post(f"/api/jobs/{job['job_id']}/cancel", json={"reason": "not needed"}).status_code == 202
        with pytest.raises(HttpResponseError, match="not needed"):
            poller.result(timeout=60)
        assert poller.status() == "Canceled"

    def test_location_is_202_until_the_end_as_logic_apps_follow_it(self, ready):
        answer = ready.post("/api/jobs/submit/hello_world", json={"n": 33})
        seen = []
        while answer.status_code == 202:
            answer = ready.get(answer.headers["location"])
            seen.append(answer.status_code)
        assert set(seen) <= {200, 202}
        assert answer.json()["status"] == "completed"

    def test_durable_payload_is_followed_and_acted_on(self, ready):
        payload = ready.post("/api/durable/orchestrators/hello_world", json={"n": 34}).json()
        while (answer := ready.get(payload["statusQueryGetUri"])).status_code == 202:
            pass
        assert (answer.status_code, answer.json()["runtimeStatus"]) == (200, "Completed")
        gone = ready.post(payload["terminatePostUri"].replace("{text}", "too late"))
        assert gone.status_code == 410


def test_hundreds_in_one_call_all_complete(ready):
    jobs = [
        {"job_type": "hello_world", "parameters": {"n": 1, "message": f"m{n}"}, "tags": {"b": "1"}} for n in range(60)
    ]
    answer = ready.post("/api/jobs/submit:batch", json={"jobs": jobs})
    assert (answer.status_code, answer.json()["counts"]) == (200, {"created": 60})
    for outcome in answer.json()["value"]:
        assert ready.get(f"/api/jobs/{outcome['job']['job_id']}?wait=30").json()["status"] == "completed"
    counted = ready.post("/api/jobs/bulk", json={"action": "delete", "filter": {"tags": {"b": "1"}}}).json()
    assert (counted["dry_run"], counted["matched"]) == (True, 60)
    acted = {"action": "delete", "filter": {"tags": {"b": "1"}}, "confirm": 60, "reason": "done"}
    assert ready.post("/api/jobs/bulk", json=acted).json()["counts"] == {"deleted": 60}
    assert ready.get("/api/jobs?tag=b=1").json()["value"] == []
    assert len(ready.get("/api/audit?action=delete&limit=1000").json()["value"]) == 60


def test_delayed_job_begins_by_itself(ready):
    at = datetime.now(UTC) + timedelta(seconds=2)
    sent = ready.post("/api/jobs/submit/hello_world", params={"start_at": at.isoformat()}, json={"n": 35}).json()
    ended = ready.get(f"/api/jobs/{sent['job_id']}?wait=30").json()
    assert ended["status"] == "completed"
    assert datetime.fromisoformat(ended["stages"][0]["planned_at"]) >= at


def test_dry_run_writes_nothing(ready):
    draft = ready.post("/api/jobs/submit/hello_world?dry_run=true", json={"n": 36}).json()
    assert (draft["first_stage"]["task_count"], len(draft["first_stage"]["tasks"])) == (36, 20)
    assert ready.get(f"/api/jobs/{draft['job_id']}").status_code == 404


def example_of_producer(language):
    """The program in the document about submissions, as a reader copies it."""
    page = (ROOT / "docs" / "howto" / "submit-jobs.md").read_text(encoding="utf-8")
    (program,) = re.findall(rf"```{language}\n(.*?azure.service-?bus.*?)```", page, re.DOTALL | re.IGNORECASE)
    return program


class TestProducers:
    @pytest.fixture
    def run(self, project_broker, tmp_path):
        def run_program(*command):
            environment = os.environ | {"ServiceBusConnection": project_broker.connection_string}
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr

        return run_program

    @staticmethod
    def find_job(http, query):
        deadline = time.monotonic() + 60
        while not (found := http.get(f"/api/jobs?{query}").json()["value"]):
            assert time.monotonic() < deadline, "the submission is expected to make a job"
            time.sleep(0.1)
        return http.get(f"/api/jobs/{found[0]['job_id']}?wait=30").json()

    def test_python_example_submits_a_job(self, ready, run, tmp_path):
        (tmp_path / "send.py").write_text(example_of_producer("python"))
        run(sys.executable, "send.py")
        job = self.find_job(ready, "correlation_id=order-4711")
        assert (job["status"], job["parameters"]["n"], job["tags"]) == ("completed", 5, {"team": "geo"})

    @pytest.mark.skipif(
        shutil.which("node") is None or not NODE_MODULES.is_dir(),
        reason="node and @azure/service-bus are not there: make test-programs",
    )
    def test_javascript_example_submits_a_job(self, ready, run, tmp_path):
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
        (tmp_path / "send.mjs").write_text(example_of_producer("javascript"))
        run("node", "send.mjs")
        job = self.find_job(ready, "tag=order=4712")
        assert (job["status"], job["parameters"]["n"]) == ("completed", 6)


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


def test_the_end_of_a_job_reaches_a_webhook_and_a_follower(ready: httpx.Client) -> None:
    with receiver() as received:
        body = {"url": received.url, "events": ["job.completed"], "secret_setting": "COREMACHINE_WEBHOOK_SECRET_TESTS"}
        assert ready.put("/api/webhooks/tests", json=body).status_code == 201
        job_id = ready.post("/api/jobs/submit/hello_world", json={"n": 2}, params={"force": "true"}).json()["job_id"]
        headers, event, sent = received.next()
        assert is_signed(WEBHOOK_SECRET, headers, sent)
        assert (event["type"], event["subject"]) == ("coremachine.job.completed", job_id)
        assert ready.delete("/api/webhooks/tests").status_code == 200
    seen: list[str] = []
    path, page = f"/api/jobs/{job_id}/events", {"next_cursor": None}
    while "job_completed" not in seen:
        query = {"wait": 20, "cursor": page["next_cursor"]}
        page = ready.get(path, params={name: value for name, value in query.items() if value is not None}).json()
        seen += [each["event"] for each in page["value"]]
    assert (seen.count("job_submitted"), seen.count("job_completed")) == (1, 1)
    stream = {"Accept": "text/event-stream", "Last-Event-ID": page["next_cursor"]}
    assert ready.get(path, headers=stream, params={"wait": 0}).status_code == 204
