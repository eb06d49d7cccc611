"""What the local stack says of a part that dies."""

import logging

from coremachine.local.restart_log import RestartLog


def test_a_part_that_cannot_be_started_is_one_line_a_minute_and_one_when_it_is_back(caplog):
    """It was two lines, one of them five lines long, every 5 s for ever."""
    now = 0.0
    told = RestartLog("postgres", lambda: now)
    with caplog.at_level(logging.INFO):
        told.died(-9)
        for _ in range(26):
            told.failed(RuntimeError("ended at once; postgres.log ends with:\none\ntwo"))
            now += 5.0
        told.back()
    reason = "ended at once; postgres.log ends with: one two"
    assert [record.message for record in caplog.records] == [
        "postgres_died exit_status=-9; starting it again",
        f"postgres_restart_failed attempts=1: {reason}",
        f"postgres_restart_failed attempts=13: {reason}",
        f"postgres_restart_failed attempts=25: {reason}",
        "postgres_back attempts=27 away_seconds=130.0",
    ]


def test_the_next_death_is_told_at_once(caplog):
    told = RestartLog("broker", lambda: 0.0)
    for _ in range(2):
        told.died(1)
        told.failed(RuntimeError("in use"))
        told.back()
    assert [record.message.split()[0] for record in caplog.records if record.levelno >= logging.ERROR] == [
        "broker_died",
        "broker_restart_failed",
    ] * 2
