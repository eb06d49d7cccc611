"""Schedules: NCRONTAB semantics, TimeSpans, daylight saving."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coremachine.local.host.errors import ScheduleError, SettingsError
from coremachine.local.host.ncrontab import Crontab, local_zone, parse_schedule

ROME = ZoneInfo("Europe/Rome")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 */5 * * * *", utc(2026, 1, 1, 0, 0, 0), utc(2026, 1, 1, 0, 5)),
        ("*/5 * * * *", utc(2026, 1, 1, 0, 5, 0), utc(2026, 1, 1, 0, 10)),
        ("*/15 * * * * *", utc(2026, 1, 1, 0, 0, 44), utc(2026, 1, 1, 0, 0, 45)),
        ("0 30 9 * * Mon-Fri", utc(2026, 1, 2, 10), utc(2026, 1, 5, 9, 30)),
        ("0 0 0 1 1 *", utc(2026, 1, 1), utc(2027, 1, 1)),
        ("0 0 12 29 2 *", utc(2026, 1, 1), utc(2028, 2, 29, 12)),
        ("5,10 0 0 * * *", utc(2026, 1, 1, 0, 0, 5), utc(2026, 1, 1, 0, 0, 10)),
        ("0 5/10 * * * *", utc(2026, 1, 1, 0, 46), utc(2026, 1, 1, 0, 55)),
        ("0 0 17-9/4 * * *", utc(2026, 1, 1, 10), utc(2026, 1, 1, 13)),
        ("0 0 0 * January-march SUNDAY", utc(2026, 4, 1), utc(2027, 1, 3)),
        ("00:00:30", utc(2026, 1, 1, 0, 0, 7), utc(2026, 1, 1, 0, 0, 37)),
        ("1.00:00:00", utc(2026, 1, 1), utc(2026, 1, 2)),
    ],
)
def test_next_time_is_the_first_match_after_the_instant(text, after, expected):
    assert parse_schedule(text).next_after(after, UTC) == expected


def test_day_and_weekday_must_both_match():
    """Vixie cron would fire on every 13th and on every Friday."""
    assert parse_schedule("0 0 0 13 * 5").next_after(utc(2026, 1, 1), UTC) == utc(2026, 2, 13)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * * *",
        "0 0 0 0 * *",
        "0 0 0 * 13 *",
        "0 0 0 * * 7",
        "*/0 * * * * *",
        "0 0 0 ? * *",
        "0 0 0 L * *",
        "@hourly",
        "0 0 0 30 2 *",
        "0 0 0 * Mo *",
        "1-2-3 * * * * *",
        ", * * * * *",
        "00:00:00",
        "25:00:00",
    ],
)
def test_what_is_no_schedule_is_refused_with_the_forms_that_are(text):
    with pytest.raises(ScheduleError, match="NCRONTAB"):
        parse_schedule(text)


def test_point_in_time_inside_the_gap_runs_behind_it():
    found = parse_schedule("0 30 2 * * *").next_after(utc(2026, 3, 29, 0), ROME)
    assert found.astimezone(ROME).strftime("%d %H:%M %z") == "29 03:30 +0200"


def test_point_in_time_in_the_repeated_hour_runs_once():
    schedule = parse_schedule("0 30 2 * * *")
    first = schedule.next_after(utc(2026, 10, 24, 22), ROME)
    second = schedule.next_after(first, ROME)
    assert first == utc(2026, 10, 25, 0, 30)
    assert second == utc(2026, 10, 26, 1, 30)


def test_interval_runs_through_the_repeated_hour():
    schedule = parse_schedule("0 */30 * * * *")
    found = [utc(2026, 10, 24, 23, 30)]
    while len(found) < 6:
        found.append(schedule.next_after(found[-1], ROME))
    assert {later - earlier for earlier, later in itertools.pairwise(found)} == {timedelta(minutes=30)}


def test_interval_skips_the_gap():
    found = parse_schedule("0 15 * * * *").next_after(utc(2026, 3, 29, 0, 20), ROME)
    assert found == utc(2026, 3, 29, 1, 15)


def test_zone_comes_from_the_environment_and_defaults_to_utc():
    assert local_zone({}) is UTC
    assert local_zone({"TZ": "Europe/Rome"}) == ROME
    assert local_zone({"TZ": "UTC", "WEBSITE_TIME_ZONE": "Europe/Rome"}) == ROME


def test_unknown_zone_is_refused_by_the_name_of_its_setting():
    with pytest.raises(SettingsError, match="WEBSITE_TIME_ZONE"):
        local_zone({"WEBSITE_TIME_ZONE": "Atlantis/Capital"})


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=1, max_size=3).map(lambda numbers: ",".join(map(str, numbers))),
    )


crontabs = st.tuples(
    fields(0, 59), fields(0, 59), fields(0, 23), fields(1, 28), fields(1, 12), st.one_of(st.just("*"), fields(0, 6))
).map(" ".join)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds


def matches(crontab: Crontab, moment: datetime) -> bool:
    return (
        moment.second in crontab.seconds
        and moment.minute in crontab.minutes
        and moment.hour in crontab.hours
        and moment.day in crontab.days
        and moment.month in crontab.months
        and moment.isoweekday() % 7 in crontab.weekdays
    )


@given(crontabs, instants)
def test_next_time_is_later_and_matches_every_field(text, after):
    crontab = Crontab.parse(text)
    found = crontab.next_after(after, UTC)
    assert found > after
    assert matches(crontab, found)


@given(crontabs, instants, st.floats(0, 1))
def test_nothing_between_the_instant_and_the_next_time_matches(text, after, part):
    crontab = Crontab.parse(text)
    found = crontab.next_after(after, UTC)
    between = (after + (found - after) * part).replace(microsecond=0)
    assert between <= after or between == found or not matches(crontab, between)


@given(crontabs, instants)
def test_times_never_go_back_in_a_zone_with_clock_changes(text, after):
    crontab = Crontab.parse(text)
    first = crontab.next_after(after, ROME)
    assert after < first < crontab.next_after(first, ROME)
