"""What this process postponed lately, since it could not do it: messages that no row knows of yet.

A submission with a mistyped job type waits so for hours. It is no dead letter, and the rows of queues do not count it,
so this is where people find it. Each process notes what it saw; a message that waits comes back within a minute or so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock

from core.models.insight import Finding, Severity
from core.models.message import Kept
from core.models.retry import POSTPONE_SECONDS

# Several processes share a queue: each sees a message now and then. Then it went elsewhere, or was dealt with.
FORGOTTEN_AFTER = timedelta(seconds=10 * max(POSTPONE_SECONDS))
_MOST = 50


@dataclass
class _Note:
    since: datetime
    advice: str
    seen_at: datetime


class PostponedMessages:
    """Of one process; threads share it."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = Lock()
        self._notes: dict[tuple[str, str], _Note] = {}

    def note(self, queue: str, reason: str, kept: Kept, advice: str) -> None:
        """A message went back.

        Args:
            queue: Logical name.
            reason: Why, in a sentence.
            advice: What to do about it.
        """
        with self._lock:
            before = self._notes.pop((queue, reason), None)
            since = kept.since if before is None else min(before.since, kept.since)
            self._notes[queue, reason] = _Note(since, advice, self._clock())
            while len(self._notes) > _MOST:
                del self._notes[next(iter(self._notes))]

    def find(self) -> list[Finding]:
        """A warning for each reason that was seen lately, the latest last."""
        oldest = self._clock() - FORGOTTEN_AFTER
        with self._lock:
            self._notes = {key: note for key, note in self._notes.items() if note.seen_at >= oldest}
            return [_finding(queue, reason, note) for (queue, reason), note in self._notes.items()]


def _finding(queue: str, reason: str, note: _Note) -> Finding:
    return Finding(
        "message_postponed",
        Severity.WARNING,
        f"a message on the queue {queue!r} waits: {reason}",
        since=note.since,
        advice=f"{note.advice}. After COREMACHINE_UNKNOWN_WORK_PATIENCE_SECONDS it becomes a dead letter",
        about={"queue": queue},
    )
