"""apps and queues over real HTTP, against a fake API."""

import json
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import FakeApi

Run = Callable[..., int]
AT = "2026-01-02T03:04:05Z"
FINDING = {"code": "queue_without_app", "severity": "warning", "message": "no live app reads it", "advice": "start one"}
LIVE = {
    "instance": "raster:h:1:a",
    "app_name": "raster",
    "mode": "worker",
    "version": "1.0",
    "release": "r7",
    "queues": ["raster"],
    "task_types": ["cut"],
    "job_types": [],
    "slots": 8,
    "started_at": AT,
    "seen_at": AT,
    "ended_at": None,
    "status": "live",
}
APPS = {"at": AT, "value": [LIVE, {**LIVE, "instance": "old:1", "status": "ended"}], "findings": [FINDING]}
QUEUE = {"queue": "raster", "waiting": 7, "oldest_at": AT, "running": 2, "dead": 1, "consumers": 1, "slots": 8}
QUEUE |= {"retrying": 3, "unannounced": 11000}
QUEUES = {"at": AT, "value": [{**QUEUE, "apps": ["raster", "spare"]}], "findings": []}


def test_apps_are_listed_with_what_is_wrong(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("GET /api/apps", APPS)
    assert run("apps", "-o", "table") == 0
    shown = capsys.readouterr().out
    assert "raster:h:1:a" in shown
    head, row, *_ = shown.splitlines()
    assert head.split()[:5] == ["app", "mode", "release", "version", "status"]
    assert row.split()[:5] == ["raster", "worker", "r7", "1.0", "live"]
    assert "old:1" not in shown
    assert "! no live app reads it\n  → start one" in shown
    assert run("apps", "--all", "-o", "table") == 0
    assert "old:1" in capsys.readouterr().out
    assert run("apps") == 0
    assert json.loads(capsys.readouterr().out) == APPS


def test_queues_are_listed_with_their_readers(api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer("GET /api/queues", QUEUES)
    assert run("queues", "-o", "table") == 0
    head, row = capsys.readouterr().out.splitlines()
    names = "queue, waiting, oldest at, claimed, to retry, not sent yet, dead, consumers, slots, apps"
    assert head.split() == names.replace(",", "").split()
    assert row.split()[-8:] == ["2", "3", "11000", "1", "1", "8", "raster,", "spare"]


def test_a_narrow_terminal_gets_fewer_columns_and_whole_words(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process's name was folded into five lines of eight characters, and so was each time."""
    instance = "worker-heavy:a-host-with-a-name:24168:6c25469a"
    api.answer("GET /api/apps", {**APPS, "value": [{**LIVE, "app_name": "worker-heavy", "instance": instance}]})
    monkeypatch.setenv("COLUMNS", "80")
    assert run("apps", "-o", "table") == 0
    head, row, *rest = capsys.readouterr().out.splitlines()
    assert head.split() == ["app", "mode", "release", "status", "queues", "slots", "seen", "at"]
    assert row.startswith("worker-heavy  worker")
    left_out = "left out, since the terminal is narrow: instance, started at, version; -o json has all"
    assert left_out in " ".join(" ".join(rest).split())
    monkeypatch.setenv("COLUMNS", "160")
    assert run("apps", "-o", "table") == 0
    assert instance in capsys.readouterr().out


def test_advice_for_several_findings_in_a_row_is_shown_once(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty interrupted tasks had the same three lines below each."""
    last = {**FINDING, "message": "the other", "advice": "stop it"}
    api.answer("GET /api/queues", {**QUEUES, "findings": [FINDING, {**FINDING, "message": "nor this"}, last]})
    assert run("queues", "-o", "table") == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines == ["! no live app reads it", "! nor this", "  → start one", "! the other", "  → stop it"]
