"""What a process says while its database is away."""

import logging

import pytest

from core.basics.outage import OutageLog
from core.error_handler import CoreMachineErrorHandler
from core.errors import StoreUnavailable
from core.safety.safe_log import safe_logger


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lines(caplog):
    return [(one.levelname, one.message, one.failures, one.outage_seconds) for one in caplog.records]


def test_an_outage_is_one_warning_a_minute_and_one_line_when_it_is_over(caplog):
    clock = Clock()
    told = OutageLog(clock)
    with caplog.at_level(logging.INFO):
        for second in range(130):
            clock.now = float(second)
            for _ in range(10):
                told.note(f"refused at {second}")
        told.end()
        told.end()
    assert lines(caplog) == [
        ("WARNING", "database_away", 1, 0.0),
        ("WARNING", "database_away", 600, 60.0),
        ("WARNING", "database_away", 600, 120.0),
        ("INFO", "database_back", 1300, 129.0),
    ]
    assert caplog.records[1].reason == "refused at 60"
    assert not any(record.exc_info for record in caplog.records)


def test_the_next_outage_is_told_at_once(caplog):
    clock = Clock()
    told = OutageLog(clock)
    with caplog.at_level(logging.INFO):
        for clock.now in (0.0, 60.0):
            told.note("refused")
            told.end()
    assert [one[1:3] for one in lines(caplog)] == [("database_away", 1), ("database_back", 1)] * 2


def test_a_database_that_comes_and_goes_is_one_warning_a_minute_too(caplog):
    clock = Clock()
    told = OutageLog(clock)
    with caplog.at_level(logging.INFO):
        for second in range(61):
            clock.now = float(second)
            told.note("all connections are in use")
            told.end()
    assert [one[1:3] for one in lines(caplog)] == [
        ("database_away", 1),
        ("database_back", 1),
        ("database_away", 60),
        ("database_back", 1),
    ]


def test_messages_that_meet_an_outage_leave_no_trace_each(caplog, monkeypatch):
    monkeypatch.setattr("core.error_handler.outage", OutageLog(Clock()))
    handler = CoreMachineErrorHandler(safe_logger("test"))
    for _ in range(100):
        with pytest.raises(StoreUnavailable), handler.handle_operation("process_task_message"):
            raise StoreUnavailable("refused")
    assert [record.message for record in caplog.records] == ["database_away"]
    assert caplog.records[0].exc_info is None


def test_a_reason_is_one_line_without_a_password(caplog):
    OutageLog(Clock()).note("connection failed:\n\tpostgresql://u:v3ry-s3cret@h/d\n" + "x" * 5000)
    (record,) = caplog.records
    assert "\n" not in record.reason
    assert "v3ry-s3cret" not in record.reason
    assert len(record.reason) <= 1000
