"""`python -m local.broker`: run the broker until it is told to stop."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from local.broker.config import BrokerConfig, ConfigError, default_config_path, load_config
from local.broker.server import Broker, PortInUse


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local.broker", description="A local Azure Service Bus.")
    parser.add_argument("--config", default=default_config_path(), help="Config.json of Microsoft's emulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--amqp-port", type=int, default=5672, help="0 for any free port")
    parser.add_argument("--admin-port", type=int, default=5300, help="0 for any free port")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        asyncio.run(_serve(config, options.host, options.amqp_port, options.admin_port))
    except (ConfigError, PortInUse) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


async def _serve(config: BrokerConfig, host: str, amqp_port: int, admin_port: int) -> None:
    broker = Broker(config, host=host, amqp_port=amqp_port, admin_port=admin_port)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await broker.start()
    sys.stdout.write(f"{broker.connection_string}\n")
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await broker.stop()


if __name__ == "__main__":
    raise SystemExit(main())
