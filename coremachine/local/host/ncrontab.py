"""Schedules: NCRONTAB with 5 or 6 fields, or a TimeSpan.

NCRONTAB is not Vixie cron: a day must match day-of-month AND day-of-week, weekdays are 0-6 from Sunday, names may be
given by their first three letters or in full, a reversed range is swapped, and `?`, `L`, `W`, `#` do not exist.

Daylight saving follows the real host: a schedule with `*`, `-` or `/` in second, minute or hour is an interval and runs
through a repeated hour. Any other is a point in time: it runs once in a repeated hour, and behind a gap it falls into.
Source: azure-webjobs-sdk-extensions, CronSchedule; atifaziz/NCrontab.
"""

from __future__ import annotations

import calendar
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from coremachine.local.host.errors import ScheduleError, SettingsError
from coremachine.local.host.timespan import parse_timespan

_MONTHS = tuple(name.lower() for name in calendar.month_name)
_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_NAME_LENGTH = 3
# The Gregorian calendar repeats every 400 years, but no day-month-weekday combination waits longer than 40.
_HORIZON_YEARS = 40


class Schedule(Protocol):
    """When a timer fires."""

    def next_after(self, instant: datetime, zone: tzinfo) -> datetime:
        """The first time after the aware instant, as an aware UTC instant."""
        ...


def parse_schedule(text: str) -> Schedule:
    """The schedule of an NCRONTAB expression or TimeSpan.

    Raises:
        ScheduleError: neither form fits, a field is out of its range, or no date can ever match.
    """
    duration = parse_timespan(text)
    if duration is not None:
        if duration <= timedelta(0):
            raise ScheduleError(text, "an interval must be longer than zero")
        return Interval(duration)
    return Crontab.parse(text)


def local_zone(environment: Mapping[str, str]) -> tzinfo:
    """The zone that schedules are read in: WEBSITE_TIME_ZONE, else TZ, else UTC, as in Azure.

    Raises:
        SettingsError: the name is not in the time zone database.
    """
    for setting in ("WEBSITE_TIME_ZONE", "TZ"):
        name = environment.get(setting, "").lstrip(":")
        if not name:
            continue
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise SettingsError(
                f"{setting}={name!r} is no zone of the time zone database, such as 'Europe/Rome'"
            ) from exc
    return UTC


@dataclass(frozen=True)
class Interval:
    """A fixed distance between two starts."""

    duration: timedelta

    def next_after(self, instant: datetime, zone: tzinfo) -> datetime:
        del zone  # elapsed time knows no clock changes
        return instant.astimezone(UTC) + self.duration


