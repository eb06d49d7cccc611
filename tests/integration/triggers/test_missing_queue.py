"""The whole app in the Functions host, with a task queue in its settings that nobody made."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from infrastructure.migrations import Migrator

ROOT = Path(__file__).parents[3]


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create database missing_queue")
    url = make_conninfo(postgres_url, dbname="missing_queue")
    with psycopg.connect(url) as connection:
        Migrator(connection).migrate()
    yield url
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("drop database missing_queue with (force)")


@pytest.fixture
def http(database_url: str, project_broker: BrokerThread, tmp_path: Path) -> Iterator[httpx.Client]:
    environment = {
        "COREMACHINE_DATABASE_URL": database_url,
        "COREMACHINE_TASK_QUEUES": "tasks=nobody-made-it,raster=coremachine-raster-tasks",
        "ServiceBusConnection": project_broker.connection_string,
    }
    host = HostSupervisor(ROOT, port=0, workers=1, environment=environment, log_file=tmp_path / "host.log")
    host.start()
    try:
        host.wait_ready(60)
        with httpx.Client(base_url=host.url, timeout=60) as client:
            yield client
    finally:
        host.stop()


def ask_until(is_so: Callable[[dict[str, Any]], bool], http: httpx.Client, path: str) -> dict[str, Any]:
    """The first answer that is so, within a minute."""
    until = time.monotonic() + 60
    while not is_so(found := http.get(path).json()):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def test_missing_queue_is_named_by_readyz_and_as_the_reason_why_a_job_stands(http):
    """Its tasks were shown as pending, and nothing but the log said why."""
    # The first answers may come before the broker's.
    answer = ask_until(lambda found: found["status"] != "ready", http, "/api/readyz")
    (failed,) = [check for check in answer["checks"] if not check["ok"]]
    assert failed["name"] == "service_bus"
    assert "expected a queue 'nobody-made-it' in the namespace, found none; create it" in failed["detail"]

    job_id = http.post("/api/jobs/submit/hello_world", json={"n": 500}).json()["job_id"]
    answer = ask_until(
        lambda found: any(each["code"] == "queue_missing" for each in found["findings"]),
        http,
        f"/api/jobs/{job_id}/explain",
    )
    finding = answer["findings"][0]
    assert (finding["code"], finding["severity"]) == ("queue_missing", "error")
    assert "'tasks' is not there, and tasks of stage 1 can only come through it" in finding["message"]
    assert finding["advice"].startswith("expected a queue 'nobody-made-it' in the namespace, found none; create it")
