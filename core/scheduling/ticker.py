"""The look at the schedules that each sweep begins with: decide about due ticks, then submit their jobs."""

import time

from core.advancing.bounded_submission import BoundedSubmitter
from core.advancing.submission import Submitter
from core.basics.canonical import ValueTooLarge
from core.basics.faults import fault_point
from core.errors import (
    AuthorError,
    IdempotencyKeyReused,
    InvalidParameters,
    OtherParameters,
    StoreUnavailable,
    UnknownWork,
    WorkWaits,
)
from core.models.schedule import DueTick, ScheduleRecord, TickAnswer, TickReport, TickStatus
from core.models.submission import SubmitRequest
from core.ports import ScheduleStore
from core.safety.credentials import redact
from core.safety.safe_log import safe_logger
from core.safety.safe_text import bounded_text
from core.scheduling.plan import plan_ticks

log = safe_logger(__name__)

SCHEDULES_PER_LOOK = 1000
# The job class may end the process while it validates: ticks that were claimed with that one would not be submitted.
TICKS_PER_CLAIM = 1
# A tick whose submitter died is submitted by another after this time.
HOLD_SECONDS = 60.0
# One look goes on no longer; the next one follows in half a minute.
LOOK_SECONDS = 20.0
# What validation may take of a tick that was claimed before a look's time was over: the others of its claim wait.
_LAST_SECONDS = 2.0
RETRY_SECONDS = 60.0
MOST_ATTEMPTS = 5
# Of a job type that this app does not know, or that hangs here: its ticks wait an hour for another release or process.
MOST_ATTEMPTS_OF_WAITING = 60
_LONGEST_DETAIL = 2000
_WHY_ENDED = "usually the memory was used up, native code crashed, or the job class called os._exit"
_DATABASE_AWAY = "database_away"


class ScheduleTicker:
    """Any number may look at once: rows decide who does what."""

    def __init__(self, store: ScheduleStore, submitter: Submitter) -> None:
        self._store = store
        self._submitter = BoundedSubmitter(submitter)

    def tick(self) -> TickReport:
        """Decide about all ticks that are due, and submit the jobs of those that get one, up to a bound of time."""
        report = TickReport()
        until = time.monotonic() + LOOK_SECONDS
        for name in self._store.find_due_schedules(SCHEDULES_PER_LOOK):
            schedule = self._store.find_schedule(name)
            if schedule is not None:
                try:
                    report.decided += self.decide(schedule)
                except StoreUnavailable:
                    raise
                except Exception:
                    # One schedule keeps none of the others from their ticks.
                    log.exception("schedule_not_decided", extra={"schedule": name})
                    report.failed += 1
            if time.monotonic() >= until:
                return report
        self._store.admit_waiting_ticks(SCHEDULES_PER_LOOK)
        while time.monotonic() < until:
            ticks = self._store.claim_due_ticks(TICKS_PER_CLAIM, HOLD_SECONDS)
            for tick in ticks:
                self.submit(tick, report, seconds=max(until - time.monotonic(), _LAST_SECONDS))
            if len(ticks) < TICKS_PER_CLAIM:
                break
        return report

    def decide(self, schedule: ScheduleRecord) -> int:
        """Write down what becomes of a schedule's due ticks; how many rows. None where another process did."""
        now = self._store.read_clock()
        plan = plan_ticks(schedule, now)
        if not plan.ticks or not self._store.plan_ticks(schedule, plan):
            return 0
        fault_point("schedule.decided")
        return len(plan.ticks)

    def submit(self, tick: DueTick, report: TickReport | None = None, *, seconds: float | None = None) -> TickAnswer:
        """Submit a tick's job under the tick's own key: a repetition gives the same job.

        Args:
            seconds: How long the job type's own code may take.
        """
        answer = self._answer(tick, seconds)
        fault_point("schedule.submitted")
        self._store.settle_tick(tick, answer)
        if report is not None:
            report.submitted += answer.status is TickStatus.SUBMITTED
            report.failed += answer.status is TickStatus.FAILED
            report.postponed += answer.status is TickStatus.DUE
            late = (tick.created_at - tick.tick_at).total_seconds()
            report.late_seconds = max(report.late_seconds, late)
        if answer.status is not TickStatus.SUBMITTED:
            details = {"schedule": tick.schedule, "tick_at": tick.tick_at.isoformat(), "reason": answer.reason}
            log.warning("tick_not_submitted", extra={**details, "detail": answer.detail, "attempt": tick.attempt})
        return answer

    def _answer(self, tick: DueTick, seconds: float | None) -> TickAnswer:
        if self._ended_its_process(tick):
            detail = f"{tick.attempt - 1} attempts: their process ended before it wrote what came of them; {_WHY_ENDED}"
            return TickAnswer(TickStatus.FAILED, reason="process_ended", detail=detail)
        request = SubmitRequest(
            tick.job_type,
            tick.parameters,
            force=True,
            idempotency_key=tick.submission_key,
            actor=tick.actor if tick.is_manual and tick.actor else f"schedule {tick.schedule}",
        )
        try:
            submission = self._submitter.submit(request, source=f"schedule {tick.schedule}", seconds=seconds)
            return TickAnswer(TickStatus.SUBMITTED, submission.job_id)
        except (OtherParameters, IdempotencyKeyReused) as error:
            # The job is there: an earlier attempt made it, and somebody has run it again since.
            return TickAnswer(TickStatus.SUBMITTED, error.job_id)
        except StoreUnavailable as error:
            # It counts for nothing, as far as that can be written.
            answer = TickAnswer(TickStatus.DUE, reason=_DATABASE_AWAY, detail=_text(error), delay_seconds=RETRY_SECONDS)
            self._store.settle_tick(tick, answer)
            raise
        except (InvalidParameters, ValueTooLarge) as error:
            return TickAnswer(TickStatus.FAILED, reason="invalid_parameters", detail=_text(error))
        except (WorkWaits, AuthorError) as error:
            reason = "unknown_job_type" if isinstance(error, UnknownWork) else "job_type_failed"
            most = MOST_ATTEMPTS_OF_WAITING if isinstance(error, WorkWaits) else MOST_ATTEMPTS
            return _again(reason, error, is_last=tick.attempt >= most)
        except Exception as error:
            log.exception("tick_submission_failed", extra={"schedule": tick.schedule})
            return _again("internal_error", error, is_last=tick.attempt >= MOST_ATTEMPTS)

    def _ended_its_process(self, tick: DueTick) -> bool:
        """Whether nobody wrote what came of the attempts before this one."""
        if tick.attempt <= MOST_ATTEMPTS:
            return False
        found = self._store.find_tick(tick.schedule, tick.tick_at)
        reason = found.reason if found is not None else None
        # After the last attempt of one that waits there is no other.
        return reason is None or (reason != _DATABASE_AWAY and tick.attempt > MOST_ATTEMPTS_OF_WAITING)


def _again(reason: str, error: Exception, *, is_last: bool) -> TickAnswer:
    if is_last:
        return TickAnswer(TickStatus.FAILED, reason=reason, detail=_text(error))
    return TickAnswer(TickStatus.DUE, reason=reason, detail=_text(error), delay_seconds=RETRY_SECONDS)


def _text(error: Exception) -> str:
    failure = error.failure if isinstance(error, AuthorError) else None
    text = str(error) if failure is None else f"{failure.error_type}: {failure.message}"
    return bounded_text(redact(text), _LONGEST_DETAIL)
