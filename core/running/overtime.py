"""What is done beside a call that lasts longer than it should. A call that ends soon wakes no thread."""

import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from core.basics.outage import outage
from core.basics.threads import LookingThread
from core.errors import StoreUnavailable
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

# A call that takes less is let alone.
LONG_SECONDS = 0.5
# The thread looks this often.
LOOK_SECONDS = 0.5


@dataclass(eq=False, slots=True)
class _Call:
    """A call that is made now. Its lock decides which comes first: the call's end, or what is done because it lasts.

    Args:
        due: When it has lasted too long; None: nothing more is to be done.
    """

    late: Callable[[], None]
    context: Context
    due: float | None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Overtime:
    """One per process.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: set[_Call] = set()
        self._thread = LookingThread("overtime", LOOK_SECONDS, self.look_now, lambda: bool(self._calls))

    def call(self, do: Callable[[], None], late: Callable[[], None]) -> None:
        """Call `do`. If it lasts, call `late` beside it, in another thread; not once `do` has ended.

        Returns when both have ended. `late` is called again if the database was away.
        """
        call = _Call(late, copy_context(), self._clock() + LONG_SECONDS)
        self._calls.add(call)
        self._thread.need()
        try:
            do()
        finally:
            with call.lock:
                call.due = None
            self._calls.discard(call)

    def look_now(self) -> None:
        """Do what is to be done beside the calls that last."""
        now = self._clock()
        for call in list(self._calls):
            with call.lock:
                if call.due is not None and call.due <= now:
                    call.due = self._clock() + LONG_SECONDS if _is_to_be_repeated(call) else None


def _is_to_be_repeated(call: _Call) -> bool:
    try:
        call.context.run(call.late)
    except StoreUnavailable as error:
        outage.note(str(error))
        return True
    except Exception:
        log.exception("late_call_failed")
    return False
