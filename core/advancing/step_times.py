"""How long authors' planners and finalizers took last: whether the results that they get may wait for them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.basics.cache import LatestCache

# A step that took less may come before its stage's results are written down: so much more work a crash can cost.
QUICK_SECONDS = 0.05

# A job's type and the stage that is planned; for the finalizer the one after the last.
Step = tuple[str, int]


class StepTimes:
    """One a process. What was never seen is not quick."""

    def __init__(self) -> None:
        self._seconds: LatestCache[Step, float] = LatestCache(256)

    def is_quick(self, step: Step) -> bool:
        seconds = self._seconds.get(step)
        return seconds is not None and seconds < QUICK_SECONDS

    @contextmanager
    def measured(self, step: Step) -> Iterator[None]:
        """Note how long the code inside takes, whether it raises or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds.put(step, time.monotonic() - began)
