"""Submissions that nobody waits for: those of schedules, and of messages. One that hangs stops neither.

A job's validation, its id and its record are an author's code. In the sweep that submits for schedules it would stop
the janitor, and with a message a slot of its process, and another one whenever the message comes again.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context

from core.advancing.submission import Submitter
from core.errors import AuthorError, Failure
from core.models.submission import Submission, SubmitRequest
from core.running.threads import ThreadReserve

SUBMIT_SECONDS = 20.0


class BoundedSubmitter:
    """Submits in a thread of its own. While one hangs, no other of its job type is begun: threads do not pile up."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._reserve = ThreadReserve("submission")
        self._hanging: dict[str, Future[Submission]] = {}

    def submit(self, request: SubmitRequest) -> Submission:
        """As `Submitter.submit`; with an idempotency key it may be called again, whatever became of the first call.

        Raises:
            AuthorError: As there; or it took too long, or an earlier one of the job type still hangs.
        """
        job_type = request.job_type
        if (earlier := self._hanging.get(job_type)) is not None:
            if not earlier.done():
                raise _took_too_long(f"an earlier submission of {job_type!r} to have ended, found that it still runs")
            del self._hanging[job_type]
        outcome: Future[Submission] = Future()
        work = copy_context().run
        self._reserve.start(lambda: work(_settle, outcome, lambda: self._submitter.submit(request)))
        if not wait([outcome], SUBMIT_SECONDS).done:
            self._hanging[job_type] = outcome
            raise _took_too_long(f"a submission of {job_type!r} to end within {SUBMIT_SECONDS:g} s, found that it runs")
        return outcome.result()


def _settle(outcome: "Future[Submission]", call: Callable[[], Submission]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        outcome.set_exception(error)


def _took_too_long(expected: str) -> AuthorError:
    advice = "; validate_job_parameters, or another method of the job class, takes long or hangs"
    return AuthorError(Failure("SubmissionHangs", f"expected {expected}{advice}", retryable=True))
