"""A worker that a function has broken for all that runs in it is replaced, and the log says why."""

import contextlib
from pathlib import Path

import httpx
import pytest

from tests.integration.host.conftest import StartHost, wait_until

WAYS = [
    ("len", "a function has replaced builtins: len"),
    ("json", "its own code failed 5 times in a row (signs of life), last with TypeError"),
    ("descriptors", "it cannot open a file or socket any more: [Errno 24]"),
    ("audit", "it cannot open a file or socket any more: RuntimeError: no file may be opened"),
]


@pytest.mark.parametrize(("way", "reason"), WAYS, ids=[way for way, _ in WAYS])
def test_worker_that_a_function_broke_is_replaced(
    start_host: StartHost, tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str, reason: str
) -> None:
    """It answered 400 to each request, or failed each task with errno 24, and nothing replaced it."""
    host = start_host("rough_app")
    broken = host.worker_pids
    with contextlib.suppress(httpx.TransportError):
        httpx.post(f"{host.url}/api/break/{way}", timeout=5)
    wait_until(lambda: host.worker_pids not in ([], broken), "a new worker", 40)
    host.wait_ready(60)
    assert httpx.get(f"{host.url}/api/pid", timeout=20).text == str(host.worker_pids[0])
    log = (tmp_path / "host.log").read_text()
    assert f"worker_broken pid={broken[0]}: {reason}" in log
    assert "exit_status=74" in caplog.text
