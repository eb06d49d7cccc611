"""Submissions that nobody waits for: those of schedules, and of messages. One that hangs stops no other.

A job's validation, its id and its record are an author's code. In the sweep that submits for schedules it would stop
the janitor, and with a message a slot of its process. So each runs in a thread, and is given up after a time. A
submission that was given up writes nothing, whenever it ends.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from threading import Lock

from core.advancing.submission import Submitter
from core.authors.bounded_checks import MOST_HANGING, is_bounded
from core.errors import HANGING_REMEDY, JobTypeBusy, SubmissionHangs
from core.models.submission import Submission, SubmitRequest
from core.running.threads import ThreadReserve
from core.safety.safe_log import safe_logger
from core.safety.safe_text import type_name

log = safe_logger(__name__)

SUBMIT_SECONDS = 20.0


class _GivenUp(Exception):
    """Ends a submission that was given up, where it would begin to write."""


class _Call:
    """One submission in its thread. Its outcome is cancelled when it is given up, and runs while it writes."""

    def __init__(self, source: str | None) -> None:
        self.source = source
        self.began_at = datetime.now(UTC)
        self.began = time.monotonic()
        self.outcome: Future[Submission] = Future()

    def begin_to_write(self) -> None:
        # Either this or `cancel` comes first, and the other one fails.
        if not self.outcome.set_running_or_notify_cancel():
            raise _GivenUp


class BoundedSubmitter:
    """Submits in a thread of its own, and gives it up after a time. Up to `MOST_HANGING` of a job type may hang."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._reserve = ThreadReserve("submission")
        self._lock = Lock()
        self._late: dict[str, list[_Call]] = {}

    def submit(
        self, request: SubmitRequest, *, source: str | None = None, seconds: float = SUBMIT_SECONDS
    ) -> Submission:
        """As `Submitter.submit`; with an idempotency key it may be called again, whatever became of the first call.

        Args:
            source: What submits again and again, such as a schedule: one submission of it hangs at most.
            seconds: How long its author's code may take, at most `SUBMIT_SECONDS`.

        Raises:
            SubmissionHangs: It took too long, or an earlier one of the source still does. Nothing is written.
            JobTypeBusy: Too many of the job type hang; or this one is late after it began to write.
            AuthorError: As there.
        """
        job_type, seconds = request.job_type, min(seconds, SUBMIT_SECONDS)
        self._refuse_late(job_type, source)
        call = _Call(source)
        work = copy_context().run
        try:
            self._reserve.start(lambda: work(self._run, call, request))
        except RuntimeError as error:
            raise JobTypeBusy(f"expected a thread for a submission of {job_type!r}, found none: {error}") from error
        # In two halves: where the whole process was stopped during one of them, the thread has the other.
        has_ended = wait([call.outcome], seconds / 2).done or wait([call.outcome], seconds / 2).done
        if not has_ended and self._note_late(job_type, call, call.outcome.cancel):
            expected = f"a submission of {job_type!r} to be validated within {seconds:g} s, found that it still runs"
            raise SubmissionHangs(expected)
        if not wait([call.outcome], SUBMIT_SECONDS).done and self._note_late(job_type, call, call.outcome.running):
            # When it comes again it finds the job.
            raise JobTypeBusy(f"expected a submission of {job_type!r} to end, found that it began to write and hangs")
        return call.outcome.result()

    def _refuse_late(self, job_type: str, source: str | None) -> None:
        with self._lock:
            late = list(self._late.get(job_type, ()))
        for call in late:
            # One that began to write has perhaps made its job: the next call finds it.
            if source is not None and call.source == source and call.outcome.cancelled():
                expected = f"an earlier submission of {job_type!r} by {source} to have ended, found that it still runs"
                raise SubmissionHangs(f"{expected} since {call.began_at:%Y-%m-%d %H:%M:%SZ}")
        if len(late) >= MOST_HANGING:
            raise JobTypeBusy(
                f"expected fewer than {MOST_HANGING} submissions of {job_type!r} that hang in this process, found "
                f"{len(late)}, the first since {late[0].began_at:%Y-%m-%d %H:%M:%SZ}; {HANGING_REMEDY}, and "
                "restart the app"
            )

    def _note_late(self, job_type: str, call: _Call, is_so: Callable[[], bool]) -> bool:
        """Whether it is late; not if it ended, or began to write, at the last moment."""
        with self._lock:
            if is_late := is_so():
                self._late.setdefault(job_type, []).append(call)
        return is_late

    def _run(self, call: _Call, request: SubmitRequest) -> None:
        is_bounded.set(True)  # in a context of its own
        try:
            submission = self._submitter.submit(request, before_write=call.begin_to_write)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._end(call, request.job_type, type_name(error), partial(call.outcome.set_exception, error))
        else:
            told = f"{submission.outcome} {submission.job_id}"
            self._end(call, request.job_type, told, partial(call.outcome.set_result, submission))

    def _end(self, call: _Call, job_type: str, outcome: str, settle: Callable[[], None]) -> None:
        with self._lock:
            late = self._late.get(job_type, [])
            if is_late := call in late:
                late.remove(call)
            if not late:
                self._late.pop(job_type, None)
            if is_given_up := call.outcome.cancelled():
                outcome = "nothing_written"
            else:
                settle()
        if is_late or is_given_up:
            extra = {"checkpoint": "SUBMISSION_HANGS", "job_type": job_type, "outcome": outcome}
            duration = time.monotonic() - call.began
            log.warning("submission_ended_late", extra={**extra, "duration_seconds": round(duration, 3)})
