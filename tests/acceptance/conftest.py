"""Stacks for the small sample app of the host's tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.stack import LocalStack
from local.stack_file import StackInfo, find_stack

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SAMPLE_APP = PROJECT_ROOT / "tests" / "integration" / "host" / "sample_app"


@pytest.fixture
def sample_settings(tmp_path: Path) -> dict[str, str]:
    return {
        "AzureWebJobs.switched_off.Disabled": "true",
        "JOBS_QUEUE": "coremachine-jobs",
        "SAMPLE_LOG": str(tmp_path / "records.jsonl"),
        "TICK_SCHEDULE": "0 0 0 1 1 *",
    }


@pytest.fixture
def make_stack(tmp_path: Path, sample_settings: dict[str, str]) -> Callable[..., LocalStack]:
    """A stack on free ports that is not started yet."""

    def make(data_dir: Path | None = None, **options: Any) -> LocalStack:
        chosen = {"http_port": 0, "amqp_port": 0, "admin_port": 0, "workers": 1, "app_dir": SAMPLE_APP, **options}
        return LocalStack(data_dir or tmp_path / "stack", environment=sample_settings, **chosen)

    return make


@dataclass
class RunningCommand:
    """`coremachine up` as a user runs it."""

    process: "subprocess.Popen[str]"
    data_dir: Path

    def wait_ready(self) -> StackInfo:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Ctrl-C"):
                info = find_stack(self.data_dir)
                assert info is not None
                return info
        raise AssertionError(f"it ended with status {self.process.wait()} before it was ready")

    def family(self) -> list[psutil.Process]:
        """All processes below it."""
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def run_up(tmp_path: Path, sample_settings: dict[str, str]) -> Iterator[Callable[..., RunningCommand]]:
    started: list[subprocess.Popen[str]] = []

    def run(*options: str, data_dir: Path | None = None) -> RunningCommand:
        data_dir = data_dir or tmp_path / "stack"
        command = [sys.executable, "-m", "cli", "up", "--app-dir", str(SAMPLE_APP), "--data", str(data_dir)]
        command += ["--port", "0", "--amqp-port", "0", "--admin-port", "0", "--workers", "2", *options]
        process = subprocess.Popen(
            command,
            env={**os.environ, **sample_settings, "PYTHONPATH": str(PROJECT_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return RunningCommand(process, data_dir)

    yield run
    for process in started:
        process.kill()
        process.communicate()
