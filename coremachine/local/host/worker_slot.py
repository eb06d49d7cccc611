"""One place for a worker process, and how such a process is ended."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from dataclasses import dataclass
from typing import Any

from coremachine.local.host.errors import HostStartError
from coremachine.local.host.protocol import Channel

# After this number the app is not loaded again.
_MOST_DEATHS_AT_LOAD = 3


# For this time from its start, a silence is no news.
_NEW_SECONDS = 60.0


@dataclass
class WorkerSlot:
    """One place for a worker, and the process that has it now."""

    index: int
    # Of the app, where there are several.
    app: str = ""
    process: subprocess.Popen[bytes] | None = None
    channel: Channel | None = None
    is_ready: bool = False
    started_at: float = 0.0
    restart_at: float | None = 0.0
    kill_at: float | None = None
    failures: int = 0
    error: str | None = None
    # How many of its processes have died one after another before they were ready.
    deaths_at_load: int = 0
    # When it last said that it is alive; None until it is ready.
    heard_at: float | None = None
    is_blocked: bool = False
    # It ends, and its timers do not fire any more.
    is_stopping: bool = False
    has_ended: bool = False

    @property
    def due_at(self) -> float | None:
        """When its process is to be killed or started, whichever it is."""
        return self.restart_at if self.process is None else self.kill_at

    @property
    def label(self) -> str:
        """As log records name it: the logs of several apps go to one terminal."""
        return f"{self.app}/{self.index}" if self.app else str(self.index)

    def is_loading_too_long(self, now: float, limit_seconds: float) -> bool:
        """Whether its process should have loaded the app by now, and reports neither success nor failure."""
        waits = self.process is not None and not self.is_ready and self.error is None
        return waits and now - self.started_at > limit_seconds

    def give_up_loading(self, reason: str) -> None:
        """Its process is killed; the next one does not load the app, and answers with the reason."""
        self.error, self.deaths_at_load, self.kill_at = reason, _MOST_DEATHS_AT_LOAD, 0.0

    @property
    def broken(self) -> str | None:
        """Why its next process does not load the app."""
        return self.error if self.deaths_at_load >= _MOST_DEATHS_AT_LOAD else None

    def count_death_at_load(self, status: int) -> None:
        """Its process has ended before it was ready."""
        self.deaths_at_load += 1
        if self.deaths_at_load == _MOST_DEATHS_AT_LOAD:
            self.error = f"its process ended {self.deaths_at_load} times while it loaded, last with status {status}"

    @property
    def may_lead(self) -> bool:
        """Whether it may fire the timers."""
        return self.is_ready and self.channel is not None and not self.is_blocked and not self.is_stopping

    def send(self, message: dict[str, Any]) -> bool:
        """Whether its process was sent the message."""
        return self.channel is not None and self.channel.send(message)

    def silence(self, now: float) -> float:
        """For how long its event loop has said nothing."""
        return 0.0 if self.heard_at is None or self.process is None else now - self.heard_at

    def level(self, now: float) -> int:
        """How much its silence matters: a new one imports what its first functions need, slowly on a busy machine."""
        return logging.INFO if now - self.started_at < _NEW_SECONDS else logging.WARNING


def end_process(process: subprocess.Popen[bytes], patience_seconds: float) -> int:
    """Wait for our child; then ask it to go, then make it."""
    for act, patience in ((None, patience_seconds), (process.terminate, 2.0), (process.kill, 5.0)):
        if act is not None:
            act()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(patience)
    raise HostStartError(f"process {process.pid} does not end even when killed")
