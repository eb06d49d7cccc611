"""What a worker does with every pump, whatever its messages come from."""

from __future__ import annotations

from typing import Protocol


class Pump(Protocol):
    """Moves messages to a function from `start` on; `stop`, then `quiesce` or `join` end that."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def quiesce(self, timeout_seconds: float) -> None: ...
    def join(self, timeout_seconds: float) -> bool: ...
