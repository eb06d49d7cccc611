"""Which blobs a function has seen: one empty blob each in the host's own storage account, where Azure's host has them.

Source: `BlobReceiptManager` of Microsoft.Azure.WebJobs.Extensions.Storage.Blobs (container and order of the names).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from coremachine.local.host.outputs import HOST_STORAGE
from coremachine.local.host.storage import Storage

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_CONTAINER = "azure-webjobs-hosts"
HOST_ID_SETTING = "AzureFunctionsWebHost__hostid"

# Name and ETag: a blob that is written again has another ETag.
BlobKey = tuple[str, str]


def host_id_of(app_dir: Path, environment: Mapping[str, str]) -> str:
    """The folder of this app's receipts: its name is a setting, else made from the path of the app."""
    return environment.get(HOST_ID_SETTING) or f"local-{hashlib.sha256(str(app_dir).encode()).hexdigest()[:24]}"


class BlobReceipts:
    """The receipts of one function for one container. For one thread.

    Args:
        storage: Has the account that the setting AzureWebJobsStorage names.
        host_id: As `host_id_of` gives it.
        function_name: The name of the function.
        container: The container of the blobs.
    """

    def __init__(self, storage: Storage, host_id: str, function_name: str, container: str) -> None:
        self._storage = storage
        self._folder = f"blobreceipts/{host_id}/Host.Functions.{function_name}/"
        self._container = container
        self._known: set[BlobKey] | None = None

    def has(self, key: BlobKey) -> bool:
        """Whether the function is done with this version of a blob. The first call reads all receipts."""
        if self._known is None:
            self._known = set(self._read())
        return key in self._known

    def add(self, key: BlobKey) -> None:
        """Write a receipt, also over another one."""
        name, tag = key
        path = f"{_CONTAINER}/{self._folder}{tag}/{self._container}/{name}"
        self._storage.upload(HOST_STORAGE, path, b"")
        if self._known is not None:
            self._known.add(key)

    def _read(self) -> list[BlobKey]:
        from azure.core.exceptions import ResourceNotFoundError  # noqa: PLC0415 - an extra

        with self._storage.open_blobs(HOST_STORAGE) as account, suppress(ResourceNotFoundError):
            return list(self._keys(account.get_container_client(_CONTAINER)))
        return []  # nothing has a receipt yet

    def _keys(self, client: ContainerClient) -> list[BlobKey]:
        keys = []
        for path in client.list_blob_names(name_starts_with=self._folder):
            tag, container, name = path.removeprefix(self._folder).split("/", 2)
            if container == self._container:
                keys.append((name, tag))
        return keys
