"""Progress as parts of a bar, and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.models.dashboard import StageProgress
from core.models.status import JobStatus, TaskStatus
from core.models.view import JobSummary, StageDetail, run_times
from core.operating.brief_reason import BriefReason
from triggers.ui.short_parameters import ShortParameter
from triggers.ui.texts import NO_TASKS, NOTHING, duration, seconds_between

_RATE_SECONDS = 60.0
# Fewer than that end in rounds of all slots, and the last minute has one round or two.
_STEADY_COUNT = 30


@dataclass(frozen=True)
class Part:
    """A part of a bar: `x` and `width` of 100."""

    kind: str
    x: float
    width: float
    count: int


def bar_parts(total: int | None, counts: Mapping[str, int]) -> list[Part]:
    """One after the other, in the order given; what is left stays empty."""
    parts: list[Part] = []
    x = 0.0
    for kind, count in counts.items():
        if total and count > 0:
            width = min(100.0 * count / total, 100.0 - x)
            parts.append(Part(kind, round(x, 2), round(width, 2), count))
            x += width
    return parts


def bar_label(total: int | None, counts: Mapping[str, int]) -> str:
    """For those who do not see the bar."""
    if total is None:
        return "not planned yet"
    if total == 0:
        return NO_TASKS
    found = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{found or 'nothing yet'} of {total:,}"


@dataclass(frozen=True)
class JobRow:
    """A job in the list.

    Args:
        parameters: The most telling ones.
        apps: That have tasks of it, or had the latest.
        reason: Why it waits or failed.
    """

    job: JobSummary
    parts: list[Part]
    label: str
    stage: str
    count: str
    failed: int
    seconds: float | None
    is_running: bool
    parameters: Sequence[ShortParameter] = ()
    apps: Sequence[str] = ()
    reason: BriefReason | None = None


def job_row(job: JobSummary, progress: StageProgress | None, totals: tuple[int, int], now: datetime) -> JobRow:
    """A job with its bar: of its present stage while it runs, of all stages when it has completed."""
    started_at, seconds = run_times(job)
    is_running = not job.status.is_terminal
    if is_running:
        # One that nobody has begun lasts no time: when it was submitted is beside it.
        seconds = None if job.status is JobStatus.QUEUED else seconds_between(started_at, now)
    expected, failed = totals
    counts: dict[str, int] = {}
    total: int | None = None
    if str(job.status).startswith("completed"):
        total, counts = expected or 1, {"done": max(expected - failed, 0) or int(not expected), "failed": failed}
        text = NO_TASKS if not expected else f"{expected:,} tasks" if expected != 1 else "1 task"
    elif progress is None or progress.expected is None:
        failed, text = 0, "not planned yet" if is_running else NOTHING
    else:
        total, failed = progress.expected, progress.failed
        cancelled = max(0, progress.ended - progress.completed - failed)
        counts = {"done": progress.completed, "failed": failed, "cancelled": cancelled, "running": progress.running}
        text = _ended_of(progress.ended, total) if progress.is_counted or not total else f"{total:,} tasks"
    name = progress.name if progress is not None else ""
    stage = f"{job.stage}/{job.total_stages} {name}".strip()
    return JobRow(job, bar_parts(total, counts), bar_label(total, counts), stage, text, failed, seconds, is_running)


@dataclass(frozen=True)
class StageCard:
    """A stage of a job's page."""

    number: int
    name: str
    status: str
    parts: list[Part]
    label: str
    count: str
    notes: list[str]
    budget: str
    budget_is_spent: bool
    seconds: float | None
    speed: str


def stage_cards(
    definition: Mapping[str, Any], stages: tuple[StageDetail, ...], recent: Mapping[int, int], now: datetime
) -> list[StageCard]:
    """A card for each stage of the definition, also those that the job has not come to."""
    known = {stage.stage: stage for stage in stages}
    return [
        _card(known[number], declared, recent.get(number), now) if number in known else _later(number, declared)
        for number, declared in enumerate(definition.get("stages", ()), start=1)
    ]


