"""A run's time as lanes: a line for each stage, and one for each task; many tasks become a heat strip.

Tasks that failed, were interrupted, needed more than one attempt or were slow come first in their stage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from core.models.dashboard import AttemptMark, PulseCell, PulseWindow, TaskBar
from core.models.status import TaskStatus
from core.models.view import StageDetail
from triggers.ui.texts import duration, seconds_between

# A run of more tasks is drawn as heat strips.
MOST_BARS = 200
CELLS = 100
# Lanes of a stage that are seen at once; the others are folded if they are more than a few.
_SEEN, _FEW = 12, 6
# A task is slow if it took this many times what half of its stage did not take; where a run is drawn as heat strips,
# what the ended tasks of its stage took on average. The three slowest are named.
_SLOW_TIMES, _SLOWEST = 2.0, 3
_MOST_TICKS = 6
_LEAST_WIDTH = 0.35
_HEAT_STEPS = 5
_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000),
)
_MARK_WORDS = {
    "retry_scheduled": "attempt failed, to be retried",
    "task_failed": "task failed",
    "task_interrupted": "interrupted: its process was lost",
}


@dataclass(frozen=True)
class Block:
    """A part of a lane; `x` and `width` are percent of the run's time."""

    kind: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class Mark:
    """A moment of a lane."""

    kind: str
    x: float
    title: str


@dataclass(frozen=True)
class Lane:
    """A line. `task_id` is empty for a stage's own; `why` is what is unusual about a task."""

    name: str
    task_id: str = ""
    status: str = ""
    blocks: Sequence[Block] = ()
    marks: Sequence[Mark] = ()
    text: str = ""
    why: str = ""


@dataclass(frozen=True)
class StageLanes:
    """A stage: its own line, its heat strip, and its tasks, of which `folded` are shown on request."""

    own: Lane
    heat: Lane | None = None
    tasks: Sequence[Lane] = ()
    folded: Sequence[Lane] = ()

    @property
    def lanes(self) -> list[Lane]:
        return [self.own, *([self.heat] if self.heat else []), *self.tasks, *self.folded]


@dataclass(frozen=True)
class Timeline:
    """`ticks`: places on the axis, with the time since the run began."""

    ticks: Sequence[tuple[float, str]]
    stages: Sequence[StageLanes]
    is_heat: bool = False
    # The greatest number of tasks that one cell of a heat strip holds.
    most: int = 0

    @property
    def lanes(self) -> list[Lane]:
        return [lane for stage in self.stages for lane in stage.lanes]


@dataclass(frozen=True)
class RunTimes:
    """What a timeline is drawn from. With `pulse`, the bars are those of unusual tasks alone."""

    window: PulseWindow
    stages: Sequence[StageDetail]
    bars: Sequence[TaskBar] = ()
    marks: Sequence[AttemptMark] = ()
    pulse: Sequence[PulseCell] = field(default=())


def window_of(begin: datetime, end: datetime) -> PulseWindow:
    """At least 100 ms long, so that everything in it has a place."""
    return PulseWindow(begin, max(end, begin + timedelta(milliseconds=100)), CELLS)


def draw(times: RunTimes) -> Timeline:
    """With a lane for each task if there are few, else with heat strips and the unusual tasks."""
    place = _Scale(times.window)
    most = max((cell.completed + cell.failed for cell in times.pulse), default=0)
    marks: dict[str, list[AttemptMark]] = {}
    for mark in times.marks:
        marks.setdefault(mark.task_id, []).append(mark)
    stages: list[StageLanes] = []
    for stage in times.stages:
        heat = [cell for cell in times.pulse if cell.stage == stage.stage]
        bars = [bar for bar in times.bars if bar.stage == stage.stage]
        # Of a few tasks, all are seen: none is slow beside others.
        has_many = (stage.expected_count or 0) > _SEEN
        usual_seconds = _mean_seconds(heat) if times.pulse and has_many else None
        found = _find_unusual(bars, marks, place.end, usual_seconds)
        usual = [bar for bar in bars if bar.task_id not in found]
        # What runs now is looked for more often than what has ended.
        usual.sort(key=lambda bar: bar.status is not TaskStatus.PROCESSING)
        first = sorted((bar for bar in bars if bar.task_id in found), key=lambda bar: found[bar.task_id][0])
        begun_at = _begin_of(stage, bars)
        lanes = [
            _task_lane(bar, marks.get(bar.task_id, ()), begun_at, place, found.get(bar.task_id, (0, ""))[1])
            for bar in (*first, *usual)
        ]
        seen = max(_SEEN, len(first))
        seen = len(lanes) if len(lanes) - seen <= _FEW else seen
        heat_lane = _heat_lane(heat, most) if times.pulse else None
        stages.append(StageLanes(_stage_lane(stage, begun_at, place), heat_lane, lanes[:seen], lanes[seen:]))
    return Timeline(place.ticks(), stages, is_heat=bool(times.pulse), most=most)


