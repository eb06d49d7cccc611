"""The times that a cron expression names in a time zone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from core.basics.canonical import shown
from core.models.fields import expectation

# How far clocks go back at most, and more.
_LONGEST_FOLD = timedelta(hours=2)
_MINUTE = timedelta(minutes=1)
_FIELDS = 5
# Names of the database that are no place: the zone of whichever machine decides, and the lack of one.
_NO_ZONES = {"localtime", "posixrules", "Factory"}
_EXPRESSION = "a cron expression such as '30 2 * * *', with fields and dates that there are"
_EXAMPLE = "five fields (minute, hour, day of month, month, day of week) such as '30 2 * * *'"


def ticks_after(cron: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """The times after that one, as UTC, in strictly rising order.

    Where clocks go forward, a fixed time in the skipped hour is once at the end of the gap. Where they go back, a fixed
    time in the doubled hour is once, at the first pass. An expression whose minute or hour begins with `*` goes on in
    real time over both.

    Raises:
        ValueError: The expression or the zone is none.
    """
    # Imported here: most processes never look at a schedule.
    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    zone, text = find_zone(time_zone), _five_fields(cron)
    begin = (after.astimezone(zone) - _LONGEST_FOLD).replace(tzinfo=None)
    try:
        # On a clock without changes; cronsim knows those of whole hours only.
        times = CronSim(text, begin)
    except CronSimError as error:
        raise expectation(_EXPRESSION, shown(cron, 100), f"{error}".lower()) from error
    goes_on = any(field.startswith("*") for field in text.split()[:2])
    latest, waiting = after.astimezone(UTC), list[datetime]()
    for local in times:
        moments = _moments_of(local, zone, goes_on=goes_on)
        waiting += moments
        # What is left waits for the second pass. Two fixed times in a gap are the same moment.
        for moment in sorted(moment for moment in waiting if moment <= moments[0]) if moments else ():
            waiting.remove(moment)
            if moment > latest:
                latest = moment
                yield moment


def _moments_of(local: datetime, zone: ZoneInfo, *, goes_on: bool) -> list[datetime]:
    """The moments, in UTC, at which the zone's clocks show this time; see `ticks_after`."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return [first]
    if first < second:  # doubled
        return [first, second] if goes_on else [first]
    return [] if goes_on else [_end_of_gap(second, first, zone)]


def _end_of_gap(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """When the zone's clocks go forward, between these moments: to the minute, as all time zones of today do."""
    old = before.astimezone(zone).utcoffset()
    while after - before > _MINUTE:
        middle = before + (after - before) // _MINUTE // 2 * _MINUTE
        if middle.astimezone(zone).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after


def first_tick(
    cron: str, time_zone: str, after: datetime, *, starts_at: datetime | None = None, ends_at: datetime | None = None
) -> datetime | None:
    """The first time after that one, within the bounds; None where there is none."""
    begin = after
    if starts_at is not None and starts_at > after:
        # The start itself may be a tick.
        begin = starts_at.astimezone(UTC).replace(microsecond=0)
        begin = datetime.fromtimestamp(begin.timestamp() - 1, UTC)
    for moment in ticks_after(cron, time_zone, begin):
        if starts_at is not None and moment < starts_at:
            continue
        return moment if ends_at is None or moment <= ends_at else None
    return None


def check_cron(cron: str) -> str:
    """The expression with single blanks, if it names times. Raises ValueError."""
    text = _five_fields(cron)
    if next(ticks_after(text, "UTC", datetime(2026, 1, 1, tzinfo=UTC)), None) is None:
        raise expectation("an expression that names some time", shown(cron, 100), "that date never comes")
    return text


@lru_cache(maxsize=256)
def find_zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises ValueError, also where the name is a path."""
    if name not in _names():
        hint = next((known for known in sorted(_names()) if known.lower() == name.lower()), None)
        advice = f"did you mean {hint!r}?" if hint else "see the IANA time zone database"
        raise expectation("an IANA time zone such as 'Europe/Berlin' or 'UTC'", shown(name, 100), advice)
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_ZONES)


def _five_fields(cron: str) -> str:
    fields = cron.split()
    if len(fields) != _FIELDS:
        hint = "a sixth field for seconds and names such as @daily are not taken"
        raise expectation(_EXAMPLE, shown(cron, 100), hint)
    return " ".join(fields)
