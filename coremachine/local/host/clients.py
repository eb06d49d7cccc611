"""Clients of the SDKs for the connections that bindings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.servicebus import ServiceBusClient, ServiceBusReceiver

# What a link gets to open: several round trips, and all slots of all workers open theirs when the broker comes back.
_OPEN_SECONDS = 10.0
_DEVELOPMENT = "usedevelopmentstorage=true"
# The published account and key of Azurite, on its usual ports.
_AZURITE_ACCOUNT = "devstoreaccount1"
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_AZURITE_PORTS = {"blob": 10000, "queue": 10001}


def service_bus_client(connection: str, environment: Mapping[str, str]) -> ServiceBusClient:
    """`<connection>` holds a connection string, or `<connection>__fullyQualifiedNamespace` asks for an identity."""
    # Late: the SDK takes a third of a second to import, and a worker beside the local broker does not need it.
    from azure.servicebus import ServiceBusClient  # noqa: PLC0415

    # Short retries: the pump backs off by itself, and must notice a stop meanwhile.
    retry: dict[str, Any] = {
        "retry_total": 2,
        "retry_backoff_factor": 0.2,
        "retry_backoff_max": 2,
        "try_timeout": _OPEN_SECONDS,
    }
    connection_string = environment.get(connection)
    if connection_string:
        return ServiceBusClient.from_connection_string(connection_string, **retry)
    return ServiceBusClient(
        environment[f"{connection}__fullyQualifiedNamespace"], _identity(connection, environment), **retry
    )


def turn_off_keep_alive(receiver: ServiceBusReceiver) -> None:
    """Before it opens: no thread of its own, for which closing it would wait up to a second.

    The SDK has an option for it, which counts for receivers that prefetch alone.
    """
    create = receiver._create_handler  # noqa: SLF001

    def create_without_thread(auth: Any) -> None:
        create(auth)
        receiver._handler._keep_alive_interval = 0  # noqa: SLF001

    receiver._create_handler = create_without_thread  # type: ignore[method-assign]  # noqa: SLF001


def storage_address(
    service: str, connection: str, environment: Mapping[str, str]
) -> tuple[str, TokenCredential | None]:
    """What a client of the service "blob" or "queue" is made of: a connection string, or an address and an identity."""
    text = environment.get(connection)
    if text and text.strip().strip(";").lower() == _DEVELOPMENT:
        return _azurite(service), None
    if text:
        return text, None
    account = environment.get(f"{connection}__accountName")
    address = environment.get(f"{connection}__{service}ServiceUri") or f"https://{account}.{service}.core.windows.net"
    return address, _identity(connection, environment)


def _azurite(service: str) -> str:
    endpoint = f"http://127.0.0.1:{_AZURITE_PORTS[service]}/{_AZURITE_ACCOUNT}"
    return (
        f"DefaultEndpointsProtocol=http;AccountName={_AZURITE_ACCOUNT};AccountKey={_AZURITE_KEY};"
        f"{service.capitalize()}Endpoint={endpoint};"
    )


def _identity(connection: str, environment: Mapping[str, str]) -> TokenCredential:
    # Late: azure-identity takes a quarter of a second to import, and a connection string does not need it.
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415

    client_id = environment.get(f"{connection}__clientId")
    # Without one it is that of AZURE_CLIENT_ID, as where the app sends; None would be another identity.
    return DefaultAzureCredential(managed_identity_client_id=client_id) if client_id else DefaultAzureCredential()
