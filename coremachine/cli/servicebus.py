"""`coremachine servicebus`: the Service Bus broker alone."""

from pathlib import Path
from typing import Annotated

import typer

from coremachine.cli.errors import CliError, Exit


def servicebus(
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Config.json of Microsoft's emulator. Default: the project's queues."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    amqp_port: Annotated[int, typer.Option("--amqp-port", min=0, max=65535, help="0 = any free port.")] = 5672,
    admin_port: Annotated[
        int, typer.Option("--admin-port", min=0, max=65535, help="Administration, health and faults; 0 = any.")
    ] = 5300,
    amqps_port: Annotated[
        int | None, typer.Option("--amqps-port", min=0, max=65535, help="AMQP over TLS; 0 = any.")
    ] = None,
    admin_tls_port: Annotated[
        int | None, typer.Option("--admin-tls-port", min=0, max=65535, help="Administration over TLS; 0 = any.")
    ] = None,
    tls_dir: Annotated[
        Path, typer.Option("--tls-dir", help="Certificates; clients have to trust ca.pem in it.")
    ] = Path(".coremachine/servicebus-tls"),
    durable: Annotated[
        Path | None,
        typer.Option("--durable", help="A file that keeps entities and messages. Default: memory does."),
    ] = None,
    idle_connection_seconds: Annotated[
        float | None, typer.Option("--idle-connection-seconds", min=1, help="Close silent connections; Azure: 240.")
    ] = None,
    idle_link_seconds: Annotated[
        float | None, typer.Option("--idle-link-seconds", min=1, help="Detach links without use; Azure: 600.")
    ] = None,
) -> None:
    """Run a local Azure Service Bus alone, without Docker; Ctrl-C ends it.

    The first line of its output is the connection string for applications, the second the address of its
    administration (`/health`, `/queues`), a third one the connection string for administration clients.

    For example:

        coremachine servicebus --config Config.json

        coremachine servicebus --amqp-port 0 --admin-port 0

        coremachine servicebus --config Config.json --admin-tls-port 5301

        coremachine servicebus --config Config.json --durable messages.db
    """
    # Other commands start faster without.
    from coremachine.local.broker.config import ConfigError, default_config_path, load_config  # noqa: PLC0415
    from coremachine.local.broker.durable_error import DurableError  # noqa: PLC0415
    from coremachine.local.broker.limits import IdleLimits  # noqa: PLC0415
    from coremachine.local.broker.serve import serve  # noqa: PLC0415
    from coremachine.local.broker.server import Broker, PortInUse, TlsPorts  # noqa: PLC0415

    has_tls = amqps_port is not None or admin_tls_port is not None
    try:
        broker = Broker(
            load_config(config or default_config_path()),
            host=host,
            amqp_port=amqp_port,
            admin_port=admin_port,
            tls=TlsPorts(tls_dir, amqps_port, admin_tls_port) if has_tls else None,
            idle=IdleLimits(idle_connection_seconds, idle_link_seconds),
            durable=durable,
        )
        serve(broker)
    except ConfigError as error:
        raise CannotServe(str(error), Exit.USAGE) from error
    except (DurableError, PortInUse) as error:
        raise CannotServe(str(error), Exit.FAILED) from error


class CannotServe(CliError):
    """The broker cannot start."""

    def __init__(self, text: str, exit_code: Exit) -> None:
        super().__init__(text)
        self.exit_code = exit_code
