"""What people do with schedules: write, pause, resume, run now, delete; and look ahead."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import uuid4

from core.advancing.unchecked import note_unchecked
from core.authors.job_class import validate
from core.basics.canonical import NotJson, encode_storable
from core.errors import InvalidParameters, UnknownWork
from core.models.fields import expectation
from core.models.schedule import CatchUp, Overlap, PlannedTick, ScheduleFacts, ScheduleRecord, TickPlan, TickRecord
from core.ports import JobCatalog, ScheduleStore
from core.scheduling.cron import check_cron, find_zone, first_tick, ticks_after
from core.scheduling.placeholders import check_placeholders, fill_in, find_dependent
from core.scheduling.plan import plan_resume
from core.scheduling.ticker import HOLD_SECONDS, ScheduleTicker

# Of one change: another one came in between each time.
_MOST_TRIES = 10


class ScheduleChanged(Exception):
    """Others changed the schedule all the time; nothing was written."""


@dataclass(frozen=True)
class ScheduleWish:
    """A schedule as somebody writes it; see `ScheduleRecord` for the fields."""

    name: str
    job_type: str
    cron: str
    parameters: Mapping[str, Any]
    time_zone: str = "UTC"
    catch_up: CatchUp = CatchUp.LATEST
    overlap: Overlap = Overlap.SKIP
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    description: str | None = None


@dataclass(frozen=True)
class Written:
    """A schedule that was written. `notes`: what could not be checked now, and will show at its ticks."""

    schedule: ScheduleRecord
    created: bool
    notes: tuple[str, ...]


class Schedules:
    """All that is done with schedules but their ticks, which `ScheduleTicker` acts on.

    Args:
        most_bytes: The largest size of parameters, as JSON.
    """

    def __init__(self, store: ScheduleStore, catalog: JobCatalog, ticker: ScheduleTicker, *, most_bytes: int) -> None:
        self._store = store
        self._catalog = catalog
        self._ticker = ticker
        self._most_bytes = most_bytes

    def put(self, wish: ScheduleWish, *, actor: str | None = None) -> Written:
        """Write a schedule, or replace the one of its name. A pause stays.

        Raises:
            ValueError: The expression, the zone, the times or a placeholder cannot be used; has the field's name.
            InvalidParameters: The job type refuses the parameters.
        """
        cron = _of_field("cron", check_cron, wish.cron)
        _of_field("time_zone", find_zone, wish.time_zone)
        if wish.starts_at is not None and wish.ends_at is not None and wish.ends_at <= wish.starts_at:
            raise _named("ends_at", expectation(f"a time after {wish.starts_at}", str(wish.ends_at)))
        check_placeholders(wish.parameters)
        try:
            encode_storable(dict(wish.parameters), "parameters", most_bytes=self._most_bytes)
        except NotJson as error:
            raise InvalidParameters(str(error)) from error
        wish = replace(wish, cron=cron)
        notes = self._check_parameters(wish)
        for _ in range(_MOST_TRIES):
            seen = self._decide_before(wish)
            schedule, plan = self._new_row(wish, seen)
            outcome = self._store.put_schedule(schedule, plan.ticks, seen=seen, actor=actor)
            if outcome != "changed":
                written = self._store.find_schedule(wish.name) or schedule
                if written.next_tick_at is None:
                    notes.append("it has no tick any more: its end has passed, or lies before its first tick")
                return Written(written, outcome == "created", tuple(notes))
        raise ScheduleChanged(wish.name)

    def pause(self, name: str, *, reason: str | None = None, actor: str | None = None) -> ScheduleRecord | None:
        """Decide about no more of its ticks; None for an unknown one. Those that are due already keep their jobs."""
        schedule = self._store.find_schedule(name)
        if schedule is not None and schedule.paused_at is None:
            self._ticker.decide(schedule)
        if self._store.pause_schedule(name, reason=reason, actor=actor) is None:
            return None
        return self._store.find_schedule(name)

    def resume(self, name: str, *, reason: str | None = None, actor: str | None = None) -> ScheduleRecord | None:
        """Go on with the next tick; those that passed are skipped. None for an unknown one."""
        for _ in range(_MOST_TRIES):
            seen = self._store.find_schedule(name)
            if seen is None or seen.paused_at is None:
                return seen
            plan = plan_resume(seen, self._store.read_clock())
            if self._store.resume_schedule(seen, plan, reason=reason, actor=actor):
                return self._store.find_schedule(name)
        raise ScheduleChanged(name)

    def run_now(self, name: str, *, actor: str | None = None) -> TickRecord | None:
        """Submit a job as if a tick were now, whatever runs or is paused; None for an unknown schedule."""
        schedule = self._store.find_schedule(name)
        if schedule is None:
            return None
        now = self._store.read_clock()
        # Ticks of the expression have whole seconds: none of them is taken for this one.
        at = now.replace(microsecond=now.microsecond or 1)
        parameters = fill_in(schedule.parameters, _local(schedule, now.replace(microsecond=0)))
        planned = PlannedTick(at, parameters, uuid4().hex)
        tick = self._store.add_manual_tick(name, planned, actor=actor, hold_seconds=HOLD_SECONDS)
        if tick is None:
            return None
        self._ticker.submit(tick)
        return self._store.find_tick(name, tick.tick_at)

    def delete(self, name: str, *, actor: str | None = None) -> bool:
        """Whether it was there. Its jobs stay."""
        return self._store.delete_schedule(name, actor=actor)

    def next_times(self, schedule: ScheduleRecord, count: int) -> list[datetime]:
        """The next times of its expression, on its zone's clock, from now or its start on; paused or not."""
        zone = find_zone(schedule.time_zone)
        now = self._store.read_clock()
        first = first_tick(
            schedule.cron, schedule.time_zone, now, starts_at=schedule.starts_at, ends_at=schedule.ends_at
        )
        if first is None:
            return []
        times = ticks_after(schedule.cron, schedule.time_zone, first - timedelta(seconds=1))
        return [
            moment.astimezone(zone)
            for moment in islice(times, count)
            if schedule.ends_at is None or moment <= schedule.ends_at
        ]

    def find_facts(self, name: str) -> ScheduleFacts | None:
        """What `core.scheduling.explain` looks at."""
        facts = self._store.find_facts(name)
        if facts is None:
            return None
        return replace(facts, is_known_job_type=self._is_known(facts.schedule.job_type))

    def _decide_before(self, wish: ScheduleWish) -> ScheduleRecord | None:
        """The schedule that is there, with nothing due: what was due before a change gets what it was due for."""
        seen = self._store.find_schedule(wish.name)
        if seen is not None and seen.paused_at is None and self._ticker.decide(seen):
            return self._store.find_schedule(wish.name)
        return seen

    def _new_row(self, wish: ScheduleWish, seen: ScheduleRecord | None) -> tuple[ScheduleRecord, TickPlan]:
        now = self._store.read_clock()
        row = ScheduleRecord(**{**wish.__dict__, "parameters": dict(wish.parameters)})
        plan = TickPlan((), None)
        if seen is not None and _times_of(seen) == _times_of(row):
            return row.model_copy(update={"next_tick_at": seen.next_tick_at}), plan
        if seen is not None and seen.paused_at is not None:
            plan = plan_resume(seen, now)
        following = first_tick(row.cron, row.time_zone, now, starts_at=row.starts_at, ends_at=row.ends_at)
        return row.model_copy(update={"next_tick_at": following}), plan

    def _is_known(self, job_type: str) -> bool:
        try:
            self._catalog.get_job(job_type)
        except UnknownWork:
            return False
        return True

    def _check_parameters(self, wish: ScheduleWish) -> list[str]:
        """What could not be checked. Raises InvalidParameters for what no tick could change."""
        try:
            job_class = self._catalog.get_job(wish.job_type)
        except UnknownWork as error:
            return [f"{error}. Its parameters are not checked; its ticks wait an hour for an app that knows it"]
        now = self._store.read_clock()
        tick = first_tick(wish.cron, wish.time_zone, now, starts_at=wish.starts_at) or now
        filled = fill_in(wish.parameters, tick.astimezone(find_zone(wish.time_zone)))
        with note_unchecked() as unchecked:
            try:
                validate(job_class, wish.job_type, filled, self._most_bytes)
            except InvalidParameters as error:
                dependent = find_dependent(wish.parameters)
                if not dependent or not _is_about(error, dependent):
                    raise
                return [
                    f"with the time of its next tick, {tick.isoformat()}: {line}" for line in str(error).split("\n")
                ]
        return [f"parameters.{note['parameter']} could not be checked: {note['reason']}" for note in unchecked]


def _is_about(error: InvalidParameters, parameters: frozenset[str]) -> bool:
    """Whether all of it is about those parameters: the tick's time is in them, so another tick may pass."""
    problems = getattr(error, "errors", None)
    if not isinstance(problems, tuple) or getattr(error, "more", None):
        return False
    return all(str(problem.field).partition(".")[0].partition("[")[0] in parameters for problem in problems)


def _times_of(schedule: ScheduleRecord) -> tuple[object, ...]:
    return schedule.cron, schedule.time_zone, schedule.starts_at, schedule.ends_at


def _local(schedule: ScheduleRecord, moment: datetime) -> datetime:
    return moment.astimezone(find_zone(schedule.time_zone))


def _of_field(field: str, check: Any, value: str) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise _named(field, error) from error


def _named(field: str, error: ValueError) -> ValueError:
    """The same error with the field's name, for what shows errors by field."""
    context = getattr(error, "context", None)
    if context is not None:
        context["field"] = field
    return error
