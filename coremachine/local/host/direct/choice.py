"""Which pump receives from an entity: found out at the first answer of the broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from coremachine.local.host.direct.wire import ForeignBroker, Wire, WireError
from coremachine.local.host.pump import Pump
from coremachine.local.host.trouble import Trouble, back_off

log = logging.getLogger(__name__)

_DEFAULT_PORT = 5672
# Something is there that does not speak as this project's broker does, or one that was ending: it is asked again.
_STRANGE_ANSWERS = 3


def emulator_address(connection_string: str) -> tuple[str, int] | None:
    """Host and port of a broker for development, None for a namespace in Azure: it has TLS, and signs in."""
    parts = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
    names = {name.strip().lower(): value.strip() for name, value in parts.items()}
    if names.get("usedevelopmentemulator", "").lower() != "true":
        return None
    host, _, port = names.get("endpoint", "").removeprefix("sb://").strip("/").partition(":")
    return (host, int(port or _DEFAULT_PORT)) if host else None


class ChosenPump:
    """Starts the one of two pumps that fits the broker, as soon as one answers.

    Args:
        direct: For this project's broker; made with its address.
        other: For any other, through the SDK.
    """

    def __init__(
        self,
        entity: str,
        address: tuple[str, int],
        *,
        direct: Callable[[], Pump],
        other: Callable[[], Pump],
    ) -> None:
        self._address = address
        self._direct, self._other = direct, other
        self._entity = entity
        self._strange_answers = 0
        self._trouble = Trouble(entity, log)
        self._stopping = threading.Event()
        self._pump: Pump | None = None
        self._lock = threading.Lock()
        self._choosing = threading.Thread(target=self._choose, name=f"choose-{entity}", daemon=True)

    def start(self) -> None:
        self._choosing.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            if self._pump is not None:
                self._pump.stop()

    def quiesce(self, timeout_seconds: float) -> None:
        if self._pump is not None:
            self._pump.quiesce(timeout_seconds)

    def join(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        self._choosing.join(timeout_seconds)
        if self._choosing.is_alive():
            return False
        return self._pump is None or self._pump.join(max(0.0, deadline - time.monotonic()))

    def _choose(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                make = self._found()
            except OSError as error:
                self._trouble.report(error)
                self._stopping.wait(back_off(failures))
                failures += 1
                continue
            self._trouble.clear()
            with self._lock:
                if not self._stopping.is_set():
                    self._pump = make()
                    self._pump.start()
            return

    def _found(self) -> Callable[[], Pump]:
        try:
            Wire(self._address).close()
        except WireError as error:
            self._strange_answers += 1
            if not isinstance(error, ForeignBroker) and self._strange_answers < _STRANGE_ANSWERS:
                raise
            log.info("broker_found entity=%s through=sdk reason=%s", self._entity, error)
            return self._other
        return self._direct
