"""`python -m coremachine.local.broker`: run the broker until a signal stops it."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence

from coremachine.local.broker.config import ConfigError, default_config_path, load_config
from coremachine.local.broker.server import Broker, PortInUse
from coremachine.local.connections import on_loop_error
from coremachine.local.descriptors import raise_descriptor_limit

_STDIN = 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m coremachine.local.broker", description="A local Azure Service Bus."
    )
    parser.add_argument("--config", default=default_config_path(), help="Config.json of Microsoft's emulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--amqp-port", type=int, default=5672, help="0 for any free port")
    parser.add_argument("--admin-port", type=int, default=5300, help="0 for any free port")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when stdin ends, so when the starter is gone"
    )
    options = parser.parse_args(arguments)
    try:
        raise_descriptor_limit()
        config = load_config(options.config)
        broker = Broker(config, host=options.host, amqp_port=options.amqp_port, admin_port=options.admin_port)
        asyncio.run(_serve(broker, exit_with_parent=options.exit_with_parent))
    except (ConfigError, PortInUse) as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


async def _serve(broker: Broker, *, exit_with_parent: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if exit_with_parent:
        threading.Thread(target=_stop_at_eof, args=(loop, stopped), name="parent", daemon=True).start()
    await broker.start()
    sys.stdout.write(f"{broker.connection_string}\n{broker.admin_url}\n")
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await broker.stop()


def _stop_at_eof(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """A thread: whatever stdin is (pipe, terminal, file), reading it from one works."""
    while os.read(_STDIN, 4096):
        pass
    # A loop that is closed already has nothing left to stop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stopped.set)


if __name__ == "__main__":
    raise SystemExit(main())
