"""One place for errors: bugs bubble up, a failing clean-up never hides the cause."""

from types import SimpleNamespace

import pytest

from core.error_handler import CoreMachineErrorHandler
from core.errors import ContractViolationError, MessageRefused, StoreUnavailable
from core.safety.safe_log import safe_logger


@pytest.fixture
def handler():
    return CoreMachineErrorHandler(safe_logger("test.handler"))


def test_error_is_logged_with_its_ids_and_raised(handler, caplog):
    with pytest.raises(OSError, match="disk"), handler.handle_operation("plan", job_id="j", task_id="t"):
        raise OSError("disk full")
    (record,) = caplog.records
    assert (record.operation, record.job_id, record.task_id, record.error_type) == ("plan", "j", "t", "OSError")


def test_error_can_be_kept_in(handler, caplog):
    with handler.handle_operation("plan", raise_on_error=False):
        raise OSError("disk full")
    assert len(caplog.records) == 1


def test_contract_violation_bubbles_up_even_when_errors_are_kept_in(handler):
    with pytest.raises(ContractViolationError), handler.handle_operation("run", raise_on_error=False):
        raise ContractViolationError("a list, not a mapping")


def test_failing_clean_up_does_not_hide_the_cause(handler, caplog):
    def clean_up(_error):
        raise ConnectionError("database gone")

    with pytest.raises(ValueError, match="bad tile"), handler.handle_operation("run", on_error=clean_up):
        raise ValueError("bad tile")
    nested = caplog.records[-1]
    assert nested.nested_error
    assert (nested.primary_error, nested.cleanup_error) == ("bad tile", "database gone")


def test_reported_error_of_the_sender_or_of_an_outage_is_no_failed_operation(handler, caplog, monkeypatch):
    noted = []
    monkeypatch.setattr("core.error_handler.outage", SimpleNamespace(note=noted.append))
    handler.report("run", MessageRefused("ParameterErrors", "n: expected a number"))
    handler.report("run", StoreUnavailable("away"))
    assert (caplog.records, noted) == ([], ["away"])
    handler.report("run", ContractViolationError("a list"), job_id="j", stage=2)
    (record,) = caplog.records
    assert (record.operation, record.job_id, record.stage, record.contract_violation) == ("run", "j", 2, True)
