"""The broker as a program: it runs until a signal stops it."""

import asyncio
import contextlib
import os
import signal
import sys
import threading

from coremachine.local.broker.server import Broker
from coremachine.local.connections import on_loop_error
from coremachine.local.descriptors import raise_descriptor_limit

_STDIN = 0


def serve(broker: Broker, *, exit_with_parent: bool = False) -> None:
    """Run a broker; its connection string and its administration's address are the first two lines of the output.

    Args:
        exit_with_parent: End when stdin ends, and so when the starter is gone.

    Raises:
        PortInUse: One of its ports is taken.
        DurableError: What it must keep can no longer be written.
    """
    raise_descriptor_limit()
    asyncio.run(_serve(broker, exit_with_parent=exit_with_parent))


async def _serve(broker: Broker, *, exit_with_parent: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if exit_with_parent:
        threading.Thread(target=_stop_at_eof, args=(loop, stopped), name="parent", daemon=True).start()
    broker.on_failure = stopped.set
    await broker.start()
    lines = [broker.connection_string, broker.admin_url]
    if broker.admin_tls_port is not None:
        lines.append(broker.admin_connection_string)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await broker.stop()
    if broker.failure is not None:
        raise broker.failure


def _stop_at_eof(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """A thread: whatever stdin is (pipe, terminal, file), reading it from one works."""
    while os.read(_STDIN, 4096):
        pass
    # A loop that is closed already has nothing left to stop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(stopped.set)
