"""Submitting a job: the same type and parameters are the same job, unless a new one is forced."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from core.advancing.unchecked import note_unchecked
from core.authors.job_class import draft_job, first_message
from core.basics.canonical import NotJson, ValueTooLarge, canonical_json, forced_job_id_for
from core.basics.faults import fault_point
from core.errors import (
    AuthorError,
    DataRefused,
    IdempotencyKeyReused,
    InvalidParameters,
    JobTypeBusy,
    OtherParameters,
    StoreUnavailable,
    SubmissionRefused,
    WorkWaits,
)
from core.models import JobQueueMessage, JobRef, JobStatus
from core.models.control import IfEnded
from core.models.submission import (
    ForcedJob,
    JobWish,
    KeyedPayload,
    Submission,
    SubmissionOutcome,
    SubmitRequest,
    Submitted,
)
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, JobType
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager
from core.telemetry.instruments import SUBMISSIONS
from core.telemetry.reports import observer

log = safe_logger(__name__)

# For a caller who finds a job that will not run because of this submission; in the other statuses it will.
_ADVICE = {
    JobStatus.CANCELLING: "This job is being cancelled and was not submitted again; once it is cancelled, ",
    JobStatus.CANCELLED: "This job was cancelled and was not submitted again; ",
    JobStatus.FAILED: "This job has failed and was not submitted again; ",
    JobStatus.COMPLETED_WITH_ERRORS: "This job has completed with errors and was not submitted again; ",
    JobStatus.COMPLETED: "This job has completed and was not submitted again: its result is there; ",
}
_OTHER_PARAMETERS = (
    "A rerun gave run {run} ({status}) other parameters than those submitted: its result is not of this submission, "
    "and nothing was run. GET /api/jobs/{job_id}/runs/{run} (`coremachine runs {short_id}`) has its parameters. "
)
_RERUN = (
    "run again what did not complete (POST /api/jobs/{job_id}/rerun, `coremachine rerun {short_id} --failed`), run all "
    "of it again (the same with mode all, --all; or submit with if_ended=rerun: ?if_ended=rerun, --if-ended rerun), "
    "or "
)
_RESUBMIT = "submit with if_ended=rerun (?if_ended=rerun, --if-ended rerun) to run it again with these parameters, or "
_FORCE = "submit with force (?force=true, --force) to make a new job of the same parameters."


# What is wrong with a submission itself; nothing was written.
REFUSALS = (InvalidParameters, ValueTooLarge, NotJson, DataRefused, WorkWaits, AuthorError)


@dataclass(frozen=True)
class _Draft:
    """A submission that was validated."""

    request: SubmitRequest
    job_class: JobType
    wish: JobWish
    size: int
    traceparent: str | None = None


class Submitter:
    """Writes submissions and sends their job messages. The row is the outbox."""

    def __init__(self, catalog: JobCatalog, state: StateManager, orchestration: OrchestrationManager) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration

    def submit(self, request: SubmitRequest, *, before_write: Callable[[], None] = lambda: None) -> Submission:
        """See `CoreMachine.submit_job`.

        Args:
            before_write: Called when all is validated. If it raises, nothing is written.
        """
        with observer().submission(request.job_type) as traceparent:
            draft = replace(self._draft(request), traceparent=traceparent)
            before_write()
            return self._submit(draft)

    def _submit(self, draft: _Draft) -> Submission:
        wish = draft.wish
        if wish.is_plain:
            submitted = self._state.submit_job(
                wish.job, forced=wish.forced, key=wish.key, if_ended=wish.if_ended, outside_id=wish.outside_id
            )
        else:
            (submitted,) = self._state.submit_jobs([wish])
        submission = _answer(draft, submitted)
        if submitted.begins_run:
            if wish.is_plain and wish.detail:
                self._state.note_submission(submitted.ref, wish.detail)
            self._follow([(draft, submitted)])
        return submission

    def submit_many(self, requests: Sequence[SubmitRequest]) -> list[Submission | Exception]:
        """Submissions in their order, each as `submit` would answer or raise it.

        Those of one job type are one transaction: while the database cannot be reached, all of them are refused. One
        whose idempotency key comes earlier in the list is in a later transaction than that one.
        """
        answers: list[Submission | Exception | None] = [None] * len(requests)
        groups: dict[tuple[int, str], list[tuple[int, _Draft]]] = {}
        seen: Counter[str | None] = Counter()
        for place, request in enumerate(requests):
            try:
                with observer().submission(request.job_type) as traceparent:
                    draft = replace(self._draft(request), traceparent=traceparent)
            except REFUSALS as error:
                answers[place] = error
                continue
            key = request.idempotency_key
            groups.setdefault((seen[key] if key else 0, request.job_type), []).append((place, draft))
            seen[key] += 1
        for _, group in sorted(groups.items()):
            for (place, _), answer in zip(group, self._submit_group([draft for _, draft in group]), strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def _submit_group(self, drafts: Sequence[_Draft]) -> list[Submission | Exception]:
        """All of them in one transaction, and then their messages together."""
        if not drafts:
            return []
        try:
            written = self._state.submit_jobs([draft.wish for draft in drafts])
        except (StoreUnavailable, DataRefused) as error:
            return [error] * len(drafts)
        answers: list[Submission | Exception] = []
        for draft, submitted in zip(drafts, written, strict=True):
            try:
                answers.append(_answer(draft, submitted))
            except (IdempotencyKeyReused, SubmissionRefused, OtherParameters) as error:
                answers.append(error)
        begun = [each for each in zip(drafts, written, strict=True) if each[1].begins_run]
        if begun:
            self._follow(begun)
        return answers

    def _draft(self, request: SubmitRequest) -> _Draft:
        job_type, key = request.job_type, request.idempotency_key
        job_class = self._catalog.get_job(job_type)
        correlation_id = request.correlation_id or uuid4().hex
        with note_unchecked() as unchecked:
            drafted = draft_job(
                job_class, job_type, request.parameters, self._orchestration.role.most_bytes, correlation_id
            )
        record = drafted.record
        is_future = request.start_at is not None and request.start_at > datetime.now(UTC)
        wish = JobWish(
            record,
            forced=_forced_job(job_type, record.parameters) if request.makes_new_job else None,
            key=_keyed_payload(key, request) if key else None,
            if_ended=IfEnded.RETURN if request.force else request.if_ended,
            outside_id=drafted.outside_id,
            tags=dict(request.tags),
            start_at=request.start_at if is_future else None,
            priority=request.priority,
            detail=_detail(request.actor, unchecked),
        )
        return _Draft(request, job_class, wish, drafted.size)

    def _follow(self, begun: Sequence[tuple[_Draft, Submitted]]) -> None:
        """What comes after runs were written: notes, and the messages of those that may begin now.

        The others wait for the janitor, as each does whose message cannot be made or sent.
        """
        fault_point("submit.written")
        messages: list[JobQueueMessage] = []
        refs: list[JobRef] = []
        for draft, submitted in begun:
            if draft.traceparent is not None:
                self._state.note_trace(submitted.ref, draft.traceparent)
            self._state.note_large_values(submitted.ref.at_stage(1), "parameters", [(None, draft.size)])
            if draft.wish.start_at is None and (message := self._message(draft, submitted)) is not None:
                messages.append(message)
                refs.append(submitted.ref)
        if messages and self._orchestration.announce_jobs(messages):
            fault_point("submit.sent")
            self._state.mark_jobs_announced(refs)

    def _message(self, draft: _Draft, submitted: Submitted) -> JobQueueMessage | None:
        job = draft.wish.job
        try:
            return first_message(draft.job_class, job.job_type, submitted, job.parameters)
        except (AuthorError, JobTypeBusy):
            log.exception("job_message_not_made", extra={"job_id": submitted.job_id})
            return None


def _answer(draft: _Draft, submitted: Submitted) -> Submission:
    """The answer to a submission, or why the job that is there is none.

    Raises:
        IdempotencyKeyReused, SubmissionRefused, OtherParameters: As `CoreMachine.submit_job`.
    """
    if submitted.outcome is SubmissionOutcome.KEY_CONFLICT:
        raise IdempotencyKeyReused(draft.request.idempotency_key or "", submitted.job_id)
    _refuse(submitted)
    observer().measure(SUBMISSIONS, 1, job_type=draft.request.job_type, outcome=submitted.outcome)
    return _submission(draft.request.job_type, submitted)


def _submission(job_type: str, submitted: Submitted) -> Submission:
    return Submission(
        job_id=submitted.job_id,
        job_type=job_type,
        created=submitted.created,
        status=submitted.status,
        run=submitted.run,
        correlation_id=submitted.correlation_id,
        outcome=submitted.outcome,
        advice=None if submitted.begins_run else advice_for(submitted.job_id, JobStatus.stored(submitted.status)),
    )


def _refuse(submitted: Submitted) -> None:
    """Where the job that is there is no answer to the submission."""
    job_id, status = submitted.job_id, submitted.status
    if submitted.outcome is SubmissionOutcome.REFUSED:
        advice = advice_for(job_id, JobStatus.stored(status)) if submitted.same_parameters else _on_others(submitted)
        raise SubmissionRefused(job_id, status, advice or "Submit it again.")
    if not submitted.same_parameters:
        raise OtherParameters(job_id, status, submitted.run, _on_others(submitted))


def _on_others(submitted: Submitted) -> str:
    """What was found where a rerun gave the job other parameters, and what to do."""
    status, job_id = JobStatus.stored(submitted.status), submitted.job_id
    found = _OTHER_PARAMETERS.format(run=submitted.run, status=status.value, job_id=job_id, short_id=job_id[:12])
    when = "Now" if status.is_terminal else "Once it has ended"
    # The key belongs to the request that came before.
    how = ", under a new idempotency key," if submitted.outcome is SubmissionOutcome.REPLAYED else ""
    return f"{found}{when}{how} {_RESUBMIT}{_FORCE}"


def advice_for(job_id: str, status: JobStatus) -> str | None:
    """What to do about a job that a submission found in this status; None when it runs or is going to."""
    beginning = _ADVICE.get(status)
    if beginning is None:
        return None
    rerun = "" if status is JobStatus.COMPLETED else _RERUN.format(job_id=job_id, short_id=job_id[:12])
    return beginning + rerun + _FORCE


def _detail(actor: str | None, unchecked: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The details of the job's first event."""
    detail: dict[str, Any] = {"actor": actor} if actor else {}
    return {**detail, "unchecked": list(unchecked)} if unchecked else detail


def _forced_job(job_type: str, validated: Mapping[str, Any]) -> ForcedJob:
    nonce = uuid4().hex
    return ForcedJob(forced_job_id_for(job_type, validated, nonce), nonce)


def _keyed_payload(key: str, request: SubmitRequest) -> KeyedPayload:
    # What was sent, not what validation made of it: a release with other defaults still knows the request again.
    content = [request.job_type, request.parameters, request.force]
    # Without an `if_ended` it is the content of the releases that knew none.
    if request.if_ended is not IfEnded.RETURN:
        content.append(request.if_ended.value)
    # So is it without these.
    if request.tags or request.start_at is not None:
        content.append({"tags": dict(request.tags), "start_at": request.start_at and request.start_at.isoformat()})
    if request.priority is not None:
        content.append({"priority": request.priority.value})
    text = canonical_json(content)
    return KeyedPayload(key, hashlib.sha256(text.encode("ascii")).hexdigest())