def _find_unusual(
    bars: Sequence[TaskBar], marks: Mapping[str, Sequence[AttemptMark]], end: datetime, usual_seconds: float | None
) -> dict[str, tuple[tuple[float, ...], str]]:
    """By task id, where it comes among the unusual ones, and what is unusual.

    Args:
        usual_seconds: What a task of the stage takes, 0 where none has ended; None: what half of these bars take.
    """
    own = [bar for bar in bars if bar.from_run is None]
    seconds = {bar.task_id: seconds_between(bar.started_at, bar.finished_at or end) or 0.0 for bar in own}
    slowest = sorted(own, key=lambda bar: -seconds[bar.task_id])[:_SLOWEST]
    usual = usual_seconds if usual_seconds is not None else median(seconds.values()) if seconds else 0.0
    slow = {bar.task_id for bar in slowest if seconds[bar.task_id] > _SLOW_TIMES * usual > 0}
    found: dict[str, tuple[tuple[float, ...], str]] = {}
    for bar in own:
        interruptions = max(bar.interruptions, sum(m.event == "task_interrupted" for m in marks.get(bar.task_id, ())))
        reasons = (
            (bar.status is TaskStatus.FAILED, "failed", -bar.attempt),
            (interruptions > 0, "interrupted" + (f" {interruptions}\u00d7" if interruptions > 1 else ""), 0),
            (bar.attempt > 1 or bar.task_id in marks, "retried", -bar.attempt),
            (bar.status is TaskStatus.PENDING_RETRY, "postponed", 0),
            (bar.task_id in slow, "slow", 0),
        )
        for rank, (is_so, why, second) in enumerate(reasons):
            if is_so:
                found[bar.task_id] = ((rank, second, -seconds[bar.task_id]), why)
                break
    return found


def _mean_seconds(cells: Iterable[PulseCell]) -> float:
    """What the attempts of tasks that ended took on average; 0 where none has."""
    counted = [(cell.completed + cell.failed, cell.seconds) for cell in cells]
    count = sum(each for each, _ in counted)
    return sum(seconds for _, seconds in counted) / count if count else 0.0


class _Scale:
    """Moments to percent."""

    def __init__(self, window: PulseWindow) -> None:
        self._begin, self.end = window.begin, window.end
        self._seconds = (window.end - window.begin).total_seconds()

    def at(self, moment: datetime) -> float:
        share = (moment - self._begin).total_seconds() / self._seconds
        return round(100.0 * min(1.0, max(0.0, share)), 3)

    def block(self, kind: str, begin: datetime, end: datetime, title: str) -> Block:
        x = self.at(begin)
        width = max(_LEAST_WIDTH, round(self.at(end) - x, 3))
        return Block(kind, min(x, 100.0 - _LEAST_WIDTH), min(width, 100.0 - min(x, 100.0 - _LEAST_WIDTH)), title)

    def ticks(self) -> list[tuple[float, str]]:
        step = next((step for step in _STEPS if self._seconds / step <= _MOST_TICKS), self._seconds / _MOST_TICKS)
        count = int(self._seconds / step)
        return [
            (round(100.0 * index * step / self._seconds, 3), "0" if not index else duration(index * step))
            for index in range(count + 1)
        ]


