"""What `coremachine up` says of a stack that has started; the stack itself is a fake."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

import coremachine.local.stack
from coremachine.cli.main import main
from tests.unit.cli.conftest import FakeApi

Run = Callable[..., int]
CHECKS = [{"name": "settings", "ok": False, "detail": "expected a queue, found none"}]


chosen: list[Any] = []


@pytest.fixture
def started(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stack:
        info = SimpleNamespace(url=api.url, database_url="postgresql://x", admin_url="http://x", data_dir="/x")

        def __init__(self, *_: Any, **options: Any) -> None:
            chosen.append(options["apps"])

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing runs."""

        def wait(self) -> None:
            """Ends at once."""

    monkeypatch.setattr(coremachine.local.stack, "LocalStack", Stack)


@pytest.mark.usefixtures("started")
def test_ready_is_said_of_what_is_ready(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A green `ready` stood above `not ready`."""
    api.answer("GET /api/readyz", {"checks": []})
    assert run("up") == 0
    assert f"ready {api.url}/api/docs" in capsys.readouterr().out
    api.answer("GET /api/readyz", {"checks": CHECKS}, status=503)
    assert run("up") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"started {api.url}/api/docs"
    assert "not ready settings: expected a queue, found none" in lines
    assert not any(line.startswith("ready") for line in lines)


@pytest.mark.usefixtures("started")
def test_folder_without_an_app_is_said_to_be_one(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the wrong folder, other job types than one's own were a riddle."""
    api.answer("GET /api/readyz", {"checks": []})
    assert run("up") == 0
    assert "no app" not in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert run("up") == 0
    assert f"no app in {tmp_path} or above it" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setenv("COREMACHINE_JOBS", "first_job:build_registry")
        assert run("up") == 0
        assert "no app" not in capsys.readouterr().out
    (tmp_path / "function_app.py").touch()
    assert run("up") != 0
    assert f"{tmp_path}: expected host.json beside function_app.py, found none" in capsys.readouterr().err


@pytest.mark.usefixtures("started")
def test_password_of_the_database_is_not_shown(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://me:letmein@server/jobs"
    monkeypatch.setattr(coremachine.local.stack.LocalStack.info, "database_url", url)
    api.answer("GET /api/readyz", {"checks": []})
    assert run("up") == 0
    shown = capsys.readouterr().out
    assert "database postgresql://me:" in shown
    assert "letmein" not in shown


@pytest.mark.usefixtures("started")
def test_apps_are_told_with_the_queues_that_nobody_reads(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer("GET /api/readyz", {"checks": []})
    assert run("up", "--apps", "worker:raster,platform") == 0
    assert [app.name for app in chosen[-1]] == ["platform", "worker-raster"]
    lines = capsys.readouterr().out.splitlines()
    assert "platform reads jobs" in lines
    assert "worker-raster reads raster" in lines
    assert "no app reads the queue tasks: its tasks wait" in lines


@pytest.mark.usefixtures("started")
def test_apps_that_cannot_be_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--apps", "worker:gpu,platform") == 1
    assert "expected queues of tasks, raster, found 'gpu'" in capsys.readouterr().err


@pytest.mark.usefixtures("started")
def test_an_app_that_cannot_answer_is_not_ready(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("GET /api/readyz", {"title": "Internal Server Error", "detail": "see the log"}, status=500)
    assert run("up") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"started {api.url}/api/docs"
    assert any(line.startswith("not ready Internal Server Error") for line in lines)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (None, "found no folder: "),
        ([], "found no host.json in it: "),
        (["function_app.py"], "found no host.json in it: "),
        (["host.json"], "function_app.py"),
    ],
)
def test_folder_without_an_app_starts_nothing(
    files: list[str] | None, found: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """PostgreSQL and the broker were started first."""
    folder = tmp_path / "app"
    if files is not None:
        folder.mkdir()
    for name in files or []:
        (folder / name).write_text("{}")
    assert main(["up", "--app-dir", str(folder), "--data", str(tmp_path / "data")]) == 1
    told = capsys.readouterr()
    assert found in told.err
    assert str(folder) in told.err
    assert told.out == ""
    assert not (tmp_path / "data").exists()


def test_ctrl_c_ends_it_while_it_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As later, when it is ready."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coremachine.local.stack.LocalStack, "_start", interrupted)
    assert main(["up", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "stopping\n"


@pytest.mark.usefixtures("started")
def test_ctrl_c_ends_it_before_it_is_shown(
    capsys: pytest.CaptureFixture[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coremachine.cli.up.show_stack", interrupted)
    assert run("up") == 0
    assert capsys.readouterr().out.endswith("stopping\n")
