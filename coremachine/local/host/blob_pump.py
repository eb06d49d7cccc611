"""Looks for blobs that a function has not seen, and runs it for each of them, several at once.

As in Azure: a blob that was there before the app's first start counts as new, so does one that is written again; one
whose function fails five times (`poisonBlobThreshold`) is named in the queue `webjobs-blobtrigger-poison` of its
account. Azure also reads logs of the account and waits up to ten minutes; here every container is listed every two
seconds, or less often where that takes long. Failures are counted in this process: after its death from zero.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any

from azure.functions.meta import Datum

from coremachine.local.host.blob_receipts import BlobKey, BlobReceipts
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.errors import InvocationAbortedError
from coremachine.local.host.functions import BlobTrigger, IndexedFunction
from coremachine.local.host.invoker import Call
from coremachine.local.host.loop_pump import LoopPump
from coremachine.local.host.settings import BlobOptions
from coremachine.local.host.storage import Storage
from coremachine.local.host.tracing import child_trace_parent

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, BlobServiceClient

log = logging.getLogger(__name__)

POISON_QUEUE = "webjobs-blobtrigger-poison"
_PAUSE_SECONDS = 2.0
# A container is listed for a tenth of the time at most.
_PAUSE_PER_LISTING = 9.0


class BlobPump(LoopPump):
    """Moves the blobs of one container to one function, up to `max_parallel` at a time."""

    def __init__(
        self,
        function: IndexedFunction,
        trigger: BlobTrigger,
        storage: Storage,
        receipts: BlobReceipts,
        dispatcher: Dispatcher,
        options: BlobOptions,
    ) -> None:
        super().__init__(function, trigger.pattern.text, limit=1)
        self._trigger = trigger
        self._storage = storage
        self._receipts = receipts
        self._dispatcher = dispatcher
        self._options = options
        self._failures: Counter[BlobKey] = Counter()
        # Kept when the account cannot be reached for a while.
        self._running: dict[BlobKey, Future[Datum | None]] = {}

    def _consume(self) -> bool:
        with self._storage.open_blobs(self._trigger.connection) as client:
            while self._running or not self._stopping.is_set():
                started = time.monotonic()
                if not self._stopping.is_set():
                    for key in self._new(client):
                        self._start(client, key)
                    self._trouble.clear()
                listing = time.monotonic() - started
                self._rest(max(_PAUSE_SECONDS, listing * _PAUSE_PER_LISTING))
                self._finish()
        return True

    def _close(self) -> None:
        """The client is closed where it is used."""

    def _new(self, client: BlobServiceClient) -> list[BlobKey]:
        """As many blobs without a receipt as may be started, by name."""
        free = self._options.max_parallel - len(self._running)
        if free <= 0:
            return []
        with self._receiving():
            unseen = (key for key in self._listed(client) if key not in self._running and not self._receipts.has(key))
            return list(islice(unseen, free))

    def _listed(self, client: BlobServiceClient) -> Iterator[BlobKey]:
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - an extra

        pattern = self._trigger.pattern
        container = client.get_container_client(pattern.container)
        try:
            for blob in container.list_blobs(name_starts_with=pattern.prefix or None):
                if pattern.match(blob.name) is not None:
                    yield _key_of(blob)
        except ResourceNotFoundError:  # nobody has made the container yet
            return

    def _start(self, client: BlobServiceClient, key: BlobKey) -> None:
        call = blob_call(self._function, self._trigger, client, key[0])
        if call is None:  # deleted meanwhile
            return
        found, invocation = call
        self._running[found] = self._dispatcher.submit(invocation, f"blob {self._trigger.pattern.container}/{key[0]}")

    def _rest(self, seconds: float) -> None:
        """Wait until a function has ended, or until it is time to look for blobs again."""
        if self._running:
            concurrent.futures.wait(self._running.values(), seconds, return_when=concurrent.futures.FIRST_COMPLETED)
        else:
            self._stopping.wait(seconds)

    def _finish(self) -> None:
        for key in [key for key, outcome in self._running.items() if outcome.done()]:
            error = self._running.pop(key).exception()
            if isinstance(error, InvocationAbortedError):
                continue  # the worker ends: another one runs it again
            if error is not None:
                self._failures[key] += 1
                if self._failures[key] < self._options.poison_threshold:
                    continue
                self._give_up(key)
            self._failures.pop(key, None)
            self._receipts.add(key)

    def _give_up(self, key: BlobKey) -> None:
        name, tag = key
        log.warning("blob_poisoned function=%s blob=%s queue=%s", self._function.name, name, POISON_QUEUE)
        message = {
            "Type": "BlobTrigger",
            "FunctionId": f"Host.Functions.{self._function.name}",
            "BlobType": "BlockBlob",
            "ContainerName": self._trigger.pattern.container,
            "BlobName": name,
            "ETag": f'"{tag}"',
        }
        self._storage.enqueue(self._trigger.connection, POISON_QUEUE, [json.dumps(message).encode()])


def blob_call(
    function: IndexedFunction, trigger: BlobTrigger, client: BlobServiceClient, name: str
) -> tuple[BlobKey, Call] | None:
    """The invocation for a blob, as it is now, and which version of it that is; None where there is none."""
    from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - an extra

    blob = client.get_blob_client(trigger.pattern.container, name)
    try:
        download = blob.download_blob()
        content = download.readall()
    except ResourceNotFoundError:
        return None
    data = Datum(content.decode(errors="replace"), "string") if trigger.is_text else Datum(content, "bytes")
    metadata = metadata_of(trigger, blob.url, download.properties)
    call = Call(function=function, data=data, metadata=metadata, trace_parent=child_trace_parent(""))
    return _key_of(download.properties), call


def metadata_of(trigger: BlobTrigger, url: str, properties: BlobProperties) -> dict[str, Datum]:
    """What the real host sends beside the content: place, properties, metadata, and the parts of the path."""
    values = trigger.pattern.match(properties.name) or {}
    return {
        "BlobTrigger": Datum(f"{trigger.pattern.container}/{properties.name}", "string"),
        "Uri": Datum(json.dumps(url), "json"),
        "Properties": Datum(json.dumps(_described(properties)), "json"),
        "Metadata": Datum(json.dumps(properties.metadata or {}), "json"),
        **{name: Datum(value, "string") for name, value in values.items()},
    }


def _described(properties: BlobProperties) -> dict[str, Any]:
    """Under the names of .NET's BlobProperties."""
    settings = properties.content_settings
    return {
        "LastModified": properties.last_modified.isoformat(),
        "CreatedOn": properties.creation_time.isoformat() if properties.creation_time else None,
        "Metadata": dict(properties.metadata or {}),
        "ContentLength": properties.size,
        "ContentType": settings.content_type,
        "ETag": f'"{_key_of(properties)[1]}"',
        "ContentEncoding": settings.content_encoding,
        "ContentDisposition": settings.content_disposition,
        "ContentLanguage": settings.content_language,
        "CacheControl": settings.cache_control,
    }


def _key_of(properties: BlobProperties) -> BlobKey:
    """Some answers have the tag in quotes, and some do not."""
    return properties.name, str(properties.etag).strip('"')
