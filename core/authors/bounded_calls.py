"""A job class's code for somebody who waits: given up after a time, so that nobody waits for ever.

What is declared has bounds of its own and runs where it is called. Code of an author's runs in a thread, which Python
cannot end: one that hangs remains. A call that was given up writes nothing, whenever it ends.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

from core.basics.threads import ThreadReserve
from core.errors import HANGING_REMEDY, JobTypeBusy, SubmissionHangs
from core.safety.safe_log import safe_logger
from core.safety.safe_text import type_name

log = safe_logger(__name__)

T = TypeVar("T")
# What a call does before it writes; from there on it is not given up.
BeforeWrite = Callable[[], None]

CALL_SECONDS = 20.0
# Of one job type. Beyond it no other is begun: threads do not pile up.
MOST_HANGING = 8

# Whether the caller runs in a thread that is given up itself.
is_bounded: ContextVar[bool] = ContextVar("is_bounded", default=False)


class _GivenUp(Exception):
    """Ends a call that was given up, where it would begin to write."""


class _Call(Generic[T]):
    """One call in its thread. Its outcome is cancelled when it is given up, and runs while it writes."""

    def __init__(self, job_type: str, source: str | None) -> None:
        self.job_type = job_type
        self.source = source
        self.began_at = datetime.now(UTC)
        self.began = time.monotonic()
        self.outcome: Future[T] = Future()

    def begin_to_write(self) -> None:
        # Either this or `cancel` comes first, and the other one fails.
        if not self.outcome.set_running_or_notify_cancel():
            raise _GivenUp


class BoundedCalls:
    """Calls of job classes' code. Up to `MOST_HANGING` of a job type may hang.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        self._reserve = ThreadReserve(name)
        self._lock = Lock()
        self._late: dict[str, list[_Call[Any]]] = {}

    def call(
        self,
        job_type: str,
        what: str,
        function: Callable[[BeforeWrite], T],
        *,
        source: str | None = None,
        seconds: float | None = None,
        describe: Callable[[T], str] = type_name,
    ) -> T:
        """What the function returns or raises.

        Args:
            what: The call, for people.
            function: Gets what it calls before it writes: if that raises, it writes nothing.
            source: What calls again and again, such as a schedule: one call of it hangs at most.
            seconds: How long it may take until it writes, at most `CALL_SECONDS`.
            describe: What it returned, for the log, should it come late.

        Raises:
            SubmissionHangs: It took too long, or an earlier one of the source still does. Nothing is written.
            JobTypeBusy: Too many of the job type hang; or this one is late after it began to write.
        """
        seconds = CALL_SECONDS if seconds is None else min(seconds, CALL_SECONDS)
        self._refuse_late(job_type, what, source)
        call: _Call[T] = _Call(job_type, source)
        run = copy_context().run
        try:
            self._reserve.start(lambda: run(self._run, call, function, describe))
        except RuntimeError as error:
            raise JobTypeBusy(f"expected a thread for a {what} of {job_type!r}, found none: {error}") from error
        # In two halves: where the whole process was stopped during one of them, the thread has the other.
        has_ended = wait([call.outcome], seconds / 2).done or wait([call.outcome], seconds / 2).done
        if not has_ended and self._note_late(call, call.outcome.cancel):
            expected = f"a {what} of {job_type!r} to be ready within {seconds:g} s, found that it still runs"
            raise SubmissionHangs(expected)
        if not wait([call.outcome], CALL_SECONDS).done and self._note_late(call, call.outcome.running):
            # When it comes again it finds what was written.
            raise JobTypeBusy(f"expected a {what} of {job_type!r} to end, found that it began to write and hangs")
        return call.outcome.result()

    def _refuse_late(self, job_type: str, what: str, source: str | None) -> None:
        with self._lock:
            late = list(self._late.get(job_type, ()))
        for call in late:
            # One that began to write has perhaps made its job: the next call finds it.
            if source is not None and call.source == source and call.outcome.cancelled():
                expected = f"an earlier {what} of {job_type!r} by {source} to have ended, found that it still runs"
                raise SubmissionHangs(f"{expected} since {call.began_at:%Y-%m-%d %H:%M:%SZ}")
        if len(late) >= MOST_HANGING:
            raise JobTypeBusy(
                f"expected fewer than {MOST_HANGING} {what}s of {job_type!r} that hang in this process, found "
                f"{len(late)}, the first since {late[0].began_at:%Y-%m-%d %H:%M:%SZ}; {HANGING_REMEDY}, and "
                "restart the app"
            )

    def _note_late(self, call: _Call[Any], is_so: Callable[[], bool]) -> bool:
        """Whether it is late; not if it ended, or began to write, at the last moment."""
        with self._lock:
            if is_late := is_so():
                self._late.setdefault(call.job_type, []).append(call)
        return is_late

    def _run(self, call: _Call[T], function: Callable[[BeforeWrite], T], describe: Callable[[T], str]) -> None:
        is_bounded.set(True)  # in a context of its own
        try:
            returned = function(call.begin_to_write)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._end(call, type_name(error), partial(call.outcome.set_exception, error))
        else:
            self._end(call, describe(returned), partial(call.outcome.set_result, returned))

    def _end(self, call: _Call[Any], outcome: str, settle: Callable[[], None]) -> None:
        with self._lock:
            late = self._late.get(call.job_type, [])
            if is_late := call in late:
                late.remove(call)
            if not late:
                self._late.pop(call.job_type, None)
            if is_given_up := call.outcome.cancelled():
                outcome = "nothing_written"
            else:
                settle()
        if is_late or is_given_up:
            extra = {"checkpoint": "SUBMISSION_HANGS", "job_type": call.job_type, "outcome": outcome}
            duration = time.monotonic() - call.began
            log.warning("submission_ended_late", extra={**extra, "duration_seconds": round(duration, 3)})


# Those of requests: their callers wait.
for_requests = BoundedCalls("request")
