"""Hosts of the stubborn app."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.supervisor import HostSupervisor
from tests.acceptance.steps import wait_until

APP = Path(__file__).parent / "stubborn_app"
QUEUES = ["coremachine-jobs", "coremachine-tasks", "coremachine-raster-tasks"]
NEVER = "0 0 0 1 1 *"
EVERY_SECOND = "* * * * * *"
# What a deaf handler makes a host wait for.
GRACE_SECONDS = 3.0

StartHost = Callable[..., HostSupervisor]


@contextmanager
def starting_hosts(database_url: str, folder: Path, lock_seconds: float = 60.0) -> Iterator[StartHost]:
    """Hosts over one database and one broker, whose log is in the folder; stopped at the end if they still run."""
    with ExitStack() as opened:
        queues = BrokerConfig.for_queues(QUEUES, lock_duration_seconds=lock_seconds)
        broker = opened.enter_context(BrokerThread(queues))

        def start(*, workers: int = 1, **environment: str) -> HostSupervisor:
            settings = {
                "COREMACHINE_DATABASE_URL": database_url,
                "COREMACHINE_SWEEP_SCHEDULE": NEVER,
                "ServiceBusConnection": broker.connection_string,
                **environment,
            }
            host = HostSupervisor(
                APP,
                port=0,
                workers=workers,
                environment=settings,
                log_file=folder / "host.log",
                grace_seconds=GRACE_SECONDS,
            )
            opened.callback(host.stop)
            host.start()
            host.wait_ready(60)
            return host

        yield start


def client(host: HostSupervisor) -> httpx.Client:
    return httpx.Client(base_url=f"{host.url}/api/", timeout=60)


def beginnings(folder: Path, count: int) -> list[dict[str, Any]]:
    """What the handlers wrote down, once they have begun so many times."""
    path = folder / "begun.jsonl"

    def enough() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines] if len(lines) >= count else []

    return wait_until(enough, f"the handler to begin {count} times", 60)
