"""What a function sees of a Service Bus message, through the genuine converter."""

import asyncio
import threading
from datetime import datetime, timedelta
from pathlib import Path

import azure.functions as func
import pytest
from azure.functions.servicebus import ServiceBusMessageInConverter

from coremachine.local.host.converters import QuickTimes
from coremachine.local.host.functions import SERVICE_BUS, IndexedFunction, ServiceBusTrigger
from coremachine.local.host.invoker import Call, PortableInvoker
from coremachine.local.host.messages import as_datum, content_of, trigger_metadata
from coremachine.local.host.received import received_by_sdk
from coremachine.local.host.signature import GENERIC

from .conftest import received_message


@pytest.fixture
def loop():
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def deliver(loop):
    """Runs a message through the invoker and returns what a function got."""
    invoker = PortableInvoker(loop, {})

    def run(message, data_type: str = "UNDEFINED", *, wants_raw: bool = False):
        seen = []

        def on_message(message):
            seen.append(message)

        function = IndexedFunction(
            name="f",
            handler=on_message,
            is_async=False,
            trigger_type=GENERIC if wants_raw else SERVICE_BUS,
            trigger_parameter="message",
            trigger=ServiceBusTrigger("C", "q", "", "", False, data_type, None),
            context_parameter=None,
            raw_bindings=(),
            directory=Path(),
        )
        invoker.submit(
            Call(function, as_datum(content_of(received_by_sdk(message)), data_type), trigger_metadata(message))
        ).result(10)
        return seen[0]

    yield run
    invoker.close()


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-29T01:20:11",
        "2026-11-29T01:20:11.1",
        "2026-11-29T01:20:11.123456",
        "2026-11-29T01:20:11.1234567",
        "9999-12-31T23:59:59.9999999",
        "2026-11-29T01:20:11Z",
        "2026-11-29T01:20:11.1234567Z",
        "2026-11-29T01:20:11.1234567+00:00",
        "11/29/2026T01:20:11",
        "",
        None,
        "2026-02-30T01:20:11",
        "2026-11-29T25:20:11",
        "2026-11-29T01:20:61",
        "2026-11-29",
        "2026-11-29 01:20:11",
        "\u0662026-11-29T01:20:11",
        "yesterday",
    ],
)
def test_a_time_is_read_as_the_library_reads_it(text):
    def read(converter):
        try:
            return converter._parse_datetime(text)
        except ValueError as error:
            return type(error), str(error)

    assert read(QuickTimes) == read(ServiceBusMessageInConverter)


def test_function_gets_what_the_real_host_sends(deliver):
    message = deliver(
        received_message(
            b'{"a": 1}',
            message_id="m7",
            delivery_count=2,
            time_to_live_seconds=600,
            properties={"kind": "x", "n": 3, "flag": True},
            correlation_id="c",
            subject="s",
            to="t",
            reply_to="r",
            content_type="application/json",
            group_id="session",
            reply_to_group_id="reply-session",
        )
    )
    assert isinstance(message, func.ServiceBusMessage)
    assert message.get_body() == b'{"a": 1}'
    assert message.message_id == "m7"
    assert message.delivery_count == 3
    assert message.enqueued_time_utc == datetime(2026, 1, 2, 3, 4, 5, 678000)  # noqa: DTZ001 - naive is the point
    assert message.expires_at_utc - message.enqueued_time_utc == timedelta(minutes=10)
    assert message.sequence_number == 42
    assert message.lock_token == "00000000-0000-0000-0000-000000000007"  # noqa: S105 - not a password
    assert message.application_properties == {"kind": "x", "n": 3, "flag": True}
    assert message.user_properties == message.application_properties
    assert (message.correlation_id, message.subject, message.label) == ("c", "s", "s")
    assert (message.to, message.reply_to, message.content_type) == ("t", "r", "application/json")
    assert (message.session_id, message.reply_to_session_id) == ("session", "reply-session")
    assert message.partition_key == "partition"


def test_fields_that_the_real_host_never_sends_are_none(deliver):
    properties = {"DeadLetterReason": "because", "DeadLetterErrorDescription": "of that"}
    message = deliver(received_message(time_to_live_seconds=60, properties=properties))
    assert message.locked_until is None
    assert message.time_to_live is None
    assert message.dead_letter_reason is None
    assert message.dead_letter_error_description is None
    assert message.enqueued_sequence_number is None
    assert message.scheduled_enqueue_time_utc is None
    assert message.state is None
    assert message.application_properties["DeadLetterReason"] == "because"


def test_absent_fields_are_none_and_no_time_to_live_is_the_end_of_time(deliver):
    message = deliver(received_message())
    assert message.correlation_id is None
    assert message.subject is None
    assert message.application_properties == {}
    assert message.expires_at_utc.year == 9999


def test_binary_body_arrives_unchanged_and_undefined_one_as_text(deliver):
    assert deliver(received_message(b"\xff\x00"), "BINARY").get_body() == b"\xff\x00"
    assert deliver(received_message("è".encode())).get_body() == "è".encode()


def test_plain_text_parameter_gets_the_body_alone(deliver):
    assert deliver(received_message(b"text"), wants_raw=True) == "text"
