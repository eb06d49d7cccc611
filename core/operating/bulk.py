"""One action on many jobs: found by a filter, counted first, done one by one as each alone would be."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from core.errors import AuthorError, CoreMachineError, InvalidParameters, UnknownWork
from core.models.bulk import BulkAction, BulkItem, BulkReport, BulkRequest, DeleteAnswer
from core.models.control import ControlAnswer, RerunMode, RerunRequest
from core.models.job_filter import JobFilter, JobSort
from core.models.view import JobSummary
from core.ports import BulkAudit, BulkCommands, BulkJobs
from core.safety.safe_log import safe_logger

log = safe_logger(__name__)

SHOWN_JOBS = 20
# Azure's front ends cut a request after 230 seconds; what is left is reported, and asked for again.
SECONDS_AT_ONCE = 100.0
_PAGE = 200


class MoreJobsMatch(CoreMachineError):
    """More jobs match than were confirmed; nothing was done."""

    def __init__(self, matched: int, confirmed: int) -> None:
        self.matched, self.confirmed = matched, confirmed
        super().__init__(
            f"expected at most {confirmed} jobs, as confirmed, found {matched}; this request did nothing. Look at them "
            "again without `confirm`, and confirm that count"
        )


class BulkControl:
    """Each job is a transition of its own, with its own row in the audit log; the request has one, too."""

    def __init__(
        self,
        machine: BulkCommands,
        jobs: BulkJobs,
        audit: BulkAudit,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine = machine
        self._jobs = jobs
        self._audit = audit
        self._clock = clock

    def run(self, request: BulkRequest) -> BulkReport:
        """Act on the jobs, or with no `confirm` only count them.

        Raises:
            MoreJobsMatch: More than were confirmed; nothing was done.
            InvalidCursor: The `cursor` is not one that an earlier request gave.
            StoreUnavailable: Some may have been done; the audit log has which.
        """
        wanted = request.matching()
        matched = 0 if wanted is None else self._jobs.count_jobs(wanted, cursor=request.cursor)
        if wanted is None or request.confirm is None:
            sample = () if wanted is None else next(self._pages(wanted, request.cursor, SHOWN_JOBS))
            return BulkReport(matched, is_dry_run=request.confirm is None, sample=sample)
        if matched > request.confirm:
            raise MoreJobsMatch(matched, request.confirm)
        detail = {"action": request.action.value, "matched": matched, "filter": request.wanted.to_json()}
        self._audit.record_bulk(request.actor, request.reason, detail)
        report = BulkReport(matched, is_dry_run=False)
        until = self._clock() + SECONDS_AT_ONCE
        for job in chain.from_iterable(self._pages(wanted, request.cursor, min(request.limit, request.confirm))):
            report.items.append(self._act_on(job, request))
            report.next_cursor = self._jobs.cursor_after(job) if report.remaining else None
            if self._clock() > until:
                break
        log.info(
            "bulk_action_done",
            extra={"checkpoint": "BULK_ACTION", "action": request.action, "matched": matched, "counts": report.counts},
        )
        return report

    def _pages(self, wanted: JobFilter, cursor: str | None, limit: int) -> Iterator[Sequence[JobSummary]]:
        """The oldest first, from the cursor on, page by page: what was acted on is in no later one."""
        count = 0
        while count < limit:
            page = self._jobs.find_jobs(wanted, sort=JobSort.OLDEST, limit=min(_PAGE, limit - count), cursor=cursor)
            yield page.items
            count += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _act_on(self, job: JobSummary, request: BulkRequest) -> BulkItem:
        try:
            outcome = self._outcome(job.job_id, request)
        except (UnknownWork, AuthorError, InvalidParameters) as error:
            return BulkItem(job.job_id, "failed", str(error))
        return BulkItem(job.job_id, outcome or "missing")

    def _outcome(self, job_id: str, request: BulkRequest) -> str | None:
        who: dict[str, Any] = {"reason": request.reason, "actor": request.actor}
        match request.action:
            case BulkAction.CANCEL:
                return self._machine.cancel_job(
                    job_id, request.reason, grace_seconds=request.cancel_grace_seconds, actor=request.actor
                )
            case BulkAction.PAUSE:
                return _word(self._machine.pause_job(job_id, **who))
            case BulkAction.RESUME:
                return _word(self._machine.resume_job(job_id, **who))
            case BulkAction.RETRY:
                return _word(self._machine.rerun_job(job_id, RerunRequest(RerunMode.FAILED, **who)))
            case BulkAction.RERUN:
                return _word(self._machine.rerun_job(job_id, RerunRequest(RerunMode.ALL, **who)))
            case BulkAction.DELETE:
                return _word(self._machine.delete_job(job_id, **who))


def _word(answer: ControlAnswer | DeleteAnswer | None) -> str | None:
    return None if answer is None else answer.outcome.value
