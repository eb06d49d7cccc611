"""What ends a program that runs in the foreground."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP act as Ctrl-C: a KeyboardInterrupt in the main thread."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    # A shell starts background jobs with SIGINT ignored; kill -INT must work there too.
    before_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before_int)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
