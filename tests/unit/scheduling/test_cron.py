"""The times that an expression names, where clocks go forward and back too."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.scheduling.cron import check_cron, find_zone, first_tick, ticks_after

BERLIN = "Europe/Berlin"


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(cron, zone, after, count):
    return [f"{moment:%m-%d %H:%M}" for moment in islice(ticks_after(cron, zone, at(after)), count)]


def test_times_are_those_of_the_zones_clock():
    assert times("30 2 * * *", BERLIN, "2026-01-05 00:00", 2) == ["01-05 01:30", "01-06 01:30"]
    assert times("30 2 * * 1", "UTC", "2026-01-05 02:30", 1) == ["01-12 02:30"]


def test_a_fixed_time_in_the_skipped_hour_is_once_at_the_end_of_the_gap():
    """On 29 March 2026, 02:00 in Berlin is 03:00, which is 01:00 UTC."""
    assert times("30 2 * * *", BERLIN, "2026-03-28 00:00", 3) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_two_fixed_times_in_the_skipped_hour_are_one_tick():
    found = times("0,30 2 * * *", BERLIN, "2026-03-28 12:00", 3)
    assert found == ["03-29 01:00", "03-30 00:00", "03-30 00:30"]


def test_a_fixed_time_in_the_doubled_hour_is_once_at_its_first_pass():
    """On 25 October 2026, 02:00 to 03:00 comes twice in Berlin: at 00:00 and at 01:00 UTC."""
    assert times("30 2 * * *", BERLIN, "2026-10-24 12:00", 2) == ["10-25 00:30", "10-26 01:30"]


def test_looked_at_from_the_second_pass_the_first_one_is_over():
    assert times("45 2 * * *", BERLIN, "2026-10-25 01:30", 1) == ["10-26 01:45"]


def test_every_half_hour_goes_on_in_real_time():
    assert times("*/30 * * * *", BERLIN, "2026-03-29 00:15", 3) == ["03-29 00:30", "03-29 01:00", "03-29 01:30"]
    doubled = times("*/30 * * * *", BERLIN, "2026-10-24 23:45", 5)
    assert doubled == ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* * 30 2 *", "a b c d e", "*/0 * * * *"]
)
def test_what_names_no_time_is_refused(cron):
    with pytest.raises(ValueError, match="expected"):
        check_cron(cron)


@pytest.mark.parametrize("name", ["Berlin", "europe/berlin", "../UTC", "/etc/localtime", "", "CET+1"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="IANA"):
        find_zone(name)


def test_the_start_may_be_a_tick_and_the_end_too():
    now = at("2026-01-01 00:00")
    start, end = at("2026-02-01 03:00"), at("2026-02-02 03:00")
    assert first_tick("0 3 * * *", "UTC", now, starts_at=start) == start
    assert first_tick("0 3 * * *", "UTC", start, starts_at=start, ends_at=end) == end
    assert first_tick("0 3 * * *", "UTC", end, starts_at=start, ends_at=end) is None


FIELD = st.one_of(
    st.text("0123456789*/-,L#W?MONJAN", min_size=1, max_size=6), st.sampled_from(["*", "1", "5L", "MON#1", "*/2"])
)


@given(st.one_of(st.text(max_size=30), st.lists(FIELD, min_size=5, max_size=5).map(" ".join)))
def test_any_text_is_an_expression_or_is_refused(text):
    try:
        cron = check_cron(text)
    except ValueError:
        return
    assert next(ticks_after(cron, BERLIN, at("2026-01-01"))) > at("2026-01-01")


GOING_ON = {
    "*/20 3 * * *": lambda at: at.minute % 20 == 0 and at.hour == 3,
    "0 */3 * * *": lambda at: at.minute == 0 and at.hour % 3 == 0,
    "30 * * * *": lambda at: at.minute == 30,
    "*/15 1,2 * * *": lambda at: at.minute % 15 == 0 and at.hour in (1, 2),
}


@pytest.mark.parametrize("day", ["2027-10-02", "2027-04-03"])
@pytest.mark.parametrize("cron", GOING_ON)
@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Australia/Sydney"])
def test_what_goes_on_is_each_minute_that_the_clocks_show_so(cron, day, zone):
    """Where clocks change by half an hour, too: the minutes of two days, looked at one by one."""
    begin = at(day)
    minutes = [begin + timedelta(minutes=minute) for minute in range(1, 2 * 24 * 60)]
    expected = [minute for minute in minutes if GOING_ON[cron](minute.astimezone(ZoneInfo(zone)))]
    assert list(islice(ticks_after(cron, zone, begin), len(expected))) == expected


def test_a_fixed_time_in_a_gap_of_half_an_hour_is_at_its_end():
    """On 3 October 2027, 02:00 on Lord Howe is 02:30, which is 15:30 UTC."""
    assert times("10 2 * * *", "Australia/Lord_Howe", "2027-10-02 12:00", 2) == ["10-02 15:30", "10-03 15:10"]


CRONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0,30 2 * * *", "15 1-3 * * *", "0 */5 * * *", "5 4 * * 0"]
)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"])
MOMENTS = st.integers(0, 3 * 365 * 86_400).map(lambda seconds: at("2024-01-01") + timedelta(seconds=seconds))


@given(CRONS, ZONES, MOMENTS, st.integers(0, 90))
def test_the_times_are_the_same_wherever_one_begins_to_look(cron, zone, moment, minutes):
    """Two processes that look at other times decide about the same ticks."""
    begin = moment - timedelta(minutes=minutes)
    from_before = [tick for tick in islice(ticks_after(cron, zone, begin), 200) if tick > moment]
    count = min(len(from_before), 30)
    assert from_before[:count] == list(islice(ticks_after(cron, zone, moment), count))
    assert from_before == sorted(set(from_before))


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0,30 2 * * *", "15 1-3 * * *"])
def test_the_times_are_the_same_from_each_minute_around_a_change_of_clocks(cron, day):
    begin = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    whole = list(islice(ticks_after(cron, BERLIN, begin - timedelta(days=1)), 20))
    for minute in range(300):
        after = begin + timedelta(minutes=minute)
        later = [tick for tick in whole if tick > after]
        assert list(islice(ticks_after(cron, BERLIN, after), 3)) == later[:3], after
