"""A job's stages as bars that move."""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from coremachine.cli.client import Json
from coremachine.cli.pace import Pace, ended_of
from coremachine.cli.render import (
    console,
    duration_text,
    error_text,
    local_time,
    markup_text,
    seconds_between,
    seconds_of_run,
    status_markup,
    visible,
)

_BAR_WIDTH = 28
# Where there are no bars: a line for the same stage no more often.
LINE_SECONDS = 5.0
_COUNTS = ("pending", "queued", "processing", "pending_retry", "completed", "failed", "cancelled")

_WORDS = (
    ("processing", "claimed", "cyan"),
    ("pending_retry", "to retry", "yellow"),
    ("failed", "failed", "red"),
    ("cancelled", "cancelled", "magenta"),
)


class JobProgress:
    """Shows a job on stderr: live bars on a terminal; elsewhere lines, at most one in a while for the same stage.

    Args:
        is_kept: Whether the last bars stay at the end. Not where the result has them too.
        clock: Seconds, monotonic.
    """

    def __init__(self, file: Any = None, *, is_kept: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console(file or sys.stderr)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=not is_kept)
            if self._console.is_terminal
            else None
        )
        self._clock = clock
        self._pace = Pace(clock)
        self._job: Json | None = None
        self._reason: tuple[str, str] | None = None
        self._last: tuple[Any, ...] = ()
        self._last_line = ""
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, job: Json) -> None:
        """The state as the API gives it."""
        self._job = job
        self._pace.note(job)
        if self._live is not None:
            self._draw()
            return
        state = (job.get("run"), job["status"], job.get("paused"), len(job.get("stages", [])))
        if state == self._last and self._clock() - self._shown_at < LINE_SECONDS:
            return
        line = describe_job(job, self._pace)
        if line != self._last_line:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
            self._last, self._last_line, self._shown_at = state, line, self._clock()

    def explain(self, reason: tuple[str, str] | None) -> None:
        """Why the job waits, as the code of a finding and its text; None: it moves."""
        is_new = reason is not None and (self._reason is None or reason[0] != self._reason[0])
        self._reason = reason
        if reason is None:
            return
        if self._live is not None:
            self._draw()
        elif is_new:
            self.say(f"waits: {reason[1]}")

    def tick(self) -> None:
        """Time passes in the bars, too."""
        if self._live is not None and self._clock() - self._shown_at >= 1.0:
            self._draw()

    def say(self, text: str | Text) -> None:
        """A line above the bars, which stay whole."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._live is None or self._job is None:
            return
        self._shown_at = self._clock()
        parts = [render_job(self._job, self._pace)]
        if self._reason is not None:
            parts.append(Text(f"waits: {self._reason[1]}", style="yellow"))
        self._live.update(Group(*parts), refresh=True)


def render_job(job: Json, pace: Pace | None = None) -> RenderableType:
    """Head, a bar for each stage, the error if there is one; with a pace while it runs."""
    elapsed = duration_text(seconds_of_run(job))
    run = f" · run {job['run']}" if job.get("run", 1) > 1 else ""
    run += " · paused" if job.get("paused") else ""
    run += f" · {visible(str(job['priority']))} priority" if job.get("priority", "normal") != "normal" else ""
    head = markup_text(
        f"[bold]{escape(visible(job['job_type']))}[/bold] {job['job_id'][:12]} {status_markup(job['status'])}"
        f"{run} · {elapsed}"
    )
    table = Table.grid(padding=(0, 2))
    for stage in job.get("stages", []):
        speed = [Text(pace.text(job, stage), style="cyan")] if pace is not None else []
        table.add_row(*stage_cells(stage, job.get("total_stages")), *speed)
    parts: list[RenderableType] = [head, table]
    if deadlines := list(deadline_lines(job)):
        parts.append(Text("\n".join(deadlines), style="yellow"))
    if job.get("error"):
        place = f"`coremachine status {job['job_id'][:12]} -o json`"
        parts.append(Text(error_text(job["error"], see=place), style="red"))
    return Group(*parts)


def deadline_lines(job: Json) -> Iterator[str]:
    """What must have happened by when, of what is declared and still open."""
    if job.get("finished_at") is not None:
        return
    places = [("the job", job, "deadline_at", "end")]
    for stage in job.get("stages", []):
        if stage.get("finished_at") is None:
            name = f"stage {stage['stage']}"
            places += [(name, stage, "deadline_at", "end"), (f"tasks of {name}", stage, "queue_deadline_at", "begin")]
    # The time of a pause does not count: the deadlines are put off by it when the job goes on.
    paused_at = job.get("paused_at")
    now = datetime.fromisoformat(paused_at) if paused_at else datetime.now(UTC)
    for subject, row, field, verb in places:
        if row.get(field) is not None:
            left = (datetime.fromisoformat(row[field]) - now).total_seconds()
            if paused_at and left > 0:
                yield f"{subject} must {verb} within {duration_text(left)} of going on"
                continue
            when = (
                f"within {duration_text(left)}"
                if left > 0
                else f"{duration_text(-left)} ago: the next sweep sees to it"
            )
            yield f"{subject} must {verb} by {local_time(row[field])}, {when}"


def stage_cells(stage: Json, total_stages: int | None) -> tuple[Text, ...]:
    counts = counts_of(stage)
    expected = stage.get("expected_count")
    of = f"/{total_stages}" if total_stages else ""
    words = ["no tasks" if expected == 0 else "to be planned" if expected is None else f"{ended_of(stage)}/{expected}"]
    if expected and counts["cancelled"]:
        words[0] += " ended"
    for name, style in (
        ("processing", "cyan"),
        ("pending_retry", "yellow"),
        ("failed", "red"),
        ("cancelled", "magenta"),
    ):
        if counts[name]:
            label = {"processing": "claimed", "pending_retry": "to retry"}.get(name, name)
            words.append(f"[{style}]{counts[name]} {label}[/{style}]")
    if stage.get("max_parallel") and not stage.get("finished_at"):
        words.append(f"at most {stage['max_parallel']} at once")
    elapsed = duration_text(seconds_between(stage.get("created_at"), stage.get("finished_at")))
    return (
        Text(f"{stage['stage']}{of} {visible(stage.get('name') or stage.get('task_type', ''))}"),
        stage_bar(counts, expected, is_closed=stage.get("finished_at") is not None),
        markup_text(" · ".join(words)),
        Text(elapsed, style="dim"),
    )


def stage_bar(counts: dict[str, int], expected: int | None, *, is_closed: bool) -> Text:
    """Parts for what is completed, failed, cancelled and running; a stage of no tasks is full when it is closed."""
    bar = Text()
    if not expected:
        return bar.append("━" * _BAR_WIDTH, style="green" if is_closed else "bright_black")
    drawn = seen = 0
    for name, style in (("completed", "green"), ("failed", "red"), ("cancelled", "magenta"), ("processing", "cyan")):
        seen += counts[name]
        until = min(_BAR_WIDTH, _BAR_WIDTH * seen // expected)
        bar.append("━" * (until - drawn), style=style)
        drawn = until
    return bar.append("━" * (_BAR_WIDTH - drawn), style="bright_black")


def counts_of(stage: Json) -> dict[str, int]:
    given = stage.get("counts") or {}
    return {name: int(given.get(name, 0)) for name in _COUNTS}


def describe_job(job: Json, pace: Pace | None = None) -> str:
    """The state in one line of plain text."""
    parts = [f"{job['job_id'][:12]} {job['status']}{' (paused)' if job.get('paused') else ''}"]
    for stage in job.get("stages", []):
        counts = counts_of(stage)
        expected = stage.get("expected_count")
        done = "(no tasks)" if expected == 0 else f"{ended_of(stage)}/{'?' if expected is None else expected}"
        text = f"{stage.get('name') or stage['stage']} {done}"
        parts.append(f"{text} ({counts['failed']} failed)" if counts["failed"] else text)
        if pace is not None and (speed := pace.text(job, stage)):
            parts.append(speed)
    return visible(" · ".join(parts))
