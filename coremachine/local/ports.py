"""The ports of a stack: those that were asked for, or the usual ones, or any free ones beside another stack."""

import socket
from collections.abc import Callable

from coremachine.local.stack_file import StackError

ADDRESS = "127.0.0.1"
# By the option of `coremachine up` that asks for another one.
USUAL_PORTS = {"--port": 7071, "--amqp-port": 5672, "--admin-port": 5300}


def choose_port(option: str, asked: int | None, say: Callable[[str], None]) -> int:
    """The port to listen on; 0 where the system shall give a free one.

    Args:
        asked: None: the usual one of the option, if it is free.
        say: Called if the usual one is in use.

    Raises:
        StackError: The port that was asked for cannot be bound.
    """
    port = USUAL_PORTS[option] if asked is None else asked
    try:
        socket.create_server((ADDRESS, port)).close()
    except (OSError, OverflowError) as error:
        if asked is None:
            say(f"port {port} is in use: a free one is taken instead of it")
            return 0
        raise StackError(
            f"expected port {port} on {ADDRESS} to be free, found: {error}; "
            f"choose another with {option} (0 = any free port), leave the option out, or end what uses it"
        ) from error
    return port
