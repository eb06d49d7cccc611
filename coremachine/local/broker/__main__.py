"""`python -m coremachine.local.broker`: run the broker until a signal stops it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from coremachine.local.broker.config import ConfigError, default_config_path, load_config
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.limits import IdleLimits
from coremachine.local.broker.serve import serve
from coremachine.local.broker.server import Broker, PortInUse, TlsPorts


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    tls = None
    if options.amqps_port is not None or options.admin_tls_port is not None:
        tls = TlsPorts(Path(options.tls_dir), options.amqps_port, options.admin_tls_port)
    try:
        broker = Broker(
            load_config(options.config),
            host=options.host,
            amqp_port=options.amqp_port,
            admin_port=options.admin_port,
            tls=tls,
            idle=IdleLimits(options.idle_connection_seconds, options.idle_link_seconds),
            durable=options.durable,
        )
        serve(broker, exit_with_parent=options.exit_with_parent)
    except (ConfigError, DurableError, PortInUse) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    # As it was started: by its own command, or with -m.
    command = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(
        prog="python -m coremachine.local.broker" if command == "__main__.py" else command,
        description="A local Azure Service Bus.",
    )
    parser.add_argument("--config", default=default_config_path(), help="Config.json of Microsoft's emulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--amqp-port", type=int, default=5672, help="0 for any free port")
    parser.add_argument("--admin-port", type=int, default=5300, help="0 for any free port")
    parser.add_argument("--amqps-port", type=int, help="AMQP over TLS; 0 for any free port")
    parser.add_argument("--admin-tls-port", type=int, help="administration over TLS; 0 for any free port")
    parser.add_argument(
        "--tls-dir", default=".coremachine/servicebus-tls", help="certificates; ca.pem is to be trusted"
    )
    parser.add_argument("--durable", type=Path, help="a file that keeps entities and messages; without it, memory does")
    parser.add_argument("--idle-connection-seconds", type=float, help="close silent connections; the service: 240")
    parser.add_argument("--idle-link-seconds", type=float, help="detach links without use; the service: 600")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when stdin ends, so when the starter is gone"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
