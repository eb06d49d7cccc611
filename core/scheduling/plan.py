"""Which of a schedule's due ticks get a job: a pure decision, from its row and the database's time."""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from core.models.schedule import CatchUp, PlannedTick, ScheduleRecord, TickPlan
from core.scheduling.cron import find_zone, first_tick, ticks_after
from core.scheduling.placeholders import fill_in

# A tick later than this counts as missed.
ON_TIME_SECONDS = 300.0
# The number of ticks that one look decides about one by one; those before are skipped together.
MOST_TICKS = 100

MakeKey = Callable[[], str]


def plan_ticks(schedule: ScheduleRecord, now: datetime, *, make_key: MakeKey = lambda: uuid4().hex) -> TickPlan:
    """What becomes of the ticks from `next_tick_at` to now. Each one is in exactly one of the planned ticks."""
    first = schedule.next_tick_at
    if first is None or first > now:
        return TickPlan((), first)
    due, last_before = _due_ticks(schedule, first, now)
    late = now - timedelta(seconds=ON_TIME_SECONDS)
    planned = [] if last_before is None else [_skipped(first, "missed", make_key, until=last_before)]
    for tick in due:
        is_late = schedule.catch_up is CatchUp.SKIP and tick < late
        is_old = schedule.catch_up is CatchUp.LATEST and tick != due[-1]
        if is_late or is_old:
            planned.append(_skipped(tick, "missed", make_key))
        else:
            parameters = fill_in(schedule.parameters, tick.astimezone(find_zone(schedule.time_zone)))
            planned.append(PlannedTick(tick, parameters, make_key()))
    return TickPlan(tuple(planned), _following(schedule, now))


def plan_resume(schedule: ScheduleRecord, now: datetime, *, make_key: MakeKey = lambda: uuid4().hex) -> TickPlan:
    """The ticks that passed during a pause are skipped together."""
    first = schedule.next_tick_at
    if first is None or first > now:
        return TickPlan((), first)
    due, _ = _due_ticks(schedule, first, now)
    planned = _skipped(first, "paused", make_key, until=due[-1])
    return TickPlan((planned,), _following(schedule, now))


_DETAILS = {
    "missed": "nobody acted on it in time, as in an outage; catch_up of the schedule decides about such ticks",
    "paused": "the schedule was paused",
}


def _skipped(tick: datetime, reason: str, make_key: MakeKey, *, until: datetime | None = None) -> PlannedTick:
    detail = _DETAILS[reason]
    return PlannedTick(tick, {}, make_key(), until if until != tick else None, reason, detail)


def _following(schedule: ScheduleRecord, now: datetime) -> datetime | None:
    return first_tick(schedule.cron, schedule.time_zone, now, ends_at=schedule.ends_at)


def _due_ticks(schedule: ScheduleRecord, first: datetime, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The newest MOST_TICKS from the first one to now, and the last one before them; None where there is none.

    A window before now grows until it holds enough of them: a year of minutes is not walked through.
    """
    until = now if schedule.ends_at is None else min(now, schedule.ends_at)
    window = timedelta(hours=2)
    while True:
        begin = until - window
        is_whole = begin < first
        after = first - timedelta(seconds=1) if is_whole else begin
        newest: deque[datetime] = deque(maxlen=MOST_TICKS + 1)
        for tick in ticks_after(schedule.cron, schedule.time_zone, after):
            if tick > until:
                break
            newest.append(tick)
        if is_whole or len(newest) > MOST_TICKS:
            break
        window *= 4
    ticks = list(newest)
    if len(ticks) > MOST_TICKS:
        return ticks[1:], ticks[0]
    return ticks or [first], None
