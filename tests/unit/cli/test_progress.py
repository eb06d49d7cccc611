"""Bars and cells."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from coremachine.cli.progress import JobProgress, counts_of, deadline_lines, describe_job, render_job, stage_bar
from coremachine.cli.render import duration_text
from tests.unit.cli.conftest import job


@pytest.mark.parametrize(
    ("counts", "expected", "lengths"),
    [
        ({"completed": 5, "failed": 5}, 10, {"green": 14, "red": 14}),
        ({"completed": 1}, 100_000, {"green": 0, "bright_black": 28}),
        ({"completed": 10, "processing": 5}, 10, {"green": 28, "cyan": 0, "bright_black": 0}),
        ({"completed": 3, "failed": 3, "cancelled": 3, "processing": 1}, 10, {"bright_black": 0}),
    ],
)
def test_parts_of_a_bar_are_in_proportion(counts: dict[str, int], expected: int, lengths: dict[str, int]) -> None:
    bar = stage_bar(counts_of({"counts": counts}), expected, is_closed=False)
    assert len(bar.plain) == 28
    drawn = {str(span.style): span.end - span.start for span in bar.spans}
    assert {name: drawn.get(name, 0) for name in lengths} == lengths


def test_stage_without_tasks_is_full_when_it_is_closed() -> None:
    styles = [str(stage_bar(counts_of({}), 0, is_closed=closed).spans[0].style) for closed in (True, False)]
    assert styles == ["green", "bright_black"]


def test_stage_without_tasks_is_named_as_one() -> None:
    console = Console(file=io.StringIO(), width=120)
    (stage, _) = job()["stages"]
    empty = job(stages=[{**stage, "name": "account", "expected_count": 0, "counts": {}}])
    console.print(render_job(empty))
    assert " no tasks" in console.file.getvalue()  # type: ignore[attr-defined]
    assert describe_job(empty).endswith(" · account (no tasks)")


def test_job_is_drawn_with_all_its_stages() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(render_job(job(stages=[*job()["stages"], {"stage": 3, "status": "queued"}])))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1/2 greet" in text
    assert "7/10 · 2 claimed · 1 failed" in text
    assert "to be planned" in text


def test_what_decides_about_the_pace_is_shown() -> None:
    """Not of a stage that has ended, nor the usual priority."""
    console = Console(file=io.StringIO(), width=160)
    first, second = ({**stage, "max_parallel": 4} for stage in job()["stages"])
    console.print(render_job(job(priority="high", stages=[{**first, "finished_at": first["created_at"]}, second])))
    console.print(render_job(job(priority="normal")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("high priority") == text.count("priority") == 1
    assert text.count("at most 4 at once") == 1


def test_declared_deadlines_are_told_with_the_time_that_is_left() -> None:
    soon, past = ((datetime.now(UTC) + timedelta(seconds=seconds)).isoformat() for seconds in (3600.5, -90))
    first, second = job()["stages"]
    stages = [{**first, "deadline_at": past, "finished_at": past}, {**second, "queue_deadline_at": past}]
    lines = list(deadline_lines(job(deadline_at=soon, stages=stages)))
    assert len(lines) == 2
    assert lines[0].startswith("the job must end by ")
    assert lines[0].endswith(", within 1:00:00 h")
    assert lines[1].startswith("tasks of stage 2 must begin by ")
    assert lines[1].endswith(", 1:30 min ago: the next sweep sees to it")
    assert list(deadline_lines(job("failed", deadline_at=soon))) == []


def test_time_of_a_paused_job_stands_still() -> None:
    """Its deadlines are put off when it goes on, so none of them comes nearer, and none has passed."""
    now = datetime.now(UTC)
    deadline, paused_at = ((now - timedelta(seconds=seconds)).isoformat() for seconds in (60, 180))
    (line,) = deadline_lines(job(deadline_at=deadline, paused=True, paused_at=paused_at))
    assert line == "the job must end within 2:00 min of going on"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_beside_the_bars_does_not_stand_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with JobProgress(terminal) as progress:
        progress.show(job())
        shown = len(terminal.getvalue())
        progress.say("[503] asking again")
    rest = terminal.getvalue()[shown:]
    # What was drawn is erased first, and drawn anew after it.
    assert rest.startswith("\r\x1b[2K")
    assert "\x1b[2K[503] asking again\n" in rest
    assert "reply" in rest.partition("asking again")[2]


def test_terminal_gets_bars_that_are_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with JobProgress(terminal) as progress:
        progress.show(job())
        progress.show(job("completed"))
    assert "━" in terminal.getvalue()
    assert "\x1b[2K" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.04, "0.0 s"), (59.9, "59.9 s"), (61.2, "1:01 min"), (7322, "2:02:02 h")]
)
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text
