"""Queue messages: what reaches the machine, and what stays with the broker."""

import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from azure.functions.servicebus import ServiceBusMessage

from core.errors import ContractViolationError, DeliveryError, StoreUnavailable
from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from core.models.message import Kept, UnknownMessage, read_task_message
from triggers.ports import ServicesNotReady
from triggers.queues import MessageUnreadable, pause_seconds, receive_job_message
from triggers.queues import receive_task_message as receive_message_of_tasks

JOB_ID = "ab" * 32
JOB = JobQueueMessage(job_id=JOB_ID, job_type="hello_world", correlation_id="c")
STAGE = StageCompleteMessage(job_id=JOB_ID, job_type="hello_world", completed_stage=1)
receive_task_message = partial(receive_message_of_tasks, queue="tasks")
TASKS = TaskQueueMessage(job_id=JOB_ID, job_type="hello_world", stage=1, task_ids=("t-1", "t-2"))


@dataclass
class FakeMachine:
    failure: Exception | None = None
    got: list = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def process_job_message(self, message):
        self.got.append(("job", message))
        if self.failure:
            raise self.failure

    def process_task_message(self, message):
        self.got.append(("task", message))
        if self.failure:
            raise self.failure

    def receive(self, function, body: bytes | str, *, delivery_count: int = 1) -> None:
        body = body.encode() if isinstance(body, str) else body
        message = ServiceBusMessage(
            body=body,
            message_id="m-1",
            correlation_id="c",
            delivery_count=delivery_count,
            application_properties={},
            user_properties={},
        )
        function(message, get_machine=lambda: self, pause=self.pauses.append)


@pytest.mark.parametrize("message", [JOB, STAGE])
def test_jobs_queue_carries_two_kinds_of_message(message):
    machine = FakeMachine()
    machine.receive(receive_job_message, message.model_dump_json())
    assert machine.got == [("job", message)]


def test_task_queue_carries_tasks():
    machine = FakeMachine()
    machine.receive(receive_task_message, TASKS.model_dump_json())
    assert machine.got == [("task", TASKS)]


@pytest.mark.parametrize(
    ("function", "body", "expected"),
    [
        (receive_job_message, b"not json", "a JobQueueMessage or StageCompleteMessage"),
        (receive_job_message, b"\xff\xfe", "a JobQueueMessage or StageCompleteMessage"),
        (receive_job_message, b'{"job_type": "hello_world"}', "a JobQueueMessage or StageCompleteMessage"),
        (receive_job_message, TASKS.model_dump_json(), "a JobQueueMessage or StageCompleteMessage"),
        (receive_task_message, b"", "a TaskQueueMessage"),
        (receive_task_message, b'{"message_type": "\\ud800"}', "a TaskQueueMessage"),
        (receive_task_message, b'{"format": 2, "weight": NaN}', "a TaskQueueMessage"),
        (receive_task_message, b'{"format": "two"}', "a TaskQueueMessage"),
        (receive_task_message, b"[" * 100_000, "a TaskQueueMessage"),
        (receive_task_message, JOB.model_dump_json(), "a TaskQueueMessage"),
    ],
)
def test_message_of_another_kind_is_logged_and_raised_for_the_broker(function, body, expected, caplog):
    machine = FakeMachine()
    with pytest.raises(MessageUnreadable, match="m-1"):
        machine.receive(function, body)
    assert (machine.got, machine.pauses) == ([], [])
    (record,) = [record for record in caplog.records if record.message == "message_unreadable"]
    assert (record.message_id, record.expected, record.correlation_id) == ("m-1", expected, "c")


def test_only_the_beginning_of_an_unreadable_message_is_logged(caplog):
    with pytest.raises(MessageUnreadable):
        FakeMachine().receive(receive_task_message, b"x" * 10_000)
    assert caplog.records[0].found == "x" * 200