def _begin_of(stage: StageDetail, bars: Iterable[TaskBar]) -> datetime | None:
    """When it was planned, or its first task began: those that run inline do so before the plan is written."""
    if stage.planned_at is None:
        return None
    own = (bar.started_at for bar in bars if bar.from_run is None and bar.started_at is not None)
    return min([stage.planned_at, *own])


def _stage_lane(stage: StageDetail, begun_at: datetime | None, place: _Scale) -> Lane:
    blocks = []
    if stage.from_run is None or begun_at is not None:
        planned = begun_at or stage.finished_at or place.end
        blocks.append(place.block("planning", stage.created_at, planned, "waited to be planned"))
    if begun_at is not None:
        end = stage.finished_at or place.end
        text = f"{stage.name}: {duration(seconds_between(begun_at, end))}"
        blocks.append(place.block(f"stage-{_tone(str(stage.status))}", begun_at, end, text))
    seconds = seconds_between(stage.created_at, stage.finished_at or place.end)
    kept = f" · kept from run {stage.from_run}" if stage.from_run else ""
    return Lane(f"{stage.stage}  {stage.name}{kept}", status=str(stage.status), blocks=blocks, text=duration(seconds))


def _task_lane(
    bar: TaskBar, marks: Iterable[AttemptMark], stage_begun_at: datetime | None, place: _Scale, why: str
) -> Lane:
    if bar.from_run is not None:
        return Lane(bar.name or bar.task_id, bar.task_id, str(bar.status), text=f"kept from run {bar.from_run}")
    waited_from = stage_begun_at or bar.created_at
    end = bar.finished_at or place.end
    blocks = []
    waits = {TaskStatus.PENDING_RETRY, TaskStatus.PENDING, TaskStatus.QUEUED}
    is_waiting_again = bar.started_at is not None and bar.status in waits
    if bar.started_at is None:
        blocks.append(place.block("waiting", waited_from, end, "waited"))
    else:
        blocks.append(place.block("waiting", waited_from, bar.started_at, "waited, or earlier attempts"))
        if not is_waiting_again:
            text = f"attempt {bar.attempt}: {duration(seconds_between(bar.started_at, end))}"
            blocks.append(place.block(f"task-{_tone(str(bar.status))}", bar.started_at, end, text))
        else:
            blocks.append(place.block("waiting", bar.started_at, end, "waits for its next attempt"))
    shown = [
        Mark(
            _mark_kind(mark.event),
            place.at(mark.at),
            f"{_MARK_WORDS.get(mark.event, mark.event)}: {mark.error_type or ''}".rstrip(": "),
        )
        for mark in marks
    ]
    ran = seconds_between(bar.started_at, end) if bar.started_at else None
    text = "waits" if is_waiting_again else duration(ran)
    text += f" · attempt {bar.attempt}" if bar.attempt > 1 else ""
    return Lane(bar.name or bar.task_id, bar.task_id, str(bar.status), blocks, shown, text, why)


def _heat_lane(cells: Sequence[PulseCell], most: int) -> Lane:
    blocks = []
    for cell in cells:
        total = cell.completed + cell.failed
        if not total:
            continue
        step = max(1, min(_HEAT_STEPS, -(-_HEAT_STEPS * total // max(most, 1))))
        title = f"{cell.completed:,} completed" + (f", {cell.failed:,} failed" if cell.failed else "")
        x, width = cell.cell * 100.0 / CELLS, 100.0 / CELLS
        blocks.append(Block(f"heat-done-{step}", x, width, title))
        if cell.failed:
            blocks.append(Block("heat-failed", x, width, title))
    ended = sum(cell.completed + cell.failed for cell in cells)
    return Lane("tasks that ended", blocks=blocks, text=f"{ended:,} tasks" if ended != 1 else "1 task")


_TONES: Mapping[str, str] = {
    "completed": "done",
    "completed_with_errors": "warned",
    "failed": "failed",
    "cancelled": "cancelled",
    "processing": "running",
}


def _tone(status: str) -> str:
    return _TONES.get(status, "waiting")


def _mark_kind(event: str) -> str:
    return {"task_interrupted": "interrupted", "task_failed": "failed"}.get(event, "retried")
