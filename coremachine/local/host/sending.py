"""Sends what functions put into output bindings: to Service Bus, and to queues and blobs of a storage account.

As in Azure, everything is sent after the function has returned and before its message is completed: when a send fails,
the invocation fails, and a message comes again, although other outputs of it may have been sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azure.functions.meta import Datum

from coremachine.local.host.clients import service_bus_client
from coremachine.local.host.expressions import resolve_expressions
from coremachine.local.host.functions import Input
from coremachine.local.host.invoker import Call
from coremachine.local.host.outputs import BlobTarget, HttpTarget, QueueTarget, ServiceBusTarget
from coremachine.local.host.storage import Storage

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusClient, ServiceBusSender


class OutputSender:
    """An `OutputSink` for the app settings of one worker. Its clients are opened when they are first needed.

    The SDK's senders are not made for several threads: each has a lock, under which it opens its link as well.
    """

    def __init__(self, environment: Mapping[str, str], storage: Storage) -> None:
        self._environment = environment
        self._storage = storage
        self._lock = threading.Lock()
        self._clients: dict[str, ServiceBusClient] = {}
        self._senders: dict[ServiceBusTarget, tuple[ServiceBusSender, threading.Lock]] = {}

    def put(self, call: Call, outputs: Mapping[str, Datum]) -> None:
        for name, datum in outputs.items():
            match call.function.outputs[name].target:
                case ServiceBusTarget() as target:
                    self._send(target, values_of(datum), call.trace_parent)
                case QueueTarget() as target:
                    self._storage.enqueue(
                        target.connection,
                        resolve_expressions(target.queue_name, call),
                        [_bytes(one) for one in values_of(datum)],
                    )
                case BlobTarget() as target:
                    self._storage.upload(target.connection, resolve_expressions(target.path, call), _bytes(datum.value))
                case HttpTarget():
                    raise TypeError(f"{name}: an HTTP response is not sent")

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()

    def _send(self, target: ServiceBusTarget, values: list[str | bytes], trace_parent: str) -> None:
        from azure.servicebus import ServiceBusMessage  # noqa: PLC0415 - slow to import

        sender, lock = self._sender(target)
        properties: dict[str | bytes, Any] = {"Diagnostic-Id": trace_parent} if trace_parent else {}
        messages = [ServiceBusMessage(value, application_properties=dict(properties)) for value in values]
        with lock:
            for message in messages:
                sender.send_messages(message)

    def _sender(self, target: ServiceBusTarget) -> tuple[ServiceBusSender, threading.Lock]:
        with self._lock:
            if target not in self._senders:
                client = self._clients.get(target.connection)
                if client is None:
                    client = service_bus_client(target.connection, self._environment)
                    self._clients[target.connection] = client
                get = client.get_topic_sender if target.is_topic else client.get_queue_sender
                # No thread that keeps it alive: closing would wait for it, and a sender opens its link again.
                self._senders[target] = (get(target.entity, keep_alive=0), threading.Lock())
            return self._senders[target]


class StorageSource:
    """An `InputSource` on the blobs of storage accounts."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def get(self, call: Call, wanted: Input) -> Datum:
        datum = self._storage.download(wanted.connection, resolve_expressions(wanted.path, call))
        if wanted.is_text and datum.type == "bytes":
            return Datum(datum.value.decode(), "string")
        return datum


def values_of(datum: Datum) -> list[str | bytes]:
    """One value for each message: an array in JSON is several, also when it comes as text, as in Azure."""
    if datum.type == "bytes":
        return [datum.value]
    text: str = datum.value
    if datum.type == "string" and not text.lstrip().startswith("["):
        return [text]
    try:
        document = json.loads(text)
    except ValueError:
        return [text]
    return [_item(item) for item in document] if isinstance(document, list) else [_item(document)]


def _item(item: Any) -> str:
    """Of a queue's message the body counts: azure.functions writes it with an id."""
    if isinstance(item, dict) and set(item) == {"id", "body"}:
        return str(item["body"])
    return item if isinstance(item, str) else json.dumps(item)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