@dataclass(frozen=True)
class Crontab:
    """The values that each field allows, sorted."""

    text: str
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    is_interval: bool

    @classmethod
    def parse(cls, text: str) -> Crontab:
        fields = text.split()
        if len(fields) == 5:  # noqa: PLR2004 - the form without seconds
            fields = ["0", *fields]
        if len(fields) != 6:  # noqa: PLR2004 - the form with seconds
            raise ScheduleError(text, f"found {len(fields)} fields")
        second, minute, hour, day, month, weekday = fields
        crontab = cls(
            text=text,
            seconds=_values(text, second, 0, 59),
            minutes=_values(text, minute, 0, 59),
            hours=_values(text, hour, 0, 23),
            days=_values(text, day, 1, 31),
            months=_values(text, month, 1, 12, _MONTHS),
            weekdays=_values(text, weekday, 0, 6, _WEEKDAYS),
            is_interval=any(mark in part for part in fields[:3] for mark in "*-/"),
        )
        crontab.next_local(datetime(2000, 1, 1))  # noqa: DTZ001 - a schedule that never fires is refused here
        return crontab

    def next_after(self, instant: datetime, zone: tzinfo) -> datetime:
        instant = instant.astimezone(UTC)
        return self._next_interval(instant, zone) if self.is_interval else self._next_point(instant, zone)

    def _next_point(self, instant: datetime, zone: tzinfo) -> datetime:
        local = _wall_clock(instant, zone)
        while True:
            local = self.next_local(local)
            # fold=0: the first of two equal times; in a gap, the offset before it, which lands behind the gap.
            found = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
            if found > instant:
                return found

    def _next_interval(self, instant: datetime, zone: tzinfo) -> datetime:
        """Searches under the offset in force; a clock change before the hit restarts the search at the change."""
        after, offset = instant, _offset(instant, zone)
        while True:
            found = (self.next_local((after + offset).replace(tzinfo=None)) - offset).replace(tzinfo=UTC)
            if _offset(found, zone) == offset:
                return found
            change = _next_change(after, found, offset, zone)
            after, offset = change - timedelta(microseconds=1), _offset(change, zone)

    def next_local(self, after: datetime) -> datetime:
        """The first matching wall-clock time after a naive one.

        Raises:
            ScheduleError: nothing matches within 40 years (30 February).
        """
        moment = after.replace(microsecond=0) + timedelta(seconds=1)
        day = moment.date()
        if self._matches(day):
            found = self._time_from(moment.hour, moment.minute, moment.second)
            if found is not None:
                return datetime(day.year, day.month, day.day, *found)  # noqa: DTZ001 - wall clock by design
        day = self._next_day(day)
        return datetime(day.year, day.month, day.day, self.hours[0], self.minutes[0], self.seconds[0])  # noqa: DTZ001

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first allowed time of day at or after the given one."""
        if hour in self.hours:
            if minute in self.minutes:
                index = bisect_left(self.seconds, second)
                if index < len(self.seconds):
                    return hour, minute, self.seconds[index]
            index = bisect_left(self.minutes, minute + 1)
            if index < len(self.minutes):
                return hour, self.minutes[index], self.seconds[0]
        index = bisect_left(self.hours, hour + 1)
        return (self.hours[index], self.minutes[0], self.seconds[0]) if index < len(self.hours) else None

    def _next_day(self, day: date) -> date:
        limit = day.year + _HORIZON_YEARS
        day += timedelta(days=1)
        while day.year <= limit:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
            elif self._matches(day):
                return day
            else:
                day += timedelta(days=1)
        raise ScheduleError(self.text, "no date ever matches day, month and weekday")

    def _matches(self, day: date) -> bool:
        return day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays


def _wall_clock(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _offset(instant: datetime, zone: tzinfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _next_change(start: datetime, end: datetime, offset: timedelta, zone: tzinfo) -> datetime:
    """The first second after `start`, at most `end`, from which the zone has another offset than the given one."""
    low, high = 0, int((end - start).total_seconds()) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(start + timedelta(seconds=middle), zone) == offset:
            low = middle
        else:
            high = middle
    return (start + timedelta(seconds=high)).replace(microsecond=0)


def _values(text: str, part: str, low: int, high: int, names: tuple[str, ...] = ()) -> tuple[int, ...]:
    values: set[int] = set()
    for item in part.split(","):
        span, slash, step_text = item.partition("/")
        first, dash, last = span.partition("-")
        if slash and (not step_text.isdigit() or int(step_text) == 0):
            raise ScheduleError(text, f"step {step_text!r} in {part!r} is no positive number")
        if span == "*":
            start, end = low, high
        else:
            start = _number(text, first, low, high, names)
            # A single value with a step runs to the end of the field: "5/10" is 5, 15, 25 ...
            end = _number(text, last, low, high, names) if dash else (high if slash else start)
        values.update(range(min(start, end), max(start, end) + 1, int(step_text) if slash else 1))
    return tuple(sorted(values))


def _number(text: str, word: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if word.isascii() and word.isdigit():
        number = int(word)
        if low <= number <= high:
            return number
        raise ScheduleError(text, f"{number} is outside {low}-{high}")
    for index, name in enumerate(names):
        if len(word) >= _NAME_LENGTH and name.startswith(word.lower()):
            return index
    raise ScheduleError(text, f"{word!r} is neither a number from {low} to {high} nor a known name")
