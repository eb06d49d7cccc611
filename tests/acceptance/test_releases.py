"""Two releases on one stack: an upgrade, a rollback, the upgrade once more, and jobs in flight through all three."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.models import JobQueueMessage
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from infrastructure.service_bus import ServiceBusRepository, connect_with_string
from infrastructure.verify import verify
from tests.acceptance.steps import run_command, submit, wait_for_end, wait_until
from tests.databases import Engine

pytestmark = [
    pytest.mark.acceptance,
    # The SDK leaves sockets of a broker that is gone to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

APP = Path(__file__).parent / "releases_app"
QUEUES = ["coremachine-jobs", "coremachine-tasks", "coremachine-raster-tasks"]


class Fleet:
    """Hosts of either release over one database and one broker."""

    def __init__(self, opened: ExitStack, database_url: str, folder: Path) -> None:
        self._opened, self._database_url, self._folder = opened, database_url, folder
        broker = opened.enter_context(BrokerThread(BrokerConfig.for_queues(QUEUES)))
        self.connection_string = broker.connection_string

    def start(self, release: str) -> HostSupervisor:
        environment = {
            "COREMACHINE_DATABASE_URL": self._database_url,
            "COREMACHINE_JOBS": f"release_jobs:build_{release}",
            "COREMACHINE_APP_NAME": f"{release}-app",
            "COREMACHINE_RELEASE": release,
            "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
            "ServiceBusConnection": self.connection_string,
        }
        host = HostSupervisor(
            APP, port=0, workers=1, environment=environment, log_file=self._folder / "host.log", grace_seconds=5
        )
        self._opened.callback(host.stop)
        host.start()
        host.wait_ready(60)
        return host

    def produce(self, message: JobQueueMessage) -> None:
        """What a producer puts on the jobs queue."""
        queues = {"jobs": QUEUES[0]}
        sender = ServiceBusRepository(queues, lambda: connect_with_string(self.connection_string))
        sender.send_messages("jobs", [message])
        sender.close()


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as opened:
        yield Fleet(opened, database_url, tmp_path)


def client(host: HostSupervisor) -> httpx.Client:
    return httpx.Client(base_url=f"{host.url}/api/", timeout=60)


def wait_for_finding(http: httpx.Client, job_id: str, text: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        findings = http.get(f"jobs/{job_id}/explain").json()["findings"]
        return next((f for f in findings if f["code"] == "waits_for_release" and text in f["message"]), None)

    return wait_until(found, f"job {job_id} to wait for {text}", 60)


def wait_for_mix(http: httpx.Client) -> None:
    """Both releases are seen side by side, each with what it knows."""

    def mix() -> dict[str, Any] | None:
        answer: dict[str, Any] = http.get("apps").json()
        return answer if "several_releases" in {each["code"] for each in answer["findings"]} else None

    apps = {each["release"]: each for each in wait_until(mix, "both releases to be seen")["value"]}
    assert {name: app["job_types"] for name, app in apps.items()} == {"old": ["mosaic"], "new": ["mosaic", "survey"]}
    assert apps["new"]["task_types"] == ["cut", "polish", "publish"]


def test_upgrade_and_rollback_cost_no_job_and_no_attempt(fleet: Fleet, engine: Engine, tmp_path: Path) -> None:
    folder = str(tmp_path)
    old, new = fleet.start("old"), fleet.start("new")
    submit_to: Callable[[httpx.Client, str, str], str] = lambda http, job_type, label: submit(  # noqa: E731
        http, job_type, folder=folder, label=label
    )
    with client(old) as http:
        jobs = [submit_to(http, "mosaic", "before")]
    with client(new) as http:
        jobs += [submit_to(http, job_type, "during") for job_type in ("mosaic", "survey")]
        wait_for_mix(http)
        # Rollback, while tasks run in both.
        running = "select 1 from app.tasks where status = 'processing'"
        wait_until(lambda: len(engine.query(running)) >= 2, "tasks to run", 60)
    new.stop()
    fleet.produce(JobQueueMessage(job_type="survey", parameters={"folder": folder, "label": "produced"}))
    (tmp_path / "open").touch()

    with client(old) as http:
        assert wait_for_end(http, jobs[0])["result"] == {"stages": 1}
        assert http.post("jobs/submit/survey", json={}).status_code == 404
        mosaic = wait_for_finding(http, jobs[1], "the stage 2 of 'mosaic', of which it has 1")
        assert "last by old-app:" in mosaic["message"]
        assert "deploy or start the release that knows the stage 2 of 'mosaic'" in mosaic["advice"]
        wait_for_finding(http, jobs[2], "the job type survey")
        ended = [each["release"] for each in http.get("apps").json()["value"] if each["status"] == "ended"]
        assert ended == ["new"]
        told = run_command("explain", jobs[1], "--url", old.url, folder=tmp_path)
        assert "waiting for an app that knows the stage 2 of 'mosaic'" in " ".join(told.stdout.split())

    # The upgrade once more; the old one leaves when the new one is there, as instances do.
    with client(fleet.start("new")) as http:
        old.stop()
        produced = "select job_id from app.jobs where parameters ->> 'label' = 'produced'"
        jobs += [row["job_id"] for row in wait_until(lambda: engine.query(produced), "the produced job", 60)]
        ends = [wait_for_end(http, job_id) for job_id in jobs]
    assert [(job["status"], job["result"]) for job in ends] == [
        ("completed", {"stages": stages}) for stages in (1, 3, 1, 1)
    ]
    spent = engine.query("select attempt - interruptions as spent, status from app.tasks")
    assert {(task["spent"], task["status"]) for task in spent} == {(1, "completed")}
    assert {row["attempt"] for row in engine.query("select attempt from app.jobs")} == {0}
    assert engine.query("select 1 from app.dead_letters") == []
    failures = ["task_failed", "retry_scheduled", "job_step_retry_scheduled", "job_failed"]
    assert engine.query("select event, detail from app.job_events where event = any(%s)", failures) == []
    assert verify(engine.pool) == []
