"""Messages as the SDK delivers them, a host on the sample app, patience without fixed sleeps."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Message, Properties
from azure.servicebus._pyamqp.types import TYPE, VALUE, AMQPTypes

from coremachine.local.host.supervisor import HostSupervisor

HERE = Path(__file__).parent
# Nothing listens on port 1: the pump must live with that.
NO_BROKER = "Endpoint=sb://localhost:1;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"
SETTINGS = {
    "AzureWebJobs.switched_off.Disabled": "true",
    "JOBS_QUEUE": "jobs",
    "ServiceBusConnection": NO_BROKER,
    "TICK_SCHEDULE": "0 0 0 1 1 *",
}


def received_message(
    body: bytes = b"body",
    *,
    message_id: str = "m1",
    delivery_count: int = 0,
    lock_seconds: float = 30.0,
    time_to_live_seconds: float | None = None,
    properties: dict[Any, Any] | None = None,
    **fields: str,
) -> ServiceBusReceivedMessage:
    """A message encoded and decoded by the SDK's own codec."""

    def timestamp(moment: datetime) -> dict[Any, Any]:
        return {TYPE: AMQPTypes.timestamp, VALUE: int(moment.timestamp() * 1000)}

    enqueued = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    ttl = None if time_to_live_seconds is None else int(time_to_live_seconds * 1000)
    message = Message(
        header=Header(delivery_count=delivery_count, ttl=ttl),
        properties=Properties(message_id=message_id, **fields),
        application_properties=properties,
        message_annotations={
            "x-opt-sequence-number": {TYPE: AMQPTypes.long, VALUE: 42},
            "x-opt-enqueued-time": timestamp(enqueued),
            "x-opt-locked-until": timestamp(datetime.now(UTC) + timedelta(seconds=lock_seconds)),
            "x-opt-partition-key": "partition",
        },
        data=[body],
    )
    received = ServiceBusReceivedMessage.from_bytes(bytes(encode_payload(bytearray(), message)))
    received._delivery_tag = uuid.UUID(int=7).bytes_le
    return received


def wait_until(condition: Callable[[], Any], what: str, timeout_seconds: float = 60.0) -> Any:
    """The first truthy value of the condition."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.01)


class SampleLog:
    """What the sample app's functions wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def wait_for(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        def enough() -> list[dict[str, Any]]:
            found = self.records(kind)
            return found if len(found) >= count else []

        return wait_until(enough, f"{count} records of kind {kind!r}")


@pytest.fixture
def sample_log(tmp_path: Path) -> SampleLog:
    return SampleLog(tmp_path / "records.jsonl")


StartHost = Callable[..., HostSupervisor]


@contextmanager
def starting_hosts(folder: Path, sample_log: Path) -> Iterator[StartHost]:
    """Starts hosts, and stops them at the end; their output is in `host.log` of the folder."""
    started: list[HostSupervisor] = []

    def start(app: str = "sample_app", *, settings: dict[str, str] | None = None, **options: Any) -> HostSupervisor:
        supervisor = HostSupervisor(
            HERE / app,
            port=0,
            environment={**SETTINGS, "SAMPLE_LOG": str(sample_log), **(settings or {})},
            log_file=folder / "host.log",
            **{"workers": 1, "grace_seconds": 5.0, **options},
        )
        supervisor.start()
        started.append(supervisor)
        supervisor.wait_ready(120)
        return supervisor

    try:
        yield start
    finally:
        for supervisor in started:
            supervisor.stop()


@pytest.fixture
def start_host(tmp_path: Path, sample_log: SampleLog) -> Iterator[StartHost]:
    with starting_hosts(tmp_path, sample_log.path) as start:
        yield start


@dataclass
class SharedHost:
    """A host that other tests use too: they leave it running, and look only at what is new in its log."""

    supervisor: HostSupervisor
    log_file: Path
    sample_log: SampleLog
    begin: int = 0

    @property
    def log(self) -> str:
        """What it wrote since the test began."""
        return self.log_file.read_bytes()[self.begin :].decode()


@pytest.fixture(scope="module")
def _shared_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], SharedHost]]:
    hosts: dict[str, SharedHost] = {}
    with ExitStack() as opened:

        def get(app: str) -> SharedHost:
            if app not in hosts:
                folder = tmp_path_factory.mktemp(app)
                records = SampleLog(folder / "records.jsonl")
                start = opened.enter_context(starting_hosts(folder, records.path))
                hosts[app] = SharedHost(start(app), folder / "host.log", records)
            return hosts[app]

        yield get


@pytest.fixture
def shared_host(_shared_hosts: Callable[[str], SharedHost]) -> Callable[..., SharedHost]:
    """One host per app and test file, with one worker, for tests that leave it as they found it."""

    def get(app: str = "sample_app") -> SharedHost:
        host = _shared_hosts(app)
        host.begin = host.log_file.stat().st_size
        return host

    return get