@pytest.mark.parametrize(
    ("function", "document", "name"),
    [
        (receive_job_message, {"message_type": "job_split", "into": 2}, "'job_split' of format 1"),
        (receive_task_message, {"message_type": "task_cancel"}, "'task_cancel' of format 1"),
        (receive_task_message, json.loads(TASKS.model_dump_json()) | {"format": 2}, "'a message' of format 2"),
        (receive_job_message, json.loads(JOB.model_dump_json()) | {"format": 3}, "'job' of format 3"),
        (receive_task_message, json.loads(TASKS.model_dump_json()) | {"format": "2"}, "'a message' of format '2'"),
        (receive_job_message, json.loads(JOB.model_dump_json()) | {"format": 2.0}, "'job' of format 2.0"),
    ],
)
def test_message_of_a_newer_release_is_left_to_it(function, document, name):
    """It may mean something else, even where all fields look right."""
    machine = FakeMachine()
    machine.receive(function, json.dumps(document))
    ((_, message),) = machine.got
    assert (type(message), message.document, message.name) == (UnknownMessage, document, name)


def test_field_that_is_not_known_is_kept_and_told(caplog):
    machine = FakeMachine()
    with caplog.at_level(logging.INFO):
        machine.receive(receive_task_message, json.dumps(json.loads(TASKS.model_dump_json()) | {"priority": 7}))
    ((_, message),) = machine.got
    assert (message.task_ids, message.model_extra) == (("t-1", "t-2"), {"priority": 7})
    assert caplog.records[0].fields == ["priority"]


def test_older_releases_find_no_field_in_our_messages_that_they_refuse():
    assert {"format", "kept"}.isdisjoint(JOB.model_dump() | STAGE.model_dump() | TASKS.model_dump())
    assert "message_type" not in TASKS.model_dump()


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("no answer"), ServicesNotReady("no settings"), DeliveryError("jobs", "down")]
)
def test_outage_keeps_the_message_and_waits_before_it_comes_again(failure, caplog):
    """Without the wait ten deliveries are gone in a second, and the message is in the dead-letter queue
    (lesson D15)."""
    machine = FakeMachine(failure=failure)
    with pytest.raises(type(failure)), caplog.at_level(logging.DEBUG):
        machine.receive(receive_task_message, TASKS.model_dump_json(), delivery_count=3)
    assert machine.pauses == [4.0]
    (record,) = [record for record in caplog.records if record.message == "message_kept"]
    # An outage of the database is told once a minute, where it is met.
    assert record.levelno == (logging.DEBUG if isinstance(failure, StoreUnavailable) else logging.WARNING)


def test_pauses_grow_and_are_capped():
    assert [pause_seconds(count) for count in (None, 0, 1, 2, 4, 5, 1000)] == [1, 1, 1, 2, 8, 15, 15]
    assert sum(pause_seconds(count) for count in range(1, 11)) > 100


def test_bug_is_raised_at_once():
    machine = FakeMachine(failure=ContractViolationError("no"))
    with pytest.raises(ContractViolationError):
        machine.receive(receive_job_message, JOB.model_dump_json())
    assert machine.pauses == []


@pytest.mark.parametrize(
    ("since", "most_days"),
    [
        ("0001-01-01T00:00:00+14:00", 31),
        (-62135596800, 31),
        ("9999-12-31T23:59:59-14:00", 0),
        ("2999-01-01T00:00:00Z", 0),
        (253402300799000, 0),
    ],
)
@pytest.mark.parametrize("times", [1, 10**30])
def test_time_that_a_message_tells_is_between_the_longest_patience_and_now(since, most_days, times):
    message = read_task_message("tasks", json.dumps({"format": 2, "kept": {"since": since, "times": times}}))
    age = datetime.now(UTC) - message.kept.since
    assert timedelta(days=most_days) <= age < timedelta(days=most_days, minutes=5)
    assert message.kept.since.utcoffset() == timedelta(0)
    assert message.kept.times == min(times, 2**31 - 1)


def test_time_that_a_message_was_put_back_is_believed():
    since = datetime.now(UTC) - timedelta(days=3)
    assert Kept(since=since, times=1).since == since
