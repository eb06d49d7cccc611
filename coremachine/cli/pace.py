"""How fast the tasks of a stage end, and when the last of them will have ended."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

from coremachine.cli.client import Json
from coremachine.cli.render import duration_text

# Older looks do not count: what the pace was then, it may not be now.
WINDOW_SECONDS = 30.0
# A pace of less time is chance.
LEAST_SECONDS = 2.0


class Pace:
    """Of one job that is watched.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[tuple[int, int], deque[tuple[float, int]]] = {}

    def note(self, job: Json) -> None:
        """A look at the job, as the API answers it."""
        now = self._clock()
        for stage in job.get("stages", []):
            looks = self._looks.setdefault((job.get("run", 1), stage["stage"]), deque())
            looks.append((now, ended_of(stage)))
            # The oldest one that stays is the beginning of the window.
            while len(looks) > 1 and looks[1][0] <= now - WINDOW_SECONDS:
                looks.popleft()

    def text(self, job: Json, stage: Json) -> str:
        """`12.5 tasks/s · about 1:20 min left`; empty where nothing can be said."""
        expected = stage.get("expected_count")
        if expected is None or stage.get("finished_at") or job.get("paused"):
            return ""
        rate = self._rate((job.get("run", 1), stage["stage"]), stage)
        if rate <= 0:
            return ""
        pace = f"{rate:.1f} tasks/s" if rate >= 1 else f"{rate * 60:.1f} tasks/min"
        left = expected - ended_of(stage)
        # How long the last ones take, which all run, has nothing to do with the pace.
        if left <= int((stage.get("counts") or {}).get("processing", 0)):
            return pace
        return f"{pace} · about {duration_text(max(1.0, left / rate))} left"

    def _rate(self, key: tuple[int, int], stage: Json) -> float:
        """Tasks per second: in the window, or before there is one since the stage was planned."""
        looks = self._looks.get(key)
        if looks is not None and (seconds := self._clock() - looks[0][0]) >= LEAST_SECONDS:
            return (looks[-1][1] - looks[0][1]) / seconds
        planned_at = stage.get("planned_at")
        if planned_at is None:
            return 0.0
        since = (datetime.now(UTC) - datetime.fromisoformat(planned_at)).total_seconds()
        return ended_of(stage) / since if since >= LEAST_SECONDS else 0.0


def ended_of(stage: Json) -> int:
    """How many of its tasks have ended, in any way."""
    counts = stage.get("counts") or {}
    return sum(int(counts.get(name, 0)) for name in ("completed", "failed", "cancelled"))
