"""What a worker's forked children must not have: a function may fork, and its child is no worker.

The child would hold the listener and the channel open after the worker has ended, and its signals would arrive at the
worker's event loop, whose wakeup descriptor it shares.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from weakref import WeakSet

log = logging.getLogger(__name__)

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
# Connections of this process; those that are gone are forgotten.
_connections: WeakSet[socket.socket] = WeakSet()


def keep_from_children(*sockets: socket.socket) -> None:
    """Let neither forked children nor programs that they start have these, nor this process's signal handlers."""
    forking = threading.local()
    for one in sockets:
        one.set_inheritable(False)

    def before() -> None:
        # A signal that comes to the child before its handlers are gone would reach the worker.
        forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, forking.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for one in sockets:
            if one.fileno() >= 0:
                os.close(one.detach())
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


def close_in_children(connection: socket.socket) -> None:
    """Let no forked child have this one: a broker would send it messages for as long as the child lives."""
    _connections.add(connection)


def _close_connections() -> None:
    for one in list(_connections):
        if one.fileno() >= 0:
            os.close(one.detach())


os.register_at_fork(after_in_child=_close_connections)


@contextlib.contextmanager
def ends_children() -> Iterator[None]:
    """Around a function: a child that it forked and that comes out of it ends here, and settles nothing."""
    pid, status = os.getpid(), 1
    try:
        yield
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        if os.getpid() != pid:
            log.warning("forked_child_left_function pid=%d parent=%d exit_status=%d", os.getpid(), pid, status)
            os._exit(status & 0xFF)
