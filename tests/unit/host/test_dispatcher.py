"""What the host says of a call that failed."""

import logging
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from core.errors import StoreUnavailable
from coremachine.local.host.dispatcher import Dispatcher


@pytest.mark.parametrize(("error", "lines"), [(StoreUnavailable("away"), 0), (ValueError("a bug"), 1)])
def test_what_the_app_reports_itself_is_not_repeated_for_each_message(caplog, error, lines):
    inner: Future = Future()
    dispatcher = Dispatcher(SimpleNamespace(submit=lambda _: inner), timeout_seconds=None)
    call = SimpleNamespace(function=SimpleNamespace(name="process_tasks"), invocation_id="1")
    with caplog.at_level(logging.INFO):
        outcome = dispatcher.submit(call, "message")
        inner.set_exception(error)
    assert outcome.exception() is error
    assert len([record for record in caplog.records if record.exc_info]) == lines


class BrokenHandler(logging.Handler):
    def emit(self, record):
        del record
        raise RuntimeError("collector gone")


@pytest.mark.parametrize("error", [None, ValueError("a bug")])
def test_call_ends_where_the_log_is_broken(error):
    """A timer whose call never ended never fired again."""
    inner: Future = Future()
    dispatcher = Dispatcher(SimpleNamespace(submit=lambda _: inner), timeout_seconds=None)
    call = SimpleNamespace(function=SimpleNamespace(name="janitor_sweep"), invocation_id="1")
    logger, handler = logging.getLogger("coremachine.local.host.dispatcher"), BrokenHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        outcome = dispatcher.submit(call, "timer")
        inner.set_result(None) if error is None else inner.set_exception(error)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert outcome.done()
    assert outcome.exception() is error
    assert dispatcher.in_flight == 0
