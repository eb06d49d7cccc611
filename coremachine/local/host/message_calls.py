"""Invocations for messages: one message each, or all messages of a batch together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.invoker import Call
from coremachine.local.host.message_batches import as_arrays, as_collection, batch_datum, batch_metadata
from coremachine.local.host.messages import as_datum, content_of, manual_metadata, metadata_of, plain_properties
from coremachine.local.host.received import Received, received_by_sdk
from coremachine.local.host.tracing import child_trace_parent

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage


def message_call(function: IndexedFunction, trigger: ServiceBusTrigger, message: ServiceBusReceivedMessage) -> Call:
    """As `received_call`, for a message of the SDK."""
    return received_call(function, trigger, received_by_sdk(message))


def received_call(function: IndexedFunction, trigger: ServiceBusTrigger, message: Received) -> Call:
    """The invocation for one message, in the trace of its sender.

    Raises:
        ValueError: the body cannot be converted.
    """
    properties = plain_properties(message)
    parent = str(properties.get("Diagnostic-Id") or properties.get("traceparent") or "")
    return Call(
        function=function,
        data=as_datum(content_of(message), trigger.data_type),
        metadata=metadata_of(message, properties),
        trace_parent=child_trace_parent(parent),
        trace_state=str(properties.get("tracestate") or ""),
    )


def manual_call(function: IndexedFunction, trigger: ServiceBusTrigger, text: str) -> Call:
    """The invocation that an administrator's request asks for: one message with this text as its body."""
    metadata = manual_metadata()
    if trigger.is_batch:
        metadata = as_arrays([metadata])
        data = as_collection([text.encode()], trigger.data_type)
    else:
        data = as_datum(text.encode(), trigger.data_type)
    return Call(function=function, data=data, metadata=metadata, trace_parent=child_trace_parent(""))


def batch_call(
    function: IndexedFunction, trigger: ServiceBusTrigger, messages: Sequence[ServiceBusReceivedMessage]
) -> Call:
    """One invocation for all messages, in a trace of its own.

    Raises:
        ValueError: a body cannot be converted.
    """
    return Call(
        function=function,
        data=batch_datum(messages, trigger.data_type),
        metadata=batch_metadata(messages),
        trace_parent=child_trace_parent(""),
    )
