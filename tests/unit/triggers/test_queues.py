"""Queue messages: what reaches the machine, and what stays with the broker."""

import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from azure.functions.servicebus import ServiceBusMessage

from core.errors import ContractViolationError, DeliveryError, MessageRefused, StoreUnavailable
from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from core.models.message import Kept, UnknownMessage, read_task_message
from triggers.delivery import pause_seconds
from triggers.ports import ServicesNotReady
from triggers.queues import receive_job_message
from triggers.queues import receive_task_message as receive_message_of_tasks

JOB_ID = "ab" * 32
JOB = JobQueueMessage(job_id=JOB_ID, job_type="hello_world", correlation_id="c")
STAGE = StageCompleteMessage(job_id=JOB_ID, job_type="hello_world", completed_stage=1)
receive_task_message = partial(receive_message_of_tasks, queue="tasks")
TASKS = TaskQueueMessage(job_id=JOB_ID, job_type="hello_world", stage=1, task_ids=("t-1", "t-2"))


@dataclass
class FakeMachine:
    failure: Exception | None = None
    outage: Exception | None = None
    got: list = field(default_factory=list)
    are_again: list = field(default_factory=list)
    letters: list = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def process_job_message(self, message, *, is_again=False):
        self.got.append(("job", message))
        self.are_again.append(is_again)
        if self.failure:
            raise self.failure

    def process_task_message(self, message, *, queue):
        assert queue == "tasks"
        self.got.append(("task", message))
        if self.failure:
            raise self.failure

    def record(self, letter):
        if self.outage:
            raise self.outage
        self.letters.append(letter)

    def receive(self, function, body: bytes | str, *, delivery_count: int = 1) -> None:
        body = body.encode() if isinstance(body, str) else body
        message = ServiceBusMessage(
            body=body,
            message_id="m-1",
            correlation_id="c",
            delivery_count=delivery_count,
            sequence_number=7,
            enqueued_time_utc=datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 - as the host gives it
            application_properties={},
            user_properties={},
        )
        function(message, get_machine=lambda: self, get_recorder=lambda: self, pause=self.pauses.append)


@pytest.mark.parametrize("message", [JOB, STAGE])
def test_jobs_queue_carries_two_kinds_of_message(message):
    machine = FakeMachine()
    machine.receive(receive_job_message, message.model_dump_json())
    assert machine.got == [("job", message)]


