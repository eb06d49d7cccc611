"""The app in the host while what it needs is away: the database at its start, a queue that nobody made."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from coremachine.local.app_folder import BUILT_IN_APP
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.postgres import LocalPostgres
from coremachine.local.stack import migrate
from jobs.flood_risk_cog.samples import generate_samples
from tests.acceptance.steps import submit, wait_for_end, wait_until

pytestmark = [
    pytest.mark.acceptance,
    # The SDK leaves sockets of a broker that is gone to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUEUES = ["coremachine-jobs", "coremachine-tasks"]
MISSING = "coremachine-nowhere"


@pytest.fixture
def postgres() -> Iterator[LocalPostgres]:
    """A server with the schema, which does not run at first."""
    with tempfile.TemporaryDirectory(prefix="coremachine-") as folder:
        server = LocalPostgres(Path(folder) / "data")
        with server as url:
            migrate(url, "app")
        assert server.url == url
        yield server
        server.stop()


@pytest.fixture
def broker() -> Iterator[BrokerThread]:
    with BrokerThread(BrokerConfig.for_queues(QUEUES)) as running:
        yield running


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "host.log"


@pytest.fixture
def http(postgres: LocalPostgres, broker: BrokerThread, log_file: Path) -> Iterator[httpx.Client]:
    environment = {
        "COREMACHINE_DATABASE_URL": postgres.url,
        "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
        "COREMACHINE_TASK_QUEUES": f"tasks=coremachine-tasks,raster={MISSING}",
        "ServiceBusConnection": broker.connection_string,
    }
    host = HostSupervisor(BUILT_IN_APP, port=0, workers=1, environment=environment, log_file=log_file)
    with host, httpx.Client(base_url=f"{host.url}/api/", timeout=60) as client:
        host.wait_ready(60)
        yield client


def checks_by_name(readiness: httpx.Response) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in readiness.json()["checks"]}


def test_app_starts_without_its_database_says_so_and_recovers(http: httpx.Client, postgres: LocalPostgres) -> None:
    assert (http.get("livez").status_code, http.get("livez").json()) == (200, {"status": "alive"})
    with ThreadPoolExecutor() as threads:  # each waits for a connection
        ready, refused = threads.map(
            lambda ask: ask(), [lambda: http.get("readyz"), lambda: http.post("jobs/submit/hello_world", json={"n": 1})]
        )
    assert ready.status_code == 503
    checks = checks_by_name(ready)
    assert (checks["database"]["ok"], checks["registry"]["ok"]) == (False, True)
    assert "cannot be reached" in checks["database"]["detail"]
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert int(refused.headers["Retry-After"]) > 0

    postgres.start()
    wait_until(lambda: checks_by_name(http.get("readyz"))["database"]["ok"], "the database", 60)
    assert wait_for_end(http, submit(http, n=3))["status"] == "completed"


def test_tasks_for_a_queue_that_nobody_made_wait_and_the_log_says_why(
    http: httpx.Client, postgres: LocalPostgres, broker: BrokerThread, log_file: Path, tmp_path: Path
) -> None:
    """Nothing fails for it: when the queue is there, the janitor sends what waits."""
    url = postgres.start()
    generate_samples(tmp_path / "source", count=3)
    source, output = str(tmp_path / "source"), str(tmp_path / "output")
    wait_until(lambda: checks_by_name(http.get("readyz"))["database"]["ok"], "the database", 60)
    job_id = submit(http, "flood_risk_cog", source=source, output=output)
    reason = f"expected a queue '{MISSING}' in the namespace, found none; create it, or fix its setting"
    wait_until(lambda: reason in log_file.read_text() and "message_not_confirmed" in log_file.read_text(), reason)
    job = http.get(f"jobs/{job_id}").json()
    assert (job["status"], job["stage"], job["stages"][1]["counts"]["pending"]) == ("processing", 2, 3)
    ready = http.get("readyz")
    assert ready.status_code == 503
    assert checks_by_name(ready)["service_bus"]["detail"] == reason
    findings = http.get(f"jobs/{job_id}/explain").json()["findings"]
    assert findings[0]["code"] == "queue_missing"
    assert findings[0]["advice"].startswith(reason)
    assert wait_for_end(http, submit(http, n=3))["status"] == "completed"

    port = broker.amqp_port
    broker.stop()
    with BrokerThread(BrokerConfig.for_queues([*QUEUES, MISSING]), amqp_port=port):
        with psycopg.connect(url) as connection:
            # As if the time had passed that a planner, or the janitor's last attempt, is given.
            connection.execute("update app.tasks set created_at = created_at - interval '1 hour', due_at = null")
        assert wait_for_end(http, job_id)["status"] == "completed"
