"""What the system lets this process have, as it was at its start: a handler may lower it for all, and leave it so."""

import threading

from core.safety.safe_log import safe_logger

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

log = safe_logger(__name__)

# Files and connections; the address space, of which each thread takes its stack; threads.
_NAMES = ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_NPROC")


def _read() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(getattr(resource, name)) for name in _NAMES if hasattr(resource, name)}


_AT_START = _read()


def restore_limits() -> bool:
    """Raise limits that were lowered to what they were; whether one was. For where the system refused something.

    To look at each call would cost 5 microseconds; that something is refused is rare.
    """
    restored = []
    for name, (soft, hard) in _read().items():
        # One that was lowered to its hard limit stays: only root may raise that.
        wanted = _smaller(_AT_START[name][0], hard)
        if wanted != soft and _smaller(soft, wanted) == soft:
            try:
                resource.setrlimit(getattr(resource, name), (wanted, hard))
            except (OSError, ValueError):
                continue
            restored.append(f"{name} {soft}")
    if restored:
        log.warning("limits_restored", extra={"checkpoint": "LIMITS", "found": ", ".join(restored)})
    return bool(restored)


def _smaller(one: int, other: int) -> int:
    """RLIM_INFINITY is -1."""
    return min((one, other), key=lambda value: (value == resource.RLIM_INFINITY, value))


# A thread begins within moments.
BEGIN_LOOKS, LOOK_SECONDS = 20, 1.0


class _Begun(threading.Event):
    """What `Thread.start` waits for, without limit: a thread that gets no memory for its first frame never sets it.

    Its starter would wait for ever, with all that it has: tasks, whose leases are renewed meanwhile.
    """

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        # In looks, not by a clock: while something holds the interpreter, neither of both has a turn.
        for _ in range(BEGIN_LOOKS):
            if super().wait(LOOK_SECONDS):
                return True
            restore_limits()
        raise RuntimeError("can't start new thread: it was made and did not begin, as where memory is short")


def expect_begin(thread: threading.Thread) -> None:
    """Have its `start` raise RuntimeError if it does not begin."""
    started = getattr(thread, "_started", None)
    if type(started) is threading.Event and not started.is_set():
        vars(thread)["_started"] = _Begun()


def start_thread(thread: threading.Thread) -> None:
    """Start it, and once more where a limit had been lowered.

    Raises:
        RuntimeError: The system gives no thread.
    """
    expect_begin(thread)
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        if not restore_limits():
            raise
        thread.start()
