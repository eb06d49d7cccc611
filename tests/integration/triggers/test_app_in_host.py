"""function_app.py in the Functions host and in Microsoft's runtime, without a database: each function is called."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from coremachine.local.host.supervisor import HostSupervisor

ROOT = Path(__file__).parents[3]
INVOKE_APP = ROOT / "tests" / "integration" / "host" / "invoke_app.py"
# Nothing listens on port 1.
NO_BROKER = "Endpoint=sb://localhost:1;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"
microsoft = pytest.param(
    "microsoft",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("azure_functions_runtime") is None,
        reason="azure-functions-runtime is not installed (it needs Python 3.13)",
    ),
)


def invoke(kind: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COREMACHINE_")}
    environment.pop("CONTAINER_NAME", None)  # Microsoft's library would take it for a container in Azure
    environment |= {"ServiceBusConnection": NO_BROKER, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(INVOKE_APP), kind, str(ROOT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["results"]


@pytest.mark.parametrize("kind", ["portable", microsoft])
def test_each_function_runs_and_says_what_is_missing(kind):
    results = invoke(kind)
    assert list(results) == [
        "livez",
        "web_api",
        "process_jobs",
        "process_tasks_tasks",
        "process_tasks_raster",
        "dead_letters_jobs",
        "dead_letters_tasks",
        "dead_letters_raster",
        "janitor_sweep",
    ]
    (outcome, (_, response)) = results["livez"][0]
    assert (outcome, response["status_code"][1]) == ("returned", "200")
    (outcome, (_, response)) = results["web_api"][0]
    assert (outcome, response["status_code"][1]) == ("returned", "503")
    assert "COREMACHINE_DATABASE_URL" in response["body"][1]
    # Two messages each that no queue of the app carries: they stay with the broker while they cannot be written down.
    for name in ("process_jobs", "process_tasks_tasks", "process_tasks_raster"):
        assert [outcome for outcome, _ in results[name]] == ["raised", "raised"]
        assert all("COREMACHINE_DATABASE_URL" in error for _, error in results[name])
    for name in ("dead_letters_jobs", "dead_letters_tasks", "dead_letters_raster", "janitor_sweep"):
        assert [outcome for outcome, _ in results[name]] == ["raised", "raised"]
        assert all("COREMACHINE_DATABASE_URL" in error for _, error in results[name])


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostSupervisor]:
    environment = {"ServiceBusConnection": NO_BROKER, "COREMACHINE_APP_MODE": "wroker"}
    supervisor = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=tmp_path / "host.log")
    supervisor.start()
    supervisor.wait_ready(120)
    yield supervisor
    supervisor.stop()


def test_misconfigured_app_starts_and_says_why_over_http(host):
    with httpx.Client(base_url=host.url, timeout=20) as http:
        assert http.get("/api/livez").json() == {"status": "alive"}
        ready = http.get("/api/readyz")
        assert ready.status_code == 503
        assert "COREMACHINE_APP_MODE: expected one of standalone, platform, worker" in ready.text
        refused = http.post("/api/jobs/submit/hello_world", json={})
        assert (refused.status_code, refused.json()["code"]) == (503, "app_not_ready")
        assert refused.headers["retry-after"] == "5"
        assert http.get("/").json()["code"] == "not_found"
        assert http.delete("/api/jobs").json()["code"] == "method_not_allowed"
        paths = http.get("/api/openapi.json").json()["paths"]
        assert "/api/jobs/{job_id}" in paths
