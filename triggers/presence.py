"""The thread that registers this process to the other apps, from its start on: also while no message comes."""

import random
import threading

from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# The first message or request of a process that was just started goes first.
_FIRST_SECONDS = 1.0
# core.operating.fleet counts with it; it is not imported, for the sake of cold start.
_BEAT_SECONDS = 20.0
_LONGEST_SECONDS = 320.0


def start_presence() -> None:
    """Begin to register this process. If the system gives no thread, the app works all the same."""
    try:
        threading.Thread(target=_run, name="presence", daemon=True).start()
    except RuntimeError as error:
        log.warning("presence_not_started", extra={"error": repr(error)})


def _run() -> None:
    pause = threading.Event()
    seconds, shortest = _FIRST_SECONDS, 0.0
    while not pause.wait(seconds * random.uniform(0.8, 1.0)):
        shortest, longest = _register(look=shortest != _BEAT_SECONDS)
        seconds = min(max(seconds * 2, shortest), longest)


def _register(*, look: bool) -> tuple[float, float]:
    """Register this process; returns the shortest and the longest pause until the next time.

    Each pause is twice the one before, within these bounds.

    Args:
        look: At the database as well, since no registration succeeded before.
    """
    # Imported when the first registration is due, as for the first message.
    from triggers.ports import ServicesNotReady  # noqa: PLC0415
    from triggers.services import get_services  # noqa: PLC0415

    try:
        services = get_services()
        services.presence.register()
        if look:
            # What is wrong with the database is in the log from the start, also where nobody asks for it.
            services.check_database()
    except ServicesNotReady:
        # An app that cannot work reports that elsewhere; it is retried ever more rarely.
        return 2 * _BEAT_SECONDS, _LONGEST_SECONDS
    except StoreUnavailable as error:
        outage.note(str(error))
    except Exception as error:  # noqa: BLE001 - the thread goes on; the next registration may succeed
        log.warning("presence_not_registered", extra={"reason": f"{type(error).__name__}: {error}"})
    else:
        return _BEAT_SECONDS, _BEAT_SECONDS
    # A process that was just started is soon known once the database can be used.
    return _FIRST_SECONDS, _BEAT_SECONDS
