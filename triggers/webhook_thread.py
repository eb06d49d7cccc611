"""The thread that sends deliveries to webhooks: it begins at a sweep, and ends when there is no webhook."""

import threading
from collections.abc import Callable

from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.safety.safe_log import safe_logger
from triggers.services import get_services

log = safe_logger(__name__)


class SenderThread:
    """At most one thread that runs a sender.

    Args:
        run: Sends until there is nothing to send to; called in the thread.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Start it where it does not run. If the system gives no thread, the next call tries again."""
        with self._lock:
            if self.is_running:
                return
            try:
                self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
                self._thread.start()
            except RuntimeError as error:
                log.warning("webhook_sender_not_started", extra={"error": repr(error)})

    def _work(self) -> None:
        try:
            self._run()
        except StoreUnavailable as error:
            outage.note(str(error))
        except Exception:
            log.exception("webhook_sender_ended")


def _send() -> None:
    # Until the process ends: what it was sending then is sent again by another, with the same id.
    get_services().factory.create_webhook_sender().run(threading.Event())


_sender = SenderThread(_send)


def wake_sender() -> None:
    """Let this process send, if it does not yet."""
    _sender.wake()
