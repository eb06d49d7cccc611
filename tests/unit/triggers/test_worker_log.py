"""The fields of records reach a host that gets nothing but formatted messages (they were lost in Azure)."""

import json
import logging

import pytest

from core.models import JobStatus
from core.safety.record_fields import FieldsFormatter
from core.safety.safe_log import safe_logger
from triggers.worker_log import show_fields_in_worker_log


class WorkerHandler(logging.Handler):
    """As the worker's handler works: what it formats is what the host gets."""

    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(self.format(record))


@pytest.fixture(params=["azure_functions_worker.dispatcher", "proxy_worker.dispatcher"])
def handler(request, monkeypatch):
    monkeypatch.setattr(WorkerHandler, "__module__", request.param)
    handler = WorkerHandler()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture(autouse=True)
def level():
    logger = logging.getLogger("told.in.azure")
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(logging.NOTSET)


def test_fields_follow_the_message_as_json(handler):
    show_fields_in_worker_log()
    fields = {"job_id": "ab", "attempt": 2, "status": JobStatus.FAILED, "outcomes": {"s1-a": "closed"}, "queue": None}
    safe_logger("told.in.azure").info("task_%s", "completed", extra=fields)
    (message,) = handler.messages
    text, _, told = message.partition(" ")
    assert text == "task_completed"
    assert json.loads(told) == {"job_id": "ab", "attempt": 2, "status": "failed", "outcomes": '{"s1-a": "closed"}'}


def test_a_message_without_fields_stays_as_it_is(handler):
    show_fields_in_worker_log()
    logging.getLogger("told.in.azure").info("plain")
    assert handler.messages == ["plain"]


def test_a_traceback_comes_behind_the_fields(handler):
    show_fields_in_worker_log()
    try:
        int("none")
    except ValueError:
        safe_logger("told.in.azure").exception("read_failed", extra={"job_id": "ab"})
    first, _, rest = handler.messages[0].partition("\n")
    assert first == 'read_failed {"job_id": "ab"}'
    assert rest.startswith("Traceback")
    assert rest.endswith("ValueError: invalid literal for int() with base 10: 'none'")


def test_what_cannot_be_written_as_json_is_shown_as_text(handler):
    show_fields_in_worker_log()
    safe_logger("told.in.azure").info("strange", extra={"keys": {(1, 2): 3}, "set": {1}})
    assert handler.messages == ['strange {"keys": "{(1, 2): 3}", "set": "\\"{1}\\""}']


def test_other_handlers_and_formatters_are_left_alone(handler):
    other = logging.StreamHandler()
    logging.getLogger().addHandler(other)
    own = logging.Formatter("%(levelname)s %(message)s")
    handler.setFormatter(own)
    try:
        show_fields_in_worker_log()
        assert other.formatter is None
        assert handler.formatter is own
        assert not isinstance(handler.formatter, FieldsFormatter)
    finally:
        logging.getLogger().removeHandler(other)
