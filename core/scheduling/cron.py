"""The times that a cron expression names in a time zone."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from core.basics.canonical import shown
from core.models.fields import expectation

_FIELDS = 5
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

    zone = find_zone(time_zone)
    try:
        times = CronSim(_five_fields(cron), after.astimezone(zone))
    except CronSimError as error:
        raise expectation(_EXAMPLE, shown(cron, 100), str(error).lower()) from error
    latest = after.astimezone(UTC)
    for local in times:
        moment = local.astimezone(UTC)
        # Two fixed times in a gap are the same moment; in the second pass of an hour, those of the first are over.
        if moment > latest:
            latest = moment
            yield moment


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
    return frozenset(available_timezones())


def _five_fields(cron: str) -> str:
    fields = cron.split()
    if len(fields) != _FIELDS:
        hint = "a sixth field for seconds and names such as @daily are not taken"
        raise expectation(_EXAMPLE, shown(cron, 100), hint)
    return " ".join(fields)
