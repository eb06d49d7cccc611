"""The sweep that announces rows, takes tasks back and ends stages: what a dead process left, another finishes."""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial

from core.announcing.announcer import announce_by_stage, announce_parked_tasks, new_cause, step_message
from core.announcing.limit_turns import LimitTurns
from core.announcing.windows import StageWindows
from core.app_queues import JOBS_QUEUE
from core.basics.faults import fault_point
from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.models import JobRecord, JobStatus, StageRef
from core.models.announcement import FoundTask, ParkedTask, UnannouncedJob
from core.models.transition import DeadlineOutcome
from core.models.upkeep import SweepReport
from core.orchestration_manager import OrchestrationManager
from core.ports import JanitorStore, Pruner, QueueInspector, Ticker, Watch
from core.safety.safe_log import safe_logger
from core.state_manager import StateManager

log = safe_logger(__name__)

ROWS_PER_FIND = 1000
# The latest times of each kind are looked at in each sweep: nearly always, none of them is wrong.
TIMES_AT_ONCE = 100
# The number of refused rows that the log has of one step of a sweep.
_MOST_TOLD = 5
# A stage's tasks that nobody began in time end in steps of ROWS_PER_FIND; what is left waits for the next sweep.
EXPIRIES_PER_STAGE = 20
# A step that finds more than it may read at once goes on this long: sweeps follow each other in half a minute.
STEP_SECONDS = 20.0
# A sweep deletes no more old rows than this: a second or so of work that nothing else waits for.
PRUNED_TASKS_PER_SWEEP = 20_000
# What became of schedules' ticks is kept this long where jobs are kept for ever.
TICKS_KEPT_SECONDS = 90 * 86_400.0
# A limit that nobody needs is made again by the next stage that does.
LIMITS_KEPT_SECONDS = 3600.0
# Who did what is asked for long after the job: a year, and a month to ask.
AUDIT_KEPT_SECONDS = 396 * 86_400.0


@dataclass(frozen=True)
class JanitorTimings:
    """How long rows are left alone. All in seconds.

    Args:
        announce: A planner has this long between its commit and the last of its messages.
        hold: Rows that one janitor announces are left alone by others meanwhile; so are those of a queue that takes
            nothing, when there are so many that others would never have their turn.
        job: A finished step sends its message at once; a job that still has none after this was left behind.
        lost: A message counts as lost if it was confirmed this much earlier than the oldest in its queue arrived:
            the one time is the database's, the other the broker's, whose clocks may differ by less than this.
    """

    announce: float = 20.0
    hold: float = 30.0
    job: float = 5.0
    lost: float = 10.0