def _later(number: int, declared: Mapping[str, Any]) -> StageCard:
    name = str(declared.get("name", f"stage {number}"))
    return StageCard(
        number, name, "later", [], "not reached yet", NOTHING, [], "", budget_is_spent=False, seconds=None, speed=""
    )


def _card(stage: StageDetail, declared: Mapping[str, Any], recent: int | None, now: datetime) -> StageCard:
    counts = stage.counts
    shown = {
        "done": counts[TaskStatus.COMPLETED],
        "failed": counts[TaskStatus.FAILED],
        "cancelled": counts[TaskStatus.CANCELLED],
        "running": counts[TaskStatus.PROCESSING],
        "retry": counts[TaskStatus.PENDING_RETRY],
    }
    ended = shown["done"] + shown["failed"] + shown["cancelled"]
    total = stage.expected_count
    notes = [f"{count:,} {word}" for word, count in _notes(shown, counts) if count]
    if stage.max_parallel is not None and counts[TaskStatus.PENDING]:
        notes.append(f"at most {stage.max_parallel:,} at a time")
    budget, is_spent = failure_budget(declared.get("failure") or {}, stage)
    return StageCard(
        number=stage.stage,
        name=stage.name,
        status=str(stage.status),
        parts=bar_parts(total, shown),
        label=bar_label(total, shown),
        count="to be planned" if total is None else _ended_of(ended, total) + (" ended" if shown["cancelled"] else ""),
        notes=notes,
        budget=budget,
        budget_is_spent=is_spent,
        seconds=seconds_between(stage.created_at, stage.finished_at or now),
        speed=_speed(stage, ended, recent, now),
    )


def _ended_of(ended: int, total: int) -> str:
    """As the commands have it: a stage may be planned and have nothing to do."""
    return f"{ended:,} / {total:,}" if total else NO_TASKS


def _notes(shown: Mapping[str, int], counts: Mapping[TaskStatus, int]) -> list[tuple[str, int]]:
    return [
        ("claimed", shown["running"]),
        ("waiting", counts[TaskStatus.PENDING] + counts[TaskStatus.QUEUED]),
        ("to retry", shown["retry"]),
        ("failed", shown["failed"]),
        ("cancelled", shown["cancelled"]),
    ]


def failure_budget(failure: Mapping[str, Any], stage: StageDetail) -> tuple[str, bool]:
    """How many tasks may fail, and whether that is used up."""
    policy = failure.get("on_failure", "fail_job")
    if policy == "continue":
        return "any number may fail", False
    if policy != "tolerate":
        return "none may fail", stage.failed_count > 0
    limits = [failure["max_failed"]] if failure.get("max_failed") is not None else []
    if failure.get("max_failed_percent") is not None and stage.expected_count is not None:
        limits.append(int(stage.expected_count * failure["max_failed_percent"] / 100))
    if not limits:
        return f"{failure.get('max_failed_percent')} % may fail", False
    return f"{stage.failed_count:,} of {min(limits):,} permitted failures", stage.failed_count > min(limits)


def _speed(stage: StageDetail, ended: int, recent: int | None, now: datetime) -> str:
    """Tasks per second in the last minute, or since the stage began where few ended, and when the rest will be done."""
    if stage.finished_at is not None or not recent or stage.expected_count is None:
        return ""
    since_begin = max(1.0, (now - (stage.planned_at or stage.created_at)).total_seconds())
    is_steady = recent >= _STEADY_COUNT and since_begin > _RATE_SECONDS
    # The two are counted one after the other: what ended lately may not be among those that have ended.
    rate = recent / _RATE_SECONDS if is_steady else max(ended, recent) / since_begin
    left = stage.expected_count - ended
    pace = f"{rate:.1f} tasks/s" if rate >= 1 else f"{rate * 60:.1f} tasks/min"
    # How long the last ones take, which all run or wait for a time, has nothing to do with the rate.
    if left <= stage.counts[TaskStatus.PROCESSING] + stage.counts[TaskStatus.PENDING_RETRY]:
        return ""
    return f"{pace} · about {duration(max(1.0, left / rate))} left"
