"""Submissions that nobody waits for: those of schedules, and of messages. One that hangs stops no other.

A job's validation, its id and its record are an author's code. In the sweep that submits for schedules it would stop
the janitor, and with a message a slot of its process.
"""

from core.advancing.submission import Submitter
from core.authors.bounded_calls import BoundedCalls
from core.models.submission import Submission, SubmitRequest


class BoundedSubmitter:
    """Submits in a thread of its own, and gives it up after a time."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        # Not those of requests, so that neither of both uses up the threads of the other.
        self._calls = BoundedCalls("submission")

    def submit(self, request: SubmitRequest, *, source: str | None = None, seconds: float | None = None) -> Submission:
        """As `Submitter.submit`; with an idempotency key it may be called again, whatever became of the first call.

        Args:
            source: What submits again and again, such as a schedule: one submission of it hangs at most.
            seconds: How long its author's code may take.

        Raises:
            SubmissionHangs, JobTypeBusy: As `BoundedCalls.call`.
            AuthorError: As there.
        """
        return self._calls.call(
            request.job_type,
            "submission",
            lambda before_write: self._submitter.submit(request, before_write=before_write),
            source=source,
            seconds=seconds,
            describe=lambda submission: f"{submission.outcome} {submission.job_id}",
        )
