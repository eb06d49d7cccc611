"""Sockets that the SDK of Service Bus does not close.

It leaves those of a link that was refused, or of a connection that was cut, to the garbage collector, and Python warns.
A warning is an error here, and it would be that of whatever test runs when they are collected.
"""

import gc
import warnings


def collect_quietly() -> None:
    """Collect what was left, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
