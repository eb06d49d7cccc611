"""What supervisor and worker say to each other: JSON lines over a socket pair.

The first line to a worker holds its options; the later ones are
`{"command": "stop"}` (with `"grace_seconds"` for another time than that of the options),
`{"command": "lead_timers", "is_host_start": true}` and `{"command": "leave_timers"}`. A worker
sends `{"event": "ready", "app": {...}}` (an `AppSummary`), `{"event": "failed", "error": "..."}`,
`{"event": "still_loading", "place": "..."}` when the app's import takes longer than `load_seconds`,
`{"event": "function_timeout", "function": "..."}`, `{"event": "timer_failing", "function": "..."}` when that one has
failed several times in a row, `{"event": "stopping"}` when it begins to end, for whatever reason, and each second, from
its event loop, `{"event": "alive"}`: when that does not come, something holds the loop.
When the supervisor's end closes, the worker stops: no worker outlives its supervisor.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# A worker that ended itself because a function overran functionTimeout: it is replaced at once.
EXIT_FUNCTION_TIMEOUT = 70
EXIT_LOAD_FAILED = 71
# A spare worker that has imported files of the app.
EXIT_NOT_SPARE = 72
# A worker that a function has broken for all others.
EXIT_BROKEN = 74
ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker gets when it starts; the app's settings are its environment."""

    app_dir: str
    index: int
    workers: int
    listener_fd: int
    log_level: str
    grace_seconds: float
    state_dir: str
    # How long the app's import may take.
    load_seconds: float
    master_key: str | None
    host_key: str | None
    # For the keys that are changed while the host runs.
    keys_dir: str | None = None
    cors_origins: Sequence[str] = ()
    cors_credentials: bool = False
    # The reason why the app is not loaded again: the worker answers with it.
    broken: str | None = None
    # `module:function` of the app, called before the worker receives anything.
    warm_up: str | None = None

    def to_message(self) -> dict[str, Any]:
        return asdict(self)


class Channel:
    """One end of the socket pair. Sending is safe from any thread; receiving belongs to one."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._lock = threading.Lock()
        self._buffer = b""

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Send one message; False when the other side is gone, which its reader finds out as well."""
        try:
            with self._lock:
                self._end.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that the next piece of data completes (perhaps none yet); None at the end. Blocks for data."""
        try:
            data = self._end.recv(65536)
        except OSError:
            return None
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def messages(self) -> Iterator[dict[str, Any]]:
        """All messages until the other side closes."""
        while (batch := self.receive()) is not None:
            yield from batch

    def close(self) -> None:
        self._end.close()
