"""What the app does when its process must end: it gives its tasks back, so that other processes get them at once."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any

from core.safety.safe_log import safe_logger

if TYPE_CHECKING:
    from triggers.services import Services

log = safe_logger(__name__)

SIGNAL = signal.SIGTERM


def install_drain(drain: Callable[[], object] | None = None) -> None:
    """Drain at SIGTERM and when the interpreter ends. A handler that was there before is called as well.

    Python sets signal handlers in the main thread only; elsewhere what is left is the interpreter's end.
    """
    act = drain or drain_made_services
    atexit.register(act)
    _acts.append(act)
    _protect_children()
    if threading.current_thread() is threading.main_thread():
        previous = signal.getsignal(SIGNAL)
        signal.signal(SIGNAL, _Handler(act, previous))
    else:
        log.debug("drain_without_signal", extra={"reason": "the app was not loaded in the main thread"})


def drain_made_services() -> int:
    """Release the tasks of this process: how many. Makes nothing if nothing was needed so far."""
    # Looked up, not imported: an app that never ran anything has none, and its process is about to end.
    module = sys.modules.get("triggers.services")
    # One that is being imported in this moment has nothing either.
    find: Callable[[], Services | None] | None = getattr(module, "find_services", None)
    services = find() if find is not None else None
    try:
        if services is None:
            return 0
        count = services.machine.drain()
        _end_presence(services)
        return count
    finally:
        telemetry = sys.modules.get("core.telemetry.reports")
        if telemetry is not None:
            telemetry.observer().flush()


def _end_presence(services: "Services") -> None:
    """Others need not wait until this process has been silent for a time. Its tasks are released already."""
    try:
        services.presence.end()
    except Exception as error:  # noqa: BLE001 - the process is about to end, in whatever state the database is
        log.info("end_not_registered", extra={"reason": f"{type(error).__name__}: {error}"})


@cache
def _protect_children() -> None:
    """Once: in a process that forks there are no signal handlers of ours, and no event loop's."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_reset_signals)


_forking = threading.local()
_acts: list[Callable[[], object]] = []


def _hold_signals() -> None:
    """One that comes to the child before its handlers are gone would be taken for the parent's."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL, signal.SIGINT})


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _reset_signals() -> None:
    """For the child: its signals are neither the app's nor the event loop's, whose wakeup descriptor it shares.

    Its end is no reason to drain: what it seems to hold is its parent's.
    """
    for act in _acts:
        atexit.unregister(act)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(SIGNAL, signal.SIG_DFL)
    _release_signals()


class _Handler:
    """Drains in a thread of its own: the main thread may hold whatever a drain needs.

    The thread is none that dies with the interpreter's end, so an orderly end waits for it.
    """

    def __init__(self, drain: Callable[[], object], previous: Any) -> None:
        self._drain = drain
        self._previous = previous
        self._pid = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # forked where Python did not notice
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # Somebody who took the signal over and calls us decides for himself when the process ends.
        is_in_charge = signal.getsignal(number) is self
        ends_process = is_in_charge and not callable(self._previous) and self._previous is not signal.SIG_IGN
        if is_in_charge:
            # A second signal ends the process at once.
            signal.signal(number, signal.SIG_DFL if self._previous is None else self._previous)
        try:
            threading.Thread(target=self._work, args=(number, ends_process), name="drain").start()
        except RuntimeError as error:
            # The system gives none. The interpreter's end drains as well; of what a signal ends, the leases run out.
            log.warning("drain_not_started", extra={"checkpoint": "DRAIN", "error": repr(error)})
            if ends_process:
                os.kill(os.getpid(), number)
        if callable(self._previous):
            self._previous(number, frame)

    def _work(self, number: int, ends_process: bool) -> None:  # noqa: FBT001 - a thread's arguments
        try:
            self._drain()
        except Exception:
            log.exception("drain_failed", extra={"checkpoint": "DRAIN"})
        if ends_process:
            os.kill(os.getpid(), number)
