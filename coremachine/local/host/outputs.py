"""Where the values of output bindings go: read from the binding's JSON, with its settings resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from coremachine.local.host.errors import FunctionIndexError
from coremachine.local.host.settings import resolve_references
from coremachine.local.host.signature import BoundType

HTTP_OUT, SERVICE_BUS_OUT, QUEUE_OUT, BLOB_OUT = "http", "serviceBus", "queue", "blob"
# The setting with the host's own storage account, which bindings without a connection use.
HOST_STORAGE = "AzureWebJobsStorage"
OUTPUTS = (HTTP_OUT, SERVICE_BUS_OUT, QUEUE_OUT, BLOB_OUT)


@dataclass(frozen=True)
class HttpTarget:
    """The answer to the request."""


@dataclass(frozen=True)
class ServiceBusTarget:
    """A queue or a topic, and the name of the setting with its address."""

    connection: str
    entity: str
    is_topic: bool


@dataclass(frozen=True)
class QueueTarget:
    """A queue of a storage account."""

    connection: str
    queue_name: str


@dataclass(frozen=True)
class BlobTarget:
    """Container and name of a blob; both may hold expressions such as {rand-guid}."""

    connection: str
    path: str


Target = HttpTarget | ServiceBusTarget | QueueTarget | BlobTarget


@dataclass(frozen=True)
class Output:
    """One output binding: how its value is converted, and where it goes."""

    bound: BoundType
    target: Target


def read_target(function: str, binding: Mapping[str, Any], environment: Mapping[str, str]) -> Target:
    """The target of an output binding.

    Raises:
        FunctionIndexError: the type is not supported, a setting is missing, or a package that it needs.
        MissingSettingError: a %NAME% in it is not set.
    """
    kind, used_by = binding["type"], f"its output binding {binding['name']!r}"
    if kind == HTTP_OUT:
        return HttpTarget()
    if kind not in OUTPUTS:
        raise FunctionIndexError(
            function, f"expected an output binding out of {', '.join(OUTPUTS)}, found {kind!r}: not supported locally"
        )

    def text(key: str) -> str:
        return resolve_references(binding.get(key) or "", environment, used_by)

    connection = binding.get("connection") or HOST_STORAGE
    if kind == SERVICE_BUS_OUT:
        check_service_bus(function, connection, environment)
        return ServiceBusTarget(connection, text("queueName") or text("topicName"), not binding.get("queueName"))
    service = "queue" if kind == QUEUE_OUT else "blob"
    check_storage(function, service, connection, environment)
    return QueueTarget(connection, text("queueName")) if kind == QUEUE_OUT else BlobTarget(connection, text("path"))


def check_storage(function: str, service: str, connection: str, environment: Mapping[str, str]) -> None:
    """Whether a binding of a storage account can work here.

    Raises:
        FunctionIndexError: the SDK is not installed, or the connection has no setting.
    """
    if find_spec("azure.storage") is None or find_spec(f"azure.storage.{service}") is None:
        raise FunctionIndexError(
            function,
            f"its {service} binding needs azure-storage-{service}: pip install azure-storage-{service}",
        )
    check_connection(function, connection, environment, (f"{service}ServiceUri", "accountName"))


def check_service_bus(function: str, connection: str, environment: Mapping[str, str]) -> None:
    """As `check_connection`; a connection string has to name an endpoint. Its text is a secret and is not shown."""
    check_connection(function, connection, environment, ("fullyQualifiedNamespace",))
    text = environment.get(connection)
    if text and "endpoint=" not in text.lower():
        found = f"{len(text)} characters without one"
        raise FunctionIndexError(function, f"app setting {connection}: expected 'Endpoint=sb://...;...', found {found}")


def check_connection(function: str, connection: str, environment: Mapping[str, str], suffixes: tuple[str, ...]) -> None:
    """A connection is one setting with a connection string, or several that ask for an identity.

    Raises:
        FunctionIndexError: there is none of them.
    """
    names = [connection, *(f"{connection}__{suffix}" for suffix in suffixes)]
    if not any(environment.get(name) for name in names):
        raise FunctionIndexError(function, f"expected one of the app settings {', '.join(names)}, found none of them")
