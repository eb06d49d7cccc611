"""What `readyz` says of the database."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from core.models.foreign import DisabledTrigger, ForeignFacts, ForeignTrigger, PreparedTransaction
from infrastructure.base import (
    ConnectionsInUse,
    DatabaseShort,
    DatabaseSilent,
    DatabaseUnavailable,
    DatabaseUnsuitable,
)
from infrastructure.migrations import SchemaStatus
from triggers.services import Services


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (DatabaseUnsuitable("connect", "expected UTF8, found LATIN1; make another"), "expected UTF8, found LATIN1"),
        (DatabaseUnavailable("migrate", "connection to 10.0.0.4 refused for u"), "cannot be reached now"),
        (ConnectionsInUse("migrate", "expected one of 10.0.0.4", 4), "all 4 connections of this process are in use"),
        (DatabaseSilent("migrate", "10.0.0.4 has not answered"), "does not answer now: look whether it, or a pooler"),
        (
            DatabaseShort("migrate", "10.0.0.4: no", "53100 DiskFull"),
            "answers, and refused a statement now (53100 Disk",
        ),
    ],
)
def test_a_database_that_will_not_do_is_told_apart_from_one_out_of_reach(error, detail):
    def schema_status():
        raise error

    services = SimpleNamespace(factory=SimpleNamespace(schema_status=schema_status))
    check = Services.check_database(services)  # type: ignore[arg-type]
    assert not check.ok
    assert detail in check.detail
    assert "10.0.0.4" not in check.detail


def test_a_database_that_refuses_writes_is_not_ready():
    status = SchemaStatus(1, 1, (), functions_current=True, refuses_writes="found a standby; name the primary")
    services = SimpleNamespace(factory=SimpleNamespace(schema_status=lambda: status))
    check = Services.check_database(services)  # type: ignore[arg-type]
    assert (check.ok, check.detail) == (False, "found a standby; name the primary")


def test_rules_on_the_tables_are_not_ready_and_triggers_are_told_once(caplog):
    """A job stayed in processing for ever, and nothing named the rule or the trigger that kept its rows."""
    rule = ForeignTrigger("app", "tasks", "keep")
    trigger = ForeignTrigger("app", "stages", "note", "public.note")
    found = [trigger]
    services = SimpleNamespace(
        factory=SimpleNamespace(
            schema_status=lambda: SchemaStatus(1, 1, (), functions_current=True, foreign=ForeignFacts(tuple(found)))
        )
    )
    for _ in range(2):
        check = Services.check_database(services)  # type: ignore[arg-type]
        assert check.ok
        assert "found trigger note before each row of app.stages (function public.note)" in check.detail
        assert "alter table app.stages disable trigger note" in check.detail
    assert [record.message for record in caplog.records] == ["database_has_triggers"]
    found.append(rule)
    check = Services.check_database(services)  # type: ignore[arg-type]
    assert not check.ok
    assert (
        check.detail == "expected tables without rules, found rule keep on app.tasks; run: drop rule keep on app.tasks"
    )
    assert caplog.records[-1].message == "database_not_ready"


def test_own_triggers_that_were_disabled_and_prepared_transactions_are_named():
    """Deadlines were not kept, or jobs stood still, and the database was ready without a word."""
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    foreign = ForeignFacts(
        disabled=(DisabledTrigger("app", "stages", "set_deadlines"), DisabledTrigger("app", "tasks", None)),
        prepared=(PreparedTransaction("it's", "ann", since, ("jobs", "tasks")),),
    )
    status = SchemaStatus(1, 1, (), functions_current=True, foreign=foreign)
    services = SimpleNamespace(factory=SimpleNamespace(schema_status=lambda: status))
    check = Services.check_database(services)  # type: ignore[arg-type]
    assert check.ok
    assert "found disabled trigger set_deadlines of app.stages, disabled triggers of foreign keys of" in check.detail
    assert "alter table app.stages enable trigger set_deadlines" in check.detail
    assert "alter table app.tasks enable trigger all" in check.detail
    assert 'prepared transaction "it\'s" of ann since 2026-01-02 03:04:05Z, with locks on jobs, tasks' in check.detail
    assert "rollback prepared 'it''s'" in check.detail


def test_session_that_all_connections_wait_for_is_named():
    """Neither `readyz` nor `explain` could name it: both need a connection."""
    busy = ConnectionsInUse("migrate", "expected one", 4)
    busy.held_up_by = "session 77 has rows or all of tasks locked: select pg_terminate_backend(77)"

    def schema_status():
        raise busy

    services = SimpleNamespace(factory=SimpleNamespace(schema_status=schema_status))
    check = Services.check_database(services)  # type: ignore[arg-type]
    assert "are in use now; session 77 has rows or all of tasks locked: select pg_terminate_backend(77)" in check.detail