class Janitor:
    """One sweep may run beside any number of others.

    Args:
        queues: Logical names of the task queues that are looked into.
        inspector: None where queues cannot be looked into; messages that a broker lost are then not missed.
        retention_seconds: Jobs that ended longer ago are deleted, by the pruner; None keeps them.
        ticker: Acts on the schedules' ticks, first of all; None where this app has no schedules.
        watch: Warns of work that no live app can take; None where nobody is to be warned.
        timings: Shorter for tests.
    """

    def __init__(
        self,
        store: JanitorStore,
        state: StateManager,
        orchestration: OrchestrationManager,
        *,
        queues: Iterable[str] = (),
        inspector: QueueInspector | None = None,
        pruner: Pruner | None = None,
        retention_seconds: float | None = None,
        ticker: Ticker | None = None,
        watch: Watch | None = None,
        timings: JanitorTimings = JanitorTimings(),
    ) -> None:
        self._store = store
        self._state = state
        self._orchestration = orchestration
        self._queues = tuple(queues)
        self._inspector = inspector
        self._pruner = pruner
        self._retention_seconds = retention_seconds
        self._ticker = ticker
        self._watch = watch
        self._timings = timings
        self._windows = StageWindows(state, orchestration)
        self._turns = LimitTurns(state, orchestration)

    def sweep(self) -> SweepReport:
        """Do all there is to do, up to a bound. A step that fails is reported; the others go on."""
        report = SweepReport()
        started = time.monotonic()
        for name, step in self._steps():
            try:
                step(report)
            except StoreUnavailable as error:
                outage.note(str(error))
                report.errors[name] = f"{type(error).__name__}: {error}"
                report.outages += 1
            except Exception as error:
                log.exception("janitor_step_failed", extra={"checkpoint": "JANITOR", "operation": name})
                report.errors[name] = f"{type(error).__name__}: {error}"
        report.duration_seconds = time.monotonic() - started
        log.log(
            logging.WARNING if report.repairs or len(report.errors) > report.outages else logging.DEBUG,
            "janitor_swept",
            extra={"checkpoint": "JANITOR", **asdict(report)},
        )
        return report

    def _enforce_deadlines(self, report: SweepReport) -> None:
        def enforce(ref: StageRef) -> None:
            for _ in range(EXPIRIES_PER_STAGE):
                enforced = self._state.enforce_deadlines(ref, limit=ROWS_PER_FIND)
                report.expired_tasks += enforced.expired_count
                report.timed_out_jobs += enforced.outcome not in {
                    DeadlineOutcome.NOTHING,
                    DeadlineOutcome.TASKS_EXPIRED,
                }
                if enforced.expired_count < ROWS_PER_FIND:
                    break

        _for_each(enforce, self._store.find_overdue_stages(ROWS_PER_FIND))

    def _steps(self) -> Iterator[tuple[str, Callable[[SweepReport], None]]]:
        if self._ticker is not None:
            # First, so that no repair makes a tick late.
            yield "tick_schedules", partial(self._tick_schedules, self._ticker)
        yield "bring_times_back", self._bring_times_back
        yield "enforce_deadlines", self._enforce_deadlines
        yield "take_back_expired_leases", self._take_back_expired_leases
        yield "force_overdue_cancels", self._force_overdue_cancels
        yield "resume_stalled_jobs", self._resume_stalled_jobs
        yield "announce_tasks", self._announce_tasks
        yield "fill_windows", self._fill_windows
        yield "serve_limits", self._serve_limits
        yield "announce_jobs", self._announce_jobs
        if self._inspector is not None:
            # A queue that cannot be looked into keeps none of the others from it.
            for queue in (*self._queues, JOBS_QUEUE):
                yield f"find_lost_messages_{queue}", partial(self._find_lost_messages, self._inspector, queue)
        yield "renew_patience", self._renew_patience
        yield "note_stalled_jobs", self._note_stalled_jobs
        yield "prune_old_jobs", self._prune_old_jobs
        if self._watch is not None:
            yield "watch_fleet", partial(self._watch_fleet, self._watch)

    def _bring_times_back(self, report: SweepReport) -> None:
        until = time.monotonic() + STEP_SECONDS
        while count := self._store.bring_times_back(TIMES_AT_ONCE):
            report.times_brought_back += count
            if time.monotonic() >= until:
                break
        if report.times_brought_back:
            log.warning("clock_was_ahead", extra={"checkpoint": "JANITOR", "count": report.times_brought_back})

    def _tick_schedules(self, ticker: Ticker, report: SweepReport) -> None:
        ticked = ticker.tick()
        report.scheduled_jobs, report.failed_ticks = ticked.submitted, ticked.failed
        report.latest_tick_seconds = ticked.late_seconds

    def _take_back_expired_leases(self, report: SweepReport) -> None:
        def take_back(ref: StageRef) -> None:
            answer = self._state.take_back_tasks(ref)
            report.taken_back += answer.taken_back
            report.given_up += answer.given_up
            fault_point("janitor.taken_back")
            if answer.given_up:
                report.announced_jobs += self._announce_moved_job(ref.job_id)

        _for_each(take_back, self._store.find_expired_stages(ROWS_PER_FIND))

    def _force_overdue_cancels(self, report: SweepReport) -> None:
        def force(ref: StageRef) -> None:
            report.forced_cancels += self._state.force_cancel(ref) is not None

        _for_each(force, self._store.find_overdue_cancels(ROWS_PER_FIND))

    def _resume_stalled_jobs(self, report: SweepReport) -> None:
        def resume(ref: StageRef) -> None:
            if self._state.resume_stalled_job(ref):
                report.resumed_jobs += 1
                report.announced_jobs += self._announce_moved_job(ref.job_id)

        _for_each(resume, self._store.find_stalled_jobs(ROWS_PER_FIND, self._timings.job))

    def _announce_tasks(self, report: SweepReport) -> None:
        def announce() -> tuple[int, int]:
            tasks = self._store.find_unannounced_tasks(ROWS_PER_FIND, self._timings.announce, self._timings.hold)
            return len(tasks), self._announce(tasks, "not_confirmed", let_go=len(tasks) < ROWS_PER_FIND)

        def tell(task: ParkedTask, count: int) -> None:
            self._record_announcement(task, count, "parked")

        report.announced_tasks += _repeat(announce)
        report.announced_tasks += announce_parked_tasks(self._state, self._orchestration, None, tell=tell)

    def _fill_windows(self, report: SweepReport) -> None:
        """Their tasks last long, or the processes that had the last ones died or are of a release without windows."""

        def fill(ref: StageRef) -> None:
            report.taken_tasks += self._windows.fill(ref, new_cause("window"))

        _for_each(fill, self._store.find_idle_windows(ROWS_PER_FIND, self._timings.announce, self._timings.job))

    def _serve_limits(self, report: SweepReport) -> None:
        """A place was freed by no process of theirs: it died, or an operator changed the limit."""
        report.taken_tasks += self._turns.serve(None)

    def _announce_jobs(self, report: SweepReport) -> None:
        def announce() -> tuple[int, int]:
            jobs = self._store.find_unannounced_jobs(ROWS_PER_FIND, self._timings.job, self._timings.hold)
            sent = [self._announce_job(job, "not_confirmed") for job in jobs]
            for job in itertools.compress(jobs, (not is_sent for is_sent in sent)):
                if len(jobs) < ROWS_PER_FIND:
                    self._store.let_go_of_job(job.ref, job.attempt)
            return len(jobs), sum(sent)

        report.announced_jobs += _repeat(announce)

    def _find_lost_messages(self, inspector: QueueInspector, queue: str, report: SweepReport) -> None:
        """What was confirmed before the oldest message of a queue came into it cannot be among its messages.

        The clock is read before the look: what was confirmed since then, the look may not have seen.
        """
        now = self._store.read_clock()
        oldest = inspector.oldest_enqueued_at(queue)
        before = (now if oldest is None else min(now, oldest)) - timedelta(seconds=self._timings.lost)

        def announce_jobs() -> tuple[int, int]:
            jobs = self._store.find_lost_jobs(ROWS_PER_FIND, before)
            return len(jobs), sum(self._announce_job(job, "lost") for job in jobs)

        def announce_tasks() -> tuple[int, int]:
            tasks = self._store.find_lost_tasks(queue, ROWS_PER_FIND, before)
            return len(tasks), self._announce(tasks, "lost")

        if queue == JOBS_QUEUE:
            report.found_lost_jobs += _repeat(announce_jobs)
        else:
            report.found_lost_tasks += _repeat(announce_tasks)

    def _renew_patience(self, _report: SweepReport) -> None:
        """Work that this app knows does not fail for want of one that does, while others are offered it first."""
        for kind, name in self._store.find_unknown_work(ROWS_PER_FIND):
            if self._orchestration.knows(kind, name):
                self._store.renew_patience(kind, name, ROWS_PER_FIND)

    def _note_stalled_jobs(self, report: SweepReport) -> None:
        """Webhooks may ask for jobs that do not move."""
        report.stalled_jobs = self._store.note_stalled_jobs(ROWS_PER_FIND)

    def _watch_fleet(self, watch: Watch, report: SweepReport) -> None:
        report.pruned_apps = watch.look()

    def _prune_old_jobs(self, report: SweepReport) -> None:
        if self._pruner is None:
            return
        report.pruned_ticks = self._pruner.prune_ticks(
            self._retention_seconds or TICKS_KEPT_SECONDS, most=PRUNED_TASKS_PER_SWEEP
        )
        report.pruned_limits = self._pruner.prune_limits(LIMITS_KEPT_SECONDS, most=PRUNED_TASKS_PER_SWEEP)
        report.pruned_audit_rows = self._pruner.prune_audit(AUDIT_KEPT_SECONDS, most=PRUNED_TASKS_PER_SWEEP)
        if self._retention_seconds is None:
            return
        pruned = self._pruner.prune_jobs(self._retention_seconds, most_tasks=PRUNED_TASKS_PER_SWEEP)
        report.pruned_jobs, report.pruned_tasks = pruned.jobs, pruned.tasks
        report.pruned_dead_letters = self._pruner.prune_dead_letters(
            self._retention_seconds, most=PRUNED_TASKS_PER_SWEEP
        )

    def _announce(self, tasks: Sequence[FoundTask], reason: str, *, let_go: bool = False) -> int:
        """How many were announced. With `let_go` the others are not held until later."""

        def mark(task: FoundTask, ids: list[str]) -> None:
            self._state.mark_tasks_announced(task.stage_ref.job_ref, ids)

        count = 0
        fault_point("janitor.tasks_found")
        for rows, sent in announce_by_stage(self._orchestration, tasks, "sweep", mark):
            first = rows[0]
            if sent:
                self._record_announcement(first, len(sent), reason)
            count += len(sent)
            unsent = {row.task_id for row in rows}.difference(sent)
            if unsent and let_go:
                self._store.let_go_of_tasks(first.stage_ref.job_ref, sorted(unsent))
        return count

    def _announce_moved_job(self, job_id: str) -> bool:
        """The janitor ended a stage, so no process is about to go on with the job."""
        job = self._state.find_job(job_id)
        waits = job is not None and job.status in {JobStatus.QUEUED, JobStatus.FINALIZING}
        return job is not None and waits and job.announced_at is None and self._announce_job(job, "moved")

    def _record_announcement(self, task: FoundTask, count: int, reason: str) -> None:
        detail = {"count": count, "reason": reason}
        self._store.record_repair(task.stage_ref, "janitor_announced_tasks", detail)

    def _announce_job(self, job: UnannouncedJob | JobRecord, reason: str) -> bool:
        fault_point("janitor.job_found")
        if not self._orchestration.announce_job(step_message(job, new_cause("sweep"))):
            return False
        fault_point("janitor.job_sent")
        self._state.mark_job_announced(job.stage_ref)
        self._store.record_repair(job.stage_ref, "janitor_announced_job", {"reason": reason})
        return True


def _for_each(act: Callable[[StageRef], None], refs: Iterable[StageRef]) -> None:
    """Act on each; one whose rows the database refuses to change keeps none of the others from it.

    Raises:
        StoreUnavailable: At once.
        Exception: The first of the others, when all were acted on.
    """
    errors: list[Exception] = []
    for ref in refs:
        try:
            act(ref)
        except StoreUnavailable:
            raise
        except Exception as error:
            errors.append(error)
            if len(errors) <= _MOST_TOLD:
                record = {"checkpoint": "JANITOR", "operation": act.__name__, **ref.log_fields}
                log.exception("janitor_row_failed", extra=record)
    if errors:
        raise errors[0]


def _repeat(announce: Callable[[], tuple[int, int]]) -> int:
    """Find and announce until there is no more, nothing can be sent, or the time is up; how many were announced."""
    until = time.monotonic() + STEP_SECONDS
    total = 0
    while True:
        found, announced = announce()
        total += announced
        if found < ROWS_PER_FIND or announced == 0 or time.monotonic() >= until:
            return total
