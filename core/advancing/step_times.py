"""How long authors' planners and finalizers took the last time: whether results may wait for them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.basics.cache import LatestCache

# A step that took less may run before its stage's results are written: a crash repeats at most this much more work.
QUICK_SECONDS = 0.05


class StepTimes:
    """One per process. A step is a job type and the stage that is planned; the finalizer's is one after the last."""

    def __init__(self) -> None:
        self._seconds: LatestCache[tuple[str, int], float] = LatestCache(256)

    def is_quick(self, job_type: str, stage: int) -> bool:
        """False for a step that was never measured."""
        seconds = self._seconds.get((job_type, stage))
        return seconds is not None and seconds < QUICK_SECONDS

    @contextmanager
    def measured(self, job_type: str, stage: int) -> Iterator[None]:
        """Note how long the code inside takes, whether it raises or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds.put((job_type, stage), time.monotonic() - began)
