"""How an explanation of a schedule counts."""

from datetime import UTC, datetime

import pytest

from core.models.schedule import ScheduleFacts, ScheduleRecord
from core.scheduling.explain import explain_schedule

NOW = datetime(2026, 3, 1, 6, tzinfo=UTC)
SCHEDULE = ScheduleRecord(name="hourly", job_type="t", cron="0 * * * *", time_zone="UTC", revision=1, next_tick_at=NOW)


@pytest.mark.parametrize(
    ("count", "waiting", "due"),
    [
        (1, "1 tick waits for the end of an earlier job", "1 job is still to be submitted"),
        (2, "2 ticks wait for the end of an earlier job", "2 jobs are still to be submitted"),
    ],
)
def test_one_is_one(count: int, waiting: str, due: str) -> None:
    facts = ScheduleFacts(NOW, SCHEDULE, waiting=count, due=count)
    told = [finding.message for finding in explain_schedule(facts)]
    assert waiting in told
    assert due in told
