"""Clients for the storage accounts that bindings name: Azurite, a connection string, or an identity."""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from azure.functions.meta import Datum

from coremachine.local.host.clients import storage_address

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient
    from azure.storage.queue import QueueClient


class Storage:
    """Queues and blobs for one worker's app settings. What is written to and does not exist yet is made.

    Args:
        is_base64: Whether messages of queues are Base64, `extensions.queues.messageEncoding` of host.json.
    """

    def __init__(self, environment: Mapping[str, str], *, is_base64: bool = True) -> None:
        self._environment = environment
        self._is_base64 = is_base64
        self._lock = threading.Lock()
        self._made: set[tuple[str, str, str]] = set()

    def open_queue(self, connection: str, name: str) -> QueueClient:
        """A client of a queue; the caller closes it."""
        from azure.storage.queue import QueueClient  # noqa: PLC0415 - an extra

        address, credential = storage_address("queue", connection, self._environment)
        if credential is None:
            return QueueClient.from_connection_string(address, name)
        return QueueClient(address, name, credential=credential)

    def open_blobs(self, connection: str) -> BlobServiceClient:
        """A client of an account's blobs; the caller closes it."""
        from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - an extra

        address, credential = storage_address("blob", connection, self._environment)
        if credential is None:
            return BlobServiceClient.from_connection_string(address)
        return BlobServiceClient(address, credential=credential)

    def enqueue(self, connection: str, name: str, values: list[bytes]) -> None:
        """Send messages to a queue."""
        for value in values:
            self.forward(connection, name, base64.b64encode(value).decode() if self._is_base64 else value.decode())

    def forward(self, connection: str, name: str, content: str) -> None:
        """Send a message that is encoded already."""
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415 - an extra

        with self.open_queue(connection, name) as client:
            if self._is_missing("queue", connection, name):
                with contextlib.suppress(ResourceExistsError):
                    client.create_queue()
                self._remember("queue", connection, name)
            client.send_message(content)

    def decode(self, content: str) -> str:
        """The text of a queue's message.

        Raises:
            ValueError: it is no Base64 of UTF-8, and should be.
        """
        if not self._is_base64:
            return content
        try:
            return base64.b64decode(content, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise ValueError(f"expected a message in Base64 (extensions.queues.messageEncoding), found {exc}") from exc

    def upload(self, connection: str, path: str, content: bytes) -> None:
        """Write a blob, also over another one."""
        from azure.core.exceptions import ResourceExistsError  # noqa: PLC0415 - an extra

        container, name = split_path(path)
        with self.open_blobs(connection) as client:
            if self._is_missing("blob", connection, container):
                with contextlib.suppress(ResourceExistsError):
                    client.create_container(container)
                self._remember("blob", connection, container)
            client.get_blob_client(container, name).upload_blob(content, overwrite=True)

    def download(self, connection: str, path: str) -> Datum:
        """The content of a blob; a datum without a value where there is none."""
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - an extra

        container, name = split_path(path)
        with self.open_blobs(connection) as client:
            try:
                content: bytes = client.get_blob_client(container, name).download_blob().readall()
            except ResourceNotFoundError:
                return Datum(None, None)
        return Datum(content, "bytes")

    def _is_missing(self, service: str, connection: str, name: str) -> bool:
        with self._lock:
            return (service, connection, name) not in self._made

    def _remember(self, service: str, connection: str, name: str) -> None:
        with self._lock:
            self._made.add((service, connection, name))


def split_path(path: str) -> tuple[str, str]:
    """Container and name of a blob.

    Raises:
        ValueError: one of them is missing.
    """
    container, _, name = path.partition("/")
    if not (container and name):
        raise ValueError(f"path of a blob: expected container/name, found {path!r}")
    return container, name
