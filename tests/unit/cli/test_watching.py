"""What is shown while a job is watched."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from coremachine.cli.client import ApiClient, Server
from coremachine.cli.pace import WINDOW_SECONDS, Pace
from coremachine.cli.progress import LINE_SECONDS, JobProgress
from coremachine.cli.watching import MOST_SHOWN, STILL_SECONDS, Watching

from .conftest import JOB_ID, FakeApi, job
from .test_progress import Terminal

Run = Callable[..., int]
LOGS, EXPLAIN = f"GET /api/jobs/{JOB_ID}/logs", f"GET /api/jobs/{JOB_ID}/explain"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def state(done: int, of: int = 1000, *, running: int = 2, **fields: Any) -> dict[str, Any]:
    counts = {"completed": done, "processing": running}
    stage = {"stage": 1, "name": "cut", "expected_count": of, "counts": counts, "status": "processing"}
    return job(stages=[stage], total_stages=1, **fields)


def failure(number: int, event: str = "task_failed", **detail: Any) -> dict[str, Any]:
    return {
        "event_id": number,
        "at": "2026-01-02T03:04:05+00:00",
        "run": 1,
        "stage": 1,
        "task_id": f"s1-{number:06d}",
        "event": event,
        "detail": {"type": "ValueError", "message": f"no tile {number}", "attempt": 1, **detail},
    }


class TestPace:
    def text(self, *looks: tuple[float, int], wait: float = 0.0, **fields: Any) -> str:
        clock = Clock()
        pace, last = Pace(clock), state(0)
        for at, done in looks:
            clock.now = 1000.0 + at
            last = state(done, **fields)
            pace.note(last)
        clock.now += wait
        return pace.text(last, last["stages"][0])

    def test_is_of_the_last_half_minute(self) -> None:
        assert self.text((0, 0), (10, 100)) == "10.0 tasks/s · about 1:30 min left"
        assert self.text((0, 0), (60, 600), (60 + WINDOW_SECONDS, 600 + 30)) == "1.0 tasks/s · about 6:10 min left"
        assert self.text((0, 0), (20, 10)).startswith("30.0 tasks/min · about ")

    def test_falls_while_nothing_ends(self) -> None:
        assert self.text((0, 0), (10, 100), wait=10) == "5.0 tasks/s · about 3:00 min left"

    def test_is_not_made_of_one_moment(self) -> None:
        assert self.text((0, 0), (0.5, 100)) == ""

    def test_has_no_end_where_all_that_is_left_runs_or_it_is_paused(self) -> None:
        assert self.text((0, 0), (10, 998)) == "99.8 tasks/s"
        assert self.text((0, 0), (10, 100), paused=True) == ""
        assert self.text((0, 0), (10, 0)) == ""


def watching(api: FakeApi, file: io.StringIO) -> tuple[Watching, Clock]:
    clock = Clock()
    client = ApiClient(Server(api.url))
    return Watching(client, JOB_ID, JobProgress(file, is_kept=False, clock=clock), clock), clock


class TestFailures:
    def test_each_is_shown_once_with_its_reason(self, api: FakeApi) -> None:
        first, second = failure(7), failure(9, "retry_scheduled", delay_seconds=5)
        api.answer(LOGS, {"value": [first]}, {"value": []}, {"value": [first, second]}, {"value": []})
        file = io.StringIO()
        watch, clock = watching(api, file)
        for done in (1, 2, 3):
            clock.now += LINE_SECONDS
            watch.show(state(done))
        shown = file.getvalue()
        assert shown.count("s1-000007 task_failed attempt 1 ValueError: no tile 7") == 1
        assert shown.count("s1-000009 retry_scheduled attempt 1 ValueError: no tile 9, again in 5.0 s") == 1
        assert {query["after"] for call, query, _ in api.requests if call == LOGS} == {"0"}
        assert {query["run"] for call, query, _ in api.requests if call == LOGS} == {"1"}

    def test_a_flood_of_them_is_cut_with_the_command_that_has_all(self, api: FakeApi) -> None:
        api.answer(LOGS, {"value": [failure(number) for number in range(1, 200)]}, {"value": []})
        file = io.StringIO()
        watch, clock = watching(api, file)
        watch.show(state(1))
        clock.now += 60
        watch.show(state(2))
        assert file.getvalue().count("task_failed") == MOST_SHOWN
        assert file.getvalue().count(f"and more: coremachine failures {JOB_ID[:12]}") == 1

    @pytest.mark.parametrize("status", [404, 503, 500])
    def test_server_that_gives_none_now_ends_no_watch(self, api: FakeApi, status: int) -> None:
        api.answer(LOGS, {"title": "No", "status": status, "code": "x"}, status=status)
        file = io.StringIO()
        watch, _ = watching(api, file)
        watch.show(state(1))
        assert "cut 1/1000" in file.getvalue()


class TestReason:
    def findings(self, code: str, message: str) -> dict[str, Any]:
        return {"findings": [{"code": code, "severity": "warning", "message": message}]}

    def test_job_that_stands_still_is_explained_once_for_each_reason(self, api: FakeApi) -> None:
        absent = self.findings("no_consumer", "no app reads the queue raster")
        api.answer(EXPLAIN, absent, absent, self.findings("paused", "paused by kim"))
        file = io.StringIO()
        watch, clock = watching(api, file)
        watch.show(state(1, running=0))
        for _ in range(4):
            watch.look()
            clock.now += 2
        assert file.getvalue().count("waits: no app reads the queue raster") == 1
        for _ in range(10):
            clock.now += STILL_SECONDS
            watch.look()
        assert file.getvalue().count("waits: no app reads the queue raster") == 1
        assert file.getvalue().count("waits: paused by kim") == 1

    def test_job_whose_tasks_run_is_asked_nothing(self, api: FakeApi) -> None:
        watch, clock = watching(api, io.StringIO())
        watch.show(state(1, running=1))
        clock.now += 600
        watch.look()
        assert EXPLAIN not in {call for call, _, _ in api.requests}

    def test_terminal_shows_the_reason_below_the_bars_until_the_job_moves(
        self, api: FakeApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        api.answer(EXPLAIN, self.findings("paused", "paused by kim"))
        file = Terminal()
        watch, clock = watching(api, file)
        with watch.progress:
            watch.show(state(1, running=0))
            clock.now += STILL_SECONDS
            watch.look()
            shown = file.getvalue()
            assert "waits: paused by kim" in shown
            watch.show(state(2))
            assert "waits" not in file.getvalue()[len(shown) :]


def test_lines_for_one_stage_come_once_in_a_while() -> None:
    clock, file = Clock(), io.StringIO()
    progress = JobProgress(file, clock=clock)
    for done in range(100):
        clock.now += 0.25
        progress.show(state(done))
    progress.show(state(100, status="failed"))
    lines = file.getvalue().splitlines()
    assert 25 / LINE_SECONDS <= len(lines) <= 25 / LINE_SECONDS + 2
    assert "4.0 tasks/s" in lines[2]
    assert "failed" in lines[-1]


def test_pipe_gets_no_control_characters_and_the_bars_once(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    api.answer(f"GET /api/jobs/{JOB_ID}", job(), job("failed", error={"type": "Boom", "message": "no \x1b[2Jdisk"}))
    api.answer(LOGS, {"value": [failure(7, message="bad \x1b[31mtile")]}, {"value": []})
    assert run("watch", JOB_ID, "-o", "table") == 1
    captured = capsys.readouterr()
    assert (captured.out + captured.err).replace("\n", "").isprintable()
    assert captured.out.count("━" * 28) == len(job()["stages"])
    assert "━" not in captured.err
    assert captured.err.count("task_failed attempt 1 ValueError: bad") == 1


def test_terminal_has_the_last_bars_once(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that moved are erased, since the result has them."""
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Terminal()
    with JobProgress(file, is_kept=False) as progress:
        progress.show(job())
        shown = len(file.getvalue())
    assert "\x1b[1A\x1b[2K" in file.getvalue()[shown:]
