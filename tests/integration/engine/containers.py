"""Microsoft's Service Bus emulator and PostgreSQL in containers, for tests marked `docker`.

Written after Microsoft's documentation and compose file of the emulator:
https://learn.microsoft.com/azure/service-bus-messaging/test-locally-with-service-bus-emulator
https://github.com/Azure/azure-service-bus-emulator-installer
"""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from coremachine.local.broker.config import default_config_path

EMULATOR_IMAGE = "mcr.microsoft.com/azure-messaging/servicebus-emulator:latest"
SQL_IMAGE = "mcr.microsoft.com/mssql/server:2022-latest"
POSTGRES_IMAGE = "postgres:17"
SQL_ALIAS = "sqlserver"
AMQP_PORT, HTTP_PORT, POSTGRES_PORT = 5672, 5300, 5432
# It waits for its SQL Server, which takes its time to start.
START_SECONDS = 180


def reason_not_to_run() -> str | None:
    """Why containers cannot be started here; None where they can."""
    import docker

    with warnings.catch_warnings():
        # docker-py leaves the socket of an engine that does not answer to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env(timeout=10)
            client.close()
        except docker.errors.DockerException:
            return "no Docker engine answers"
        finally:
            gc.collect()
    if os.environ.get("ACCEPT_EULA", "").upper() != "Y":
        return "set ACCEPT_EULA=Y to accept the licences of Microsoft's Service Bus emulator and SQL Server"
    return None


@contextmanager
def service_bus_emulator() -> Iterator[str]:
    """The emulator with the project's own queues; yields its connection string."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    password = f"Pw1-{uuid4().hex}"
    config = "/ServiceBus_Emulator/ConfigFiles/Config.json"
    with Network() as network:
        sql = (
            DockerContainer(SQL_IMAGE)
            .with_network(network)
            .with_network_aliases(SQL_ALIAS)
            .with_env("ACCEPT_EULA", "Y")
            .with_env("MSSQL_SA_PASSWORD", password)
        )
        emulator = (
            DockerContainer(EMULATOR_IMAGE)
            .with_network(network)
            .with_env("ACCEPT_EULA", "Y")
            .with_env("SQL_SERVER", SQL_ALIAS)
            .with_env("MSSQL_SA_PASSWORD", password)
            # Copied, not mounted: the engine may run on another machine.
            .with_copy_into_container(default_config_path().read_bytes(), config)
            .with_exposed_ports(AMQP_PORT, HTTP_PORT)
            .waiting_for(HttpWaitStrategy(HTTP_PORT, "/health").with_startup_timeout(START_SECONDS))
        )
        with sql, emulator:
            # The SDK speaks AMQP without TLS to a development emulator, and heeds the port.
            address = f"{emulator.get_container_host_ip()}:{emulator.get_exposed_port(AMQP_PORT)}"
            yield (
                f"Endpoint=sb://{address};SharedAccessKeyName=RootManageSharedAccessKey;"
                "SharedAccessKey=SAS_KEY_VALUE;UseDevelopmentEmulator=true;"
            )


@contextmanager
def postgres_container() -> Iterator[str]:
    """An empty PostgreSQL server; yields the URL of its superuser's database."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import ExecWaitStrategy

    password = uuid4().hex
    # Over TCP, which the server that only initializes the folder does not listen on.
    is_ready = ExecWaitStrategy(["pg_isready", "--host", "127.0.0.1", "--username", "postgres"])
    server = (
        DockerContainer(POSTGRES_IMAGE)
        .with_env("POSTGRES_PASSWORD", password)
        .with_exposed_ports(POSTGRES_PORT)
        .waiting_for(is_ready.with_startup_timeout(START_SECONDS))
    )
    with server:
        address = f"{server.get_container_host_ip()}:{server.get_exposed_port(POSTGRES_PORT)}"
        yield f"postgresql://postgres:{password}@{address}/postgres"
