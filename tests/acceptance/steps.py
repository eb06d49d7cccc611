"""What users do, and waiting for what other processes do."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

T = TypeVar("T")
PROJECT_ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], T | None], what: str, timeout_seconds: float = 30.0) -> T:
    """The first truthy value of the condition."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s: {what}"
        time.sleep(0.02)
    return value


def stand_ins_of(process: psutil.Process) -> list[psutil.Process]:
    """The processes that would renew its leases."""
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if "infrastructure.stand_in_process" in child.cmdline():
                found.append(child)
    return found


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def run_command(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": str(PROJECT_ROOT)}
    command = [sys.executable, "-m", "coremachine.cli", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | path | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def submit(http: httpx.Client, job_type: str = "hello_world", **parameters: Any) -> str:
    answer = http.post(f"jobs/submit/{job_type}", json=parameters)
    assert answer.status_code == 202, answer.text
    assert answer.json()["created"]
    return str(answer.json()["job_id"])


def wait_for_end(http: httpx.Client, job_id: str, timeout_seconds: float = 120) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        job: dict[str, Any] = http.get(f"jobs/{job_id}", params={"wait": 20}).json()
        return job if job["finished_at"] else None

    return wait_until(ended, f"the end of job {job_id}", timeout_seconds)
