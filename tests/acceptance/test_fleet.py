"""A platform app and two worker apps on one stack: who runs what, one of them dies, one leaves."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from coremachine.local.app_fleet import read_apps
from coremachine.local.stack import LocalStack
from jobs.flood_risk_cog.samples import generate_samples
from tests.acceptance.steps import PROJECT_ROOT, run_command, submit, wait_for_end, wait_until

pytestmark = pytest.mark.acceptance

# Conversions stay with the raster app; what is light goes to the other.
ROUTES = dict.fromkeys(("flood_risk_inventory", "flood_risk_catalog", "flood_risk_account"), "tasks")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    settings = {
        "COREMACHINE_SWEEP_SCHEDULE": "* * * * * *",
        "COREMACHINE_TASK_ROUTES": ",".join(f"{name}={queue}" for name, queue in ROUTES.items()),
        "COREMACHINE_TASK_THREADS": "2",
    }
    ports = {"http_port": 0, "amqp_port": 0, "admin_port": 0}
    apps = read_apps("worker:raster,platform,worker:tasks", {})
    folder = tmp_path / "stack"
    with LocalStack(folder, app_dir=PROJECT_ROOT, workers=1, environment=settings, apps=apps, **ports) as running:
        yield running


@pytest.fixture
def database(stack: LocalStack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.info.database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def apps_by_state(http: httpx.Client, status: str) -> set[str]:
    return {each["app_name"] for each in http.get("apps").json()["value"] if each["status"] == status}


def test_fleet_converts_rasters_though_a_worker_dies(
    stack: LocalStack, database: psycopg.Connection[dict[str, Any]], tmp_path: Path
) -> None:
    generate_samples(tmp_path / "rasters", count=4)
    with httpx.Client(base_url=f"{stack.url}/api/", timeout=60) as http:
        wait_until(lambda: apps_by_state(http, "live") == {"platform", "worker-raster", "worker-tasks"}, "all apps")
        job_id = submit(http, "flood_risk_cog", source=str(tmp_path / "rasters"), output=str(tmp_path / "out"))
        kill_at_work(stack, database, "worker-raster")
        job = wait_for_end(http, job_id)
        assert job["status"] == "completed", job
        assert_each_app_ran_its_tasks(database)
        told = run_command("queues", "--url", stack.url, "-o", "table", folder=tmp_path, COLUMNS="120")
        assert "worker-tasks" in told.stdout
        leave(stack, "worker-tasks")
        assert apps_by_state(http, "ended") == {"worker-tasks"}
        waiting = submit(http, "hello_world", n=1)
        find = "select task_id from app.tasks where job_id = %s"
        wait_until(lambda: database.execute(find, [waiting]).fetchone(), "its task")
        findings = http.get(f"jobs/{waiting}/explain").json()["findings"]
        assert "queue_without_app" in {finding["code"] for finding in findings}, findings


def kill_at_work(stack: LocalStack, database: psycopg.Connection[dict[str, Any]], app: str) -> None:
    """SIGKILL for the app's process while it converts; its leases run out now instead of in two minutes."""
    held = "select 1 from app.tasks where task_type = 'flood_risk_convert' and status = 'processing'"
    wait_until(lambda: database.execute(held).fetchone(), "a conversion")
    (pid,) = host_of(stack, app).worker_pids
    os.kill(pid, signal.SIGKILL)
    dead = f"{app}:%:{pid}:%"
    expire = "update app.tasks set lease_expires_at = now() where status = 'processing' and lease_owner like %s"
    wait_until(lambda: pid not in host_of(stack, app).worker_pids, "another process")
    assert database.execute(expire, [dead]).rowcount > 0


def assert_each_app_ran_its_tasks(database: psycopg.Connection[dict[str, Any]]) -> None:
    rows = database.execute("select task_type, queue, lease_owner, status, interruptions from app.tasks").fetchall()
    assert {row["status"] for row in rows} == {"completed"}
    for row in rows:
        queue = ROUTES.get(row["task_type"], "raster")
        assert (row["queue"], row["lease_owner"].split(":")[0]) == (queue, f"worker-{queue}"), row
    assert sum(row["task_type"] == "flood_risk_convert" for row in rows) == 4
    assert any(row["interruptions"] for row in rows)


def host_of(stack: LocalStack, app: str) -> Any:
    assert stack.fleet is not None
    return next(host for each, host in zip(stack.fleet.apps, stack.fleet.hosts, strict=True) if each.name == app)


def leave(stack: LocalStack, app: str) -> None:
    """As an app that is scaled to zero."""
    host_of(stack, app).stop()
