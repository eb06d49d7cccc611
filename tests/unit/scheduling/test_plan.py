"""Each due tick gets exactly one decision, whatever the expression, the zone and the outage."""

from datetime import UTC, datetime, timedelta
from itertools import count, pairwise, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models.schedule import CatchUp, ScheduleRecord
from core.scheduling.cron import ticks_after
from core.scheduling.plan import MOST_TICKS, ON_TIME_SECONDS, plan_resume, plan_ticks
from tests.unit.scheduling.test_cron import CRONS, MOMENTS, ZONES

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def schedule(cron="0 * * * *", zone="UTC", *, catch_up="latest", first=NOON, ends_at=None):
    return ScheduleRecord(
        name="s",
        job_type="t",
        cron=cron,
        time_zone=zone,
        catch_up=catch_up,
        parameters={"at": "{tick}"},
        next_tick_at=first,
        ends_at=ends_at,
    )


def hours(plan, *, skipped):
    return [tick.tick_at.hour for tick in plan.ticks if (tick.reason is not None) == skipped]


def test_nothing_is_due_before_the_tick():
    plan = plan_ticks(schedule(), NOON - timedelta(seconds=1))
    assert (plan.ticks, plan.next_tick_at) == ((), NOON)


def test_a_tick_in_time_gets_its_job_with_its_time():
    plan = plan_ticks(schedule(zone="Asia/Kolkata", cron="30 17 * * *"), NOON + timedelta(seconds=30))
    (tick,) = plan.ticks
    assert (tick.tick_at, tick.reason, tick.until_at) == (NOON, None, None)
    assert tick.parameters == {"at": "2026-01-05T17:30:00+05:30"}
    assert plan.next_tick_at == NOON + timedelta(days=1)


@pytest.mark.parametrize(("catch_up", "given"), [("skip", []), ("latest", [15]), ("all", [12, 13, 14, 15])])
def test_catch_up_decides_about_late_ticks(catch_up, given):
    plan = plan_ticks(schedule(catch_up=catch_up), NOON + timedelta(hours=3, minutes=30))
    assert hours(plan, skipped=False) == given
    assert sorted(hours(plan, skipped=True) + given) == [12, 13, 14, 15]


def test_skip_gives_a_tick_of_the_last_minutes_its_job():
    plan = plan_ticks(schedule(catch_up="skip"), NOON + timedelta(hours=1, seconds=ON_TIME_SECONDS))
    assert (hours(plan, skipped=True), hours(plan, skipped=False)) == ([12], [13])


def test_a_long_outage_is_one_row_and_the_newest_ticks():
    now = NOON + timedelta(days=400, seconds=5)
    plan = plan_ticks(schedule("* * * * *", catch_up="all"), now)
    old, *rest = plan.ticks
    assert (old.tick_at, old.reason) == (NOON, "missed")
    assert len(rest) == MOST_TICKS
    assert rest[0].tick_at - old.until_at == timedelta(minutes=1)
    assert rest[-1].tick_at == now - timedelta(seconds=5)


def test_no_tick_is_after_the_end():
    plan = plan_ticks(schedule(ends_at=NOON + timedelta(hours=1), catch_up="all"), NOON + timedelta(hours=5))
    assert (hours(plan, skipped=False), plan.next_tick_at) == ([12, 13], None)


def test_a_resume_skips_what_passed_in_one_row():
    plan = plan_resume(schedule(), NOON + timedelta(hours=2, minutes=1))
    (row,) = plan.ticks
    assert (row.tick_at, row.until_at, row.reason) == (NOON, NOON + timedelta(hours=2), "paused")
    assert plan.next_tick_at == NOON + timedelta(hours=3)


OUTAGES = st.lists(st.sampled_from([1, 7, 30, 60, 120, 3600, 86_400, 9 * 86_400]), min_size=1, max_size=4)


@given(CRONS, ZONES, MOMENTS, OUTAGES, st.sampled_from(list(CatchUp)))
def test_every_tick_is_in_exactly_one_row(cron, zone, begin, outages, catch_up):
    """Looks come after gaps of any length; their rows together are all ticks, each one once."""
    first = next(ticks_after(cron, zone, begin))
    row, now, planned, keys = schedule(cron, zone, catch_up=catch_up, first=first), begin, [], count()
    for seconds in outages:
        now += timedelta(seconds=seconds)
        plan = plan_ticks(row, now, make_key=lambda: str(next(keys)))
        assert plan.next_tick_at > now
        planned += plan.ticks
        row = row.model_copy(update={"next_tick_at": plan.next_tick_at})
    spans = sorted((each.tick_at, each.until_at or each.tick_at) for each in planned)
    assert all(end < following for (_, end), (following, _) in pairwise(spans)), "no tick is in two rows"
    place = 0
    for tick in takewhile(lambda tick: tick <= now, ticks_after(cron, zone, begin)):
        while place < len(spans) and spans[place][1] < tick:
            place += 1
        assert place < len(spans), tick
        assert spans[place][0] <= tick, tick
    assert len({each.submission_key for each in planned}) == len(planned)
    assert all(each.reason is not None for each in planned if each.until_at is not None)
