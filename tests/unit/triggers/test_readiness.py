"""What `readyz` says of the database."""

from types import SimpleNamespace

import pytest

from infrastructure.base import DatabaseUnavailable, DatabaseUnsuitable
from infrastructure.migrations import SchemaStatus
from triggers.services import Services


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (DatabaseUnsuitable("connect", "expected UTF8, found LATIN1; make another"), "expected UTF8, found LATIN1"),
        (DatabaseUnavailable("migrate", "connection to 10.0.0.4 refused for u"), "cannot be reached now"),
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
