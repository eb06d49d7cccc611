"""The dead-letter function: what it reads of a message, and what keeps the message in its queue."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

import pytest
from azure.functions.servicebus import ServiceBusMessage

from core.errors import StoreUnavailable
from core.models.dead_letter import RecordedLetter
from triggers.dead_letters import read_letter, receive_dead_letter

JOB_ID = "ab" * 32
BODY = json.dumps({"job_id": JOB_ID, "job_type": "t", "run": 1, "stage": 2, "task_ids": ["s2-a"]}).encode()


def message(body=BODY, **fields):
    # As the host sends it: naive times; reason and description among the properties alone.
    defaults = {
        "message_id": "m-1",
        "correlation_id": "c",
        "delivery_count": 11,
        "sequence_number": 2**50,
        "enqueued_time_utc": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001
        "application_properties": {
            "DeadLetterReason": "MaxDeliveryCountExceeded",
            "DeadLetterErrorDescription": "after 10",
        },
        "user_properties": {},
    }
    return ServiceBusMessage(body=body, **{**defaults, **fields})


@dataclass
class FakeRecorder:
    failure: Exception | None = None
    got: list = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def record(self, letter):
        self.got.append(letter)
        if self.failure:
            raise self.failure
        return RecordedLetter(1, known=False, job_found=True, released=1, hold_seconds=30)

    def receive(self, found):
        receive_dead_letter("tasks", found, get_recorder=lambda: self, pause=self.pauses.append)


def test_message_is_read_with_reason_rows_and_times():
    recorder = FakeRecorder()
    recorder.receive(message())
    (letter,) = recorder.got
    assert (letter.queue, letter.message_id, letter.sequence_number) == ("tasks", "m-1", 2**50)
    assert (letter.reason, letter.description) == ("MaxDeliveryCountExceeded", "after 10")
    assert letter.enqueued_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (letter.reference.job_id, letter.reference.stage, letter.reference.task_ids) == (JOB_ID, 2, ("s2-a",))
    assert (letter.body.encode(), letter.body_size, letter.delivery_count) == (BODY, len(BODY), 11)


def test_message_that_says_nothing_of_itself_is_read_too():
    bare = message(
        body=b"\xff\x00",
        message_id=None,
        correlation_id=None,
        delivery_count=None,
        sequence_number=None,
        enqueued_time_utc=None,
        application_properties=None,
    )
    letter = read_letter("jobs", bare)
    assert (letter.message_id, letter.sequence_number, letter.reason, letter.correlation_id) == ("", 0, None, None)
    assert letter.enqueued_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert "\x00" not in letter.body


@pytest.mark.parametrize("failure", [StoreUnavailable("down"), RuntimeError("no such table")])
def test_row_that_cannot_be_written_keeps_the_message_after_a_pause(failure):
    """It would come back at once, and a dead-letter queue gives nothing up: the queue would spin."""
    recorder = FakeRecorder(failure)
    with pytest.raises(type(failure)):
        recorder.receive(message(delivery_count=3))
    assert recorder.pauses == [4.0]


@pytest.mark.parametrize(("zone", "year"), [(14, 1), (-14, 9999)])
def test_time_beyond_all_years_is_none(zone, year):
    at = datetime(year, 1 if year == 1 else 12, 1 if year == 1 else 31, 12, tzinfo=timezone(timedelta(hours=zone)))
    assert read_letter("tasks", message(enqueued_time_utc=at)).enqueued_at == datetime(1970, 1, 1, tzinfo=UTC)
