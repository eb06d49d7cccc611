"""Sends what functions put into output bindings: to Service Bus, and to queues and blobs of a storage account.

As in Azure, everything is sent after the function has returned and before its message is completed: when a send fails,
the invocation fails, and a message comes again, although other outputs of it may have been sent.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Mapping
from typing import Any

from azure.functions.meta import Datum
from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSender

from coremachine.local.host.clients import service_bus_client, storage_address
from coremachine.local.host.expressions import resolve_expressions
from coremachine.local.host.invoker import Call
from coremachine.local.host.outputs import BlobTarget, HttpTarget, QueueTarget, ServiceBusTarget


class OutputSender:
    """An `OutputSink` for the app settings of one worker. Its clients are opened when they are first needed.

    The SDK's senders are not made for several threads: each has a lock, under which it opens its link as well.
    """

    def __init__(self, environment: Mapping[str, str], *, queue_messages_are_base64: bool = True) -> None:
        self._environment = environment
        self._is_base64 = queue_messages_are_base64
        self._lock = threading.Lock()
        self._clients: dict[str, ServiceBusClient] = {}
        self._senders: dict[ServiceBusTarget, tuple[ServiceBusSender, threading.Lock]] = {}
        self._known: set[tuple[str, str, str]] = set()  # queues and containers that are there

    def put(self, call: Call, outputs: Mapping[str, Datum]) -> None:
        for name, datum in outputs.items():
            match call.function.outputs[name].target:
                case ServiceBusTarget() as target:
                    self._send(target, values_of(datum), call.trace_parent)
                case QueueTarget() as target:
                    self._enqueue(target, resolve_expressions(target.queue_name, call), values_of(datum))
                case BlobTarget() as target:
                    self._upload(target, resolve_expressions(target.path, call), datum)
                case HttpTarget():
                    raise TypeError(f"{name}: an HTTP response is not sent")

    def close(self) -> None:
        with self._lock:
            for client in self._clients.values():
                client.close()

    def _send(self, target: ServiceBusTarget, values: list[str | bytes], trace_parent: str) -> None:
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
                self._senders[target] = (get(target.entity), threading.Lock())
            return self._senders[target]

    def _enqueue(self, target: QueueTarget, queue_name: str, values: list[str | bytes]) -> None:
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415 - an extra
        from azure.storage.queue import QueueClient  # noqa: PLC0415 - an extra

        address, credential = storage_address("queue", target.connection, self._environment)
        if credential is None:
            client = QueueClient.from_connection_string(address, queue_name)
        else:
            client = QueueClient(address, queue_name, credential=credential)
        with client:
            if self._is_new("queue", target.connection, queue_name):
                with contextlib.suppress(ResourceExistsError):
                    client.create_queue()
            for value in values:
                client.send_message(self._queue_text(value))

    def _queue_text(self, value: str | bytes) -> str:
        return base64.b64encode(_bytes(value)).decode() if self._is_base64 else _bytes(value).decode()

    def _upload(self, target: BlobTarget, path: str, datum: Datum) -> None:
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415 - an extra
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - an extra

        container, slash, name = path.partition("/")
        if not (container and slash and name):
            raise ValueError(f"path of a blob: expected container/name, found {path!r}")
        address, credential = storage_address("blob", target.connection, self._environment)
        if credential is None:
            client = BlobServiceClient.from_connection_string(address)
        else:
            client = BlobServiceClient(address, credential=credential)
        with client:
            if self._is_new("blob", target.connection, container):
                with contextlib.suppress(ResourceExistsError):
                    client.create_container(container)
            client.get_blob_client(container, name).upload_blob(_bytes(datum.value), overwrite=True)

    def _is_new(self, service: str, connection: str, name: str) -> bool:
        key = (service, connection, name)
        with self._lock:
            if key in self._known:
                return False
            self._known.add(key)
            return True


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