def test_a_job_message_that_was_delivered_before_is_named_so():
    """Its step may have ended the process that had it."""
    machine = FakeMachine()
    for count in (1, 2):
        machine.receive(receive_job_message, JOB.model_dump_json(), delivery_count=count)
    assert machine.are_again == [False, True]


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
        # What no row can hold. A stage of three billion was taken for a database of another release.
        *(
            (receive_task_message, json.dumps(json.loads(TASKS.model_dump_json()) | wrong), "a TaskQueueMessage")
            for wrong in (
                *({name: 3_000_000_000} for name in ("run", "stage", "attempt")),
                {"task_ids": ["t-1", "\x00"]},
                *({name: "\x00"} for name in ("job_type", "cause", "correlation_id")),
            )
        ),
        *(
            (
                receive_job_message,
                json.dumps(json.loads(message.model_dump_json()) | wrong),
                "a JobQueueMessage or StageCompleteMessage",
            )
            for message, wrong in (
                *((JOB, {name: 3_000_000_000}) for name in ("run", "stage", "attempt")),
                *((STAGE, {name: 3_000_000_000}) for name in ("run", "completed_stage")),
                *((JOB, {name: "\x00"}) for name in ("job_type", "cause", "correlation_id")),
                *((STAGE, {name: "\x00"}) for name in ("job_type", "correlation_id")),
            )
        ),
    ],
)
def test_message_of_another_kind_is_a_dead_letter_at_once(function, body, expected):
    machine = FakeMachine()
    machine.receive(function, body)
    assert (machine.got, machine.pauses) == ([], [])
    (letter,) = machine.letters
    assert (letter.reason, letter.message_id, letter.correlation_id) == ("MessageUnreadable", "m-1", "c")
    assert (letter.queue, letter.sequence_number, letter.enqueued_at) == (
        "jobs" if function is receive_job_message else "tasks",
        7,
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    assert letter.description.startswith(f"message m-1: expected {expected}; ")


def test_problem_of_a_message_is_told_of_its_kind_alone():
    machine = FakeMachine()
    machine.receive(receive_job_message, json.dumps(json.loads(STAGE.model_dump_json()) | {"run": 3_000_000_000}))
    (letter,) = machine.letters
    expected = "expected a JobQueueMessage or StageCompleteMessage"
    told = "run: Input should be less than or equal to 2147483647"
    assert letter.description == f"message m-1: {expected}; {told}"


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        ({"job_type": "hello_world"}, "body: expected either job_id (look at this job) or parameters (submit a job), "),
        ({"parameters": {}}, "job_type: Field required"),
        ({"job_type": "hello_world", "parameters": []}, "parameters: Input should be an object"),
        ({"job_type": "hello_world", "parameters": {}, "if_ended": "x"}, "if_ended: Input should be 'return', 'rerun'"),
        ({"job_type": "hello_world", "parameters": {}, "if_ended": "rerun"}, "body: expected an idempotency_key with "),
        ({"job_type": "hello_world", "completed_stage": 1}, "job_id: Field required"),
        ({"message_type": "stage_complete", "parameters": {}}, "job_id: Field required; job_type: Field required; "),
        ([], "body: Input should be an object"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_of_the_kind_that_was_meant(document, problems):
    """Both kinds were told, under the names of the models' validators, which a sender could not read."""
    machine = FakeMachine()
    machine.receive(receive_job_message, json.dumps(document).encode())
    (letter,) = machine.letters
    assert letter.description.startswith(f"message m-1: expected a JobQueueMessage or StageCompleteMessage; {problems}")
    assert "function-after" not in letter.description


def test_submission_that_its_sender_must_change_is_a_dead_letter_at_once(caplog):
    machine = FakeMachine(failure=MessageRefused("ParameterErrors", "n: expected int, found text 'three'"))
    body = json.dumps({"job_type": "hello_world", "parameters": {"n": "three"}}).encode()
    machine.receive(receive_job_message, body)
    (letter,) = machine.letters
    assert (letter.reason, letter.description) == ("ParameterErrors", "n: expected int, found text 'three'")
    assert (letter.body.encode(), letter.reference.kind) == (body, "submission")
    # The one line about it is the state manager's.
    assert (machine.pauses, caplog.records) == ([], [])


@pytest.mark.parametrize("outage", [StoreUnavailable("no answer"), ServicesNotReady("no settings")])
def test_refused_message_stays_with_the_broker_while_it_cannot_be_written_down(outage):
    machine = FakeMachine(outage=outage)
    with pytest.raises(type(outage)):
        machine.receive(receive_job_message, b"not json", delivery_count=3)
    assert machine.pauses == [4.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation_id": "x?sig=hush-hush-hush"},
        {"if_ended": "password=hush-hush-hush"},
        {"idempotency_key": "AccountKey=hush-hush-hush " + "x" * 300},
        {"run": "password=hush-hush-hush"},
    ],
    ids=str,
)
def test_credential_in_a_message_that_is_refused_is_not_repeated(wrong, caplog):
    machine = FakeMachine()
    with caplog.at_level(logging.DEBUG):
        machine.receive(receive_job_message, json.dumps({"job_type": "t", "parameters": {}} | wrong))
    (letter,) = machine.letters
    assert "hush" not in f"{letter.description}{caplog.text}{[vars(record) for record in caplog.records]}"
    # What a redrive sends.
    assert "hush" in letter.body


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("if_end", "did you mean 'if_ended'?"),
        ("idempotency-key", "did you mean 'idempotency_key'?"),
        (
            "weight",
            "known names: job_type, parameters, correlation_id, if_ended, idempotency_key, tags, start_at, priority",
        ),
    ],
)
def test_field_of_a_submission_that_is_not_known_is_taken_and_warned_of(name, hint, caplog):
    machine = FakeMachine()
    machine.receive(receive_job_message, json.dumps({"job_type": "t", "parameters": {}, name: "fail"}))
    ((_, message),) = machine.got
    assert message.model_extra == {name: "fail"}
    (record,) = caplog.records
    assert (record.message, record.levelname, record.hint) == (
        "submission_fields_not_known",
        "WARNING",
        f"{name!r}: {hint}",
    )


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
