"""Where the engine reports what it does. Without an observer of its own, a process reports to nobody.

An observer never raises, and nothing depends on it: what is reported happens in the same way without it.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from core.models import JobRecord, JobRef, StageDefinition
from core.models.transition import ClaimedRow
from core.models.upkeep import SweepReport
from core.telemetry.instruments import Instrument

# Calls an attempt at a task and reports it; returns what the attempt returns.
AttemptWatch = Callable[[Callable[[ClaimedRow], Any], ClaimedRow], Any]


class Observer:
    """Reports to nobody; another one overrides what it wants to know."""

    def measure(self, instrument: Instrument, value: float, **attributes: str) -> None:
        """Add to a counter, record in a histogram, or set a gauge."""

    def submission(self, job_type: str) -> AbstractContextManager[str | None]:
        """Around a submission. Gives the W3C `traceparent` that the job's row is to keep; None: none."""
        del job_type
        return nullcontext()

    def step(self, job: JobRecord, name: str) -> AbstractContextManager[None]:
        """Around a job's step: `plan_stage` or `finalize_job`."""
        del job, name
        return nullcontext()

    def attempts_of(self, job: JobRecord, stage: StageDefinition) -> AttemptWatch | None:
        """What the attempts of a message's tasks are called through; None: they are called as they are."""
        del job, stage
        return None

    def job_ended(self, ref: JobRef, status: str) -> None:
        """A run of a job has ended, and that is committed."""

    def job_cancelled(self, job_id: str) -> None:
        """A cancel left the job cancelled: now, or it was so before."""

    def sweep_ended(self, report: SweepReport) -> None:
        """A sweep of the janitor has ended."""

    def outgoing_headers(self) -> Mapping[str, str]:
        """What a message carries, so that its receiver knows in which trace it was sent."""
        return {}

    def receiving(self, headers: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Around what a request or message with these headers or properties leads to."""
        del headers
        return nullcontext()

    def flush(self) -> None:
        """Send what was gathered: the process is about to end."""


_NOBODY = Observer()
_observer = _NOBODY


def observer() -> Observer:
    """The process's observer."""
    return _observer


def observe_with(chosen: Observer | None) -> None:
    """From now on the process reports to this one; None: to nobody."""
    global _observer  # noqa: PLW0603 - one for the process, as there is one log
    _observer = chosen or _NOBODY
