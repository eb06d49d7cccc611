"""`coremachine serve` as a container runs it: probes, keys, a log of JSON lines, and a drain at SIGTERM."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from tests.acceptance.hosts import APP, NEVER, QUEUES, beginnings
from tests.acceptance.steps import PROJECT_ROOT, submit, wait_until
from tests.databases import Engine

pytestmark = [
    pytest.mark.acceptance,
    # The SDK leaves sockets of a broker that is gone to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
KEY = "a-key-for-the-test"


class Served:
    """A running `coremachine serve`, and the lines of its log so far."""

    def __init__(self, process: "subprocess.Popen[str]", log_file: Path) -> None:
        self.process, self._log_file = process, log_file

    def records(self) -> list[dict[str, Any]]:
        """Every line is JSON, or this fails."""
        return [json.loads(line) for line in self._log_file.read_text().splitlines()]

    def wait_for(self, beginning: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            assert self.process.poll() is None, self._log_file.read_text()
            return next((each for each in self.records() if each["message"].startswith(beginning)), None)

        return wait_until(find, beginning, 60)


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with BrokerThread(BrokerConfig.for_queues(QUEUES)) as broker, (tmp_path / "log").open("w") as log:
        environment = {
            "COREMACHINE_DATABASE_URL": database_url,
            "COREMACHINE_SWEEP_SCHEDULE": NEVER,
            "COREMACHINE_APP_NAME": "served",
            "COREMACHINE_FUNCTION_KEY": KEY,
            "ServiceBusConnection": broker.connection_string,
            "PYTHONPATH": str(PROJECT_ROOT),
        }
        command = [sys.executable, "-m", "coremachine.cli", "serve", "--app-dir", str(APP), "--log-format", "json"]
        process = subprocess.Popen(
            [*command, "--port", "0", "--health-port", "0", "--grace", "20"],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        yield Served(process, tmp_path / "log")
        process.kill()
        assert process.communicate()[1] == "", "the log is on standard output"


def test_served_app_answers_and_hands_its_tasks_back_at_sigterm(served: Served, engine: Engine, tmp_path: Path) -> None:
    ready = served.wait_for("serve_ready")["message"]
    url, health_port = (part.partition("=")[2] for part in ready.split()[1:3])
    health = f"http://127.0.0.1:{health_port}"
    assert httpx.get(f"{health}/livez").json() == {"status": "alive"}
    assert httpx.get(f"{health}/readyz").json() == {"status": "ready"}
    assert httpx.get(f"{health}/else").status_code == 404
    assert httpx.get(f"{url}/api/livez").status_code == 200
    assert httpx.get(f"{url}/api/jobs").status_code == 401
    with httpx.Client(base_url=f"{url}/api/", headers={"x-functions-key": KEY}, timeout=60) as http:
        job_id = submit(http, "long", folder=str(tmp_path), heeds_stop=False)
    (begun,) = beginnings(tmp_path, 1)
    family = psutil.Process(served.process.pid).children(recursive=True)
    assert begun["pid"] in {process.pid for process in family}

    served.process.send_signal(signal.SIGTERM)
    served.wait_for("serve_draining")
    # The handler is deaf: it is given up after the grace, or ends now. Its task is free at once in any case.
    state = "select status, interruptions, lease_id from app.tasks where job_id = %s"
    wait_until(lambda: engine.query(state, job_id)[0]["lease_id"] is None, "the task to be handed back")
    draining = httpx.get(f"{health}/readyz")
    assert (draining.status_code, draining.json()) == (503, {"status": "draining"})
    (tmp_path / "open").touch()
    assert served.process.wait(60) == 0
    assert psutil.wait_procs(family, timeout=30)[1] == []
    (task,) = engine.query(state, job_id)
    assert (task["status"], task["interruptions"]) == ("queued", 1)
    (app,) = engine.query("select app_name, ended_at from app.app_instances")
    assert app["app_name"] == "served"
    assert app["ended_at"] is not None
    assert {"time", "level", "process", "logger", "message"} <= set(served.records()[0])
    assert [record for record in served.records() if KEY in json.dumps(record)] == []
