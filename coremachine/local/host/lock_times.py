"""How long a call may go on before the lock of what it handles must be renewed."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime

from azure.functions.meta import Datum


def is_done(outcome: Future[Datum | None], timeout_seconds: float | None) -> bool:
    """Wait for it, whatever it is; `concurrent.futures.wait` is made for many, and costs several times as much."""
    try:
        outcome.exception(timeout_seconds)
    except TimeoutError:
        return False
    return True


def seconds_until(moment: datetime | None) -> float:
    """Below zero for a time that is over; 0 for none."""
    return 0.0 if moment is None else (moment - datetime.now(UTC)).total_seconds()
