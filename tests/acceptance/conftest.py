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

from coremachine.local.stack import LocalStack
from coremachine.local.stack_file import StackInfo, find_stack
from tests.acceptance.hosts import StartHost, starting_hosts
from tests.acceptance.installed import Installed, build_wheel, install
from tests.acceptance.steps import PROJECT_ROOT

SAMPLE_APP = PROJECT_ROOT / "tests" / "integration" / "host" / "sample_app"


def settings_in(folder: Path) -> dict[str, str]:
    """The sample app's settings; what its functions were given is written to `records.jsonl` in the folder."""
    return {
        "AzureWebJobs.switched_off.Disabled": "true",
        "JOBS_QUEUE": "coremachine-jobs",
        "SAMPLE_LOG": str(folder / "records.jsonl"),
        "TICK_SCHEDULE": "0 0 0 1 1 *",
    }


def stack_in(folder: Path, **options: Any) -> LocalStack:
    """A stack on free ports that is not started yet."""
    chosen = {"http_port": 0, "amqp_port": 0, "admin_port": 0, "workers": 1, "app_dir": SAMPLE_APP, **options}
    return LocalStack(folder / "stack", environment=settings_in(folder), **chosen)


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """One that runs, for tests that leave it running."""
    with stack_in(tmp_path_factory.mktemp("shared")) as stack:
        yield stack


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, for tests that leave it as it is."""
    return install(wheel, tmp_path_factory.mktemp("installed") / "venv")


@pytest.fixture
def make_stack(tmp_path: Path) -> Callable[..., LocalStack]:
    return lambda folder=tmp_path, **options: stack_in(folder, **options)


@pytest.fixture
def start_host(database_url: str, tmp_path: Path) -> Iterator[StartHost]:
    with starting_hosts(database_url, tmp_path) as start:
        yield start


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
def run_up(tmp_path: Path) -> Iterator[Callable[..., RunningCommand]]:
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> RunningCommand:
        data_dir = tmp_path / "stack"
        command = [sys.executable, "-m", "coremachine.cli", "up", "--app-dir", str(SAMPLE_APP), "--data", str(data_dir)]
        command += ["--port", "0", "--amqp-port", "0", "--admin-port", "0", "--workers", "2", *options]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **settings_in(tmp_path), "PYTHONPATH": str(PROJECT_ROOT)},
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
