"""Jobs, tasks, and the transitions that PostgreSQL decides. A repository method is one function call."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier, Literal

from core.models import JobRecord, JobRef, JobStatus, StageRef
from core.models.announcement import LimitedTask, TakenTask
from core.models.control import IfEnded
from core.models.dead_letter import DeadLetter, RecordedLetter
from core.models.lease import STEP_LEASE_SECONDS, HeldTask, Lease, LeaseOutcome, LostProcesses, RenewedLease
from core.models.refs import StepRef
from core.models.submission import ForcedJob, JobWish, KeyedPayload, SubmissionOutcome, Submitted
from core.models.transition import (
    ClaimedRow,
    ClaimOutcome,
    Completion,
    DeadlineOutcome,
    Enforcement,
    JsonObject,
    NextTasks,
    PlanOutcome,
    PostponedStep,
    PostponedTask,
    PostponeOutcome,
    Released,
    RetryAnswer,
    RetryOutcome,
    SmallStage,
    StageCheck,
    TakenBack,
    TaskRow,
)
from infrastructure.adapters import JsonbArray, TextArray, UuidArray, as_jsonb
from infrastructure.base import PlanningCancelled, PreconditionFailed, TasksKeptOut
from infrastructure.database_errors import CANCELLED, first_line
from infrastructure.job_control import JobControlRepository
from infrastructure.postgresql import PostgreSQLRepository, columns_of

# parameters come last: they are encoded.
TASK_COLUMNS = ("job_id", "run", "task_id", "stage", "task_index", "task_type", "queue", "name", "parameters")
# Those that this server has: PostgreSQL 17 added the second.
_NO_TIMEOUTS = SQL(
    "select pg_catalog.set_config(name, '0', true) from pg_catalog.pg_settings"
    " where name in ('statement_timeout', 'transaction_timeout')"
)
_keys_of = attrgetter(*TASK_COLUMNS[:-1])
# The number of tasks taken back by a sweep that the log names.
SHOWN_INTERRUPTED = 20
# An update returns its rows in the order in which they lie in the table.
BY_TASK_ID = attrgetter("task_id")


class JobRepository(JobControlRepository):
    """Job rows."""

    def submit_job(
        self,
        job: JobRecord,
        *,
        forced: ForcedJob | None = None,
        key: KeyedPayload | None = None,
        if_ended: IfEnded = IfEnded.RETURN,
        outside_id: Collection[str] = (),
    ) -> Submitted:
        """Write the job and its first stage, or find the one that is there.

        Args:
            forced: Make a new job under this id where the job's own is taken.
            key: Find the job that this key got before, or keep the key with the job.
            if_ended: Of force: `forced` only where the job that is there does not run with these parameters.
        """
        parameters = (
            job.job_id,
            job.job_type,
            as_jsonb(job.parameters),
            as_jsonb(job.definition),
            job.correlation_id,
            forced.job_id if forced else None,
            forced.nonce if forced else None,
            key.key if key else None,
            key.payload_hash if key else None,
            if_ended.value,
            list(outside_id),
        )
        (row,) = self._call("submit_job", parameters)
        return _submitted(row)

    def submit_jobs(self, wishes: Sequence[JobWish]) -> list[Submitted]:
        """As `submit_job` for each, in their order, in one transaction; with tags, start_at, priority and detail."""
        rows = self._call("submit_jobs", (JsonbArray(map(_document_of, wishes)),))
        return [_submitted(row) for row in sorted(rows, key=itemgetter("nth"))]

    def mark_jobs_announced(self, refs: Sequence[JobRef]) -> int:
        """The messages that begin these jobs are confirmed: how many still wait for them."""
        parameters = [ref.job_id for ref in refs], [ref.run for ref in refs]
        (row,) = self._call("mark_jobs_announced", parameters)
        return int(row["mark_jobs_announced"])

    def note_submission(self, ref: JobRef, detail: Mapping[str, Any]) -> None:
        """Add to the event of the submission that made the job."""
        self._call("note_submission", (*ref, as_jsonb(detail)))

    def note_trace(self, ref: JobRef, traceparent: str) -> None:
        """Keep the trace of the submission that began this run."""
        self._call("note_trace", (*ref, traceparent))

    def mark_job_announced(self, ref: StageRef) -> bool:
        """The message for this step is confirmed. False when the job has advanced meanwhile."""
        (row,) = self._call("mark_job_announced", ref)
        return bool(row["mark_job_announced"])

    def retry_job_step(self, ref: StepRef, error: Mapping[str, Any], delay_seconds: float) -> int | None:
        """This attempt at planning or finalizing failed: repeat it. The failed attempts; None: it waits for another."""
        (row,) = self._call("retry_job_step", (*ref, as_jsonb(error), delay_seconds))
        return row["retry_job_step"]  # type: ignore[no-any-return]

    def fail_job_step(self, ref: StepRef, error: Mapping[str, Any]) -> bool:
        """This attempt at planning or finalizing failed, and with it the job. False if it waits for another one."""
        (row,) = self._call("fail_job_step", (*ref, as_jsonb(error)))
        return bool(row["fail_job_step"])

    def postpone_job_step(
        self, ref: StageRef, unknown: Mapping[str, str], patience: float, delays: Sequence[float]
    ) -> PostponedStep:
        """Planning or finalizing is left to an app that knows how; no attempt is counted.

        Args:
            unknown: kind, name, and `by` whom it is not known.
            patience: Seconds; when it has been postponed for this time, it is exhausted and nothing is changed.
            delays: Seconds until it is retried, after the first time, the second, and so on.
        """
        parameters = (*ref, as_jsonb(unknown), patience, list(delays))
        (row,) = self._call("postpone_job_step", parameters)
        return PostponedStep(**row | {"outcome": PostponeOutcome.stored(row["outcome"])})

    def note_step_unwritten(self, ref: StageRef, step: str, reason: str) -> bool:
        """Note in the timeline that the end of the job's step was refused; False if it does not wait for one.

        Or if the same was noted within the last minute.
        """
        (row,) = self._call_at_once("note_step_unwritten", (*ref, step, reason))
        return bool(row["note_step_unwritten"])

    def find_job(self, job_id: str) -> JobRecord | None:
        rows = self._execute("find_job", self._find_text, (job_id,))
        return JobRecord.model_validate(rows[0]) if rows else None

    def find_jobs(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Those of them that there are, in any order."""
        rows = self._execute("find_jobs", self._find_several_text, (TextArray(job_ids),))
        return [JobRecord.model_validate(row) for row in rows]

    @cached_property
    def _find_text(self) -> str:
        """Composed once: that takes as long as the query."""
        return self._text_where(SQL("job_id = %s"))

    @cached_property
    def _find_several_text(self) -> str:
        return self._text_where(SQL("job_id = any (%s)"))

    def _text_where(self, condition: SQL) -> str:
        query = SQL("select {} from {} where {}")
        return query.format(columns_of(JobRecord), Identifier(self._schema, "jobs"), condition).as_string()

    def finalize_job(self, ref: JobRef, result: JsonObject | None) -> str | None:
        """Store the job's summary and end it. None when it does not wait for that."""
        (row,) = self._call("finalize_job", (*ref, as_jsonb(result)))
        return row["finalize_job"]  # type: ignore[no-any-return]

    def fail_job(self, ref: JobRef, error: Mapping[str, Any]) -> bool:
        (row,) = self._call("fail_job", (*ref, as_jsonb(error)))
        return bool(row["fail_job"])

    def record_event(self, ref: StageRef, task_id: str | None, event: str, detail: Mapping[str, Any]) -> None:
        """A line in the job's timeline, where no transition writes it."""
        self._call("record_event", (*ref, task_id, event, as_jsonb(detail)))

    def record_dead_letter(self, letter: DeadLetter) -> RecordedLetter:
        """Keep a dead message once, and let the rows that it named be announced again after a hold."""
        reference = letter.reference
        parameters = (
            letter.queue,
            letter.message_id,
            letter.sequence_number,
            letter.enqueued_at,
            reference.kind,
            reference.job_id or "",
            reference.run,
            reference.stage,
            list(reference.task_ids),
            letter.reason,
            letter.description,
            letter.delivery_count,
            letter.correlation_id,
            letter.body,
            letter.body_size,
        )
        (row,) = self._call("record_dead_letter", parameters)
        return RecordedLetter(
            row["dead_letter_id"], row["outcome"] == "known", row["job_found"], row["released"], row["hold_seconds"]
        )


def _submitted(row: DictRow) -> Submitted:
    outcome, is_same = SubmissionOutcome.stored(row["outcome"]), bool(row["same_parameters"])
    return Submitted(outcome, row["job_id"], row["status"], row["run"], row["correlation_id"], is_same)


def _document_of(wish: JobWish) -> dict[str, Any]:
    """As `submit_jobs` reads it; what is not wished is left out."""
    job = wish.job
    document = {
        "job_id": job.job_id,
        "job_type": job.job_type,
        "parameters": job.parameters,
        "definition": job.definition,
        "correlation_id": job.correlation_id,
        "forced_job_id": wish.forced and wish.forced.job_id,
        "nonce": wish.forced and wish.forced.nonce,
        "key": wish.key and wish.key.key,
        "payload_hash": wish.key and wish.key.payload_hash,
        "if_ended": wish.if_ended.value,
        "outside": list(wish.outside_id),
        "tags": dict(wish.tags) or None,
        "start_at": wish.start_at and wish.start_at.isoformat(),
        "priority": wish.priority,
        "detail": dict(wish.detail) or None,
    }
    return {name: value for name, value in document.items() if value is not None}


class TaskRepository(PostgreSQLRepository):
    """Task rows: planned in one transaction, leased in one call."""

    def plan_stage(
        self,
        ref: StageRef,
        tasks: Iterable[TaskRow],
        *,
        tasks_per_message: int | None = None,
        first_window: int | None = None,
        is_limited: bool = False,
        is_stream: bool = False,
    ) -> tuple[PlanOutcome, int]:
        """Insert a stage's tasks and seal it: all of them, or none.

        Args:
            tasks: Consumed as a stream (COPY); may be a generator over a hundred thousand.
            tasks_per_message: Kept with the stage, for announcing its tasks again.
            first_window: The tasks wait to be taken into a window, which has this size at first. None: they do not.
            is_limited: The stage has limits, in which each of its tasks needs a place; it has a window, then.
            is_stream: An author's code makes the tasks while they are written: no timeout of the server ends that.

        Returns:
            `planned` and the number of tasks, or why not and 0.

        Raises:
            PlanningCancelled: The server cancelled it.
            TasksKeptOut: The table took some of the tasks only.
        """
        begin = SQL("select {}(%s, %s, %s) as outcome").format(Identifier(self._schema, "begin_stage_plan"))
        seal = SQL("select {}(%s, %s, %s, %s, %s)").format(Identifier(self._schema, "seal_stage"))
        open_window = SQL("select {}(%s, %s, %s, %s)").format(Identifier(self._schema, "open_window"))
        columns = (*TASK_COLUMNS, "is_windowed", "is_limited")
        copy_in = SQL("copy {} ({}) from stdin").format(
            Identifier(self._schema, "tasks"), SQL(", ").join(Identifier(name) for name in columns)
        )
        is_windowed = first_window is not None
        with self._get_cursor("plan_stage") as cursor, cursor.connection.transaction():
            cursor.execute(begin, ref)
            (row,) = cursor.fetchall()
            if row["outcome"] != "ready":
                return PlanOutcome.stored(row["outcome"]), 0
            if is_stream:
                cursor.execute(_NO_TIMEOUTS, prepare=False)
            count = 0
            try:
                with cursor.copy(copy_in) as copy:
                    for count, task in enumerate(tasks, start=1):  # noqa: B007 - the last number is the count
                        copy.write_row((*_keys_of(task), as_jsonb(task.parameters), is_windowed, is_limited))
                if cursor.rowcount != count:
                    raise TasksKeptOut(count, cursor.rowcount)
                cursor.execute(seal, (*ref, count, tasks_per_message))
                if is_windowed:
                    cursor.execute(open_window, (*ref, first_window))
            except psycopg.Error as error:
                if error.sqlstate not in CANCELLED:
                    raise
                raise PlanningCancelled(ref.stage, count, first_line(error)) from error
        return PlanOutcome.PLANNED, count

    def plan_small_stage(self, ref: StageRef, planned: SmallStage) -> PlanOutcome:
        """Insert and seal a stage of few tasks in one call; with a lease they are born claimed."""
        (row,) = self._call("plan_small_stage", (*ref, *_columns_of(planned)))
        return PlanOutcome.stored(row["plan_small_stage"])

    def mark_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int:
        (row,) = self._call("mark_tasks_announced", (*ref, TextArray(task_ids)))
        return int(row["mark_tasks_announced"])

    def mark_taken_tasks_announced(self, ref: JobRef, task_ids: Sequence[str]) -> int:
        (row,) = self._call("mark_taken_tasks_announced", (*ref, TextArray(task_ids)))
        return int(row["mark_taken_tasks_announced"])

    def take_next_tasks(self, ref: StageRef, mean_seconds: float | None = None) -> list[TakenTask]:
        """Take the next tasks of a stage into its window, for the caller to announce; none if it is full."""
        return [TakenTask(**row) for row in self._call("take_next_tasks", (*ref, mean_seconds))]

    def take_limited_tasks(self, ref: StageRef) -> list[LimitedTask]:
        """Take the next tasks of a stage with limits, as many as these let begin, for the caller to announce."""
        return [LimitedTask(**row) for row in self._call("take_limited_tasks", ref)]

    def find_limit_waiters(self, names: Sequence[str] | None, limit: int) -> list[StageRef]:
        """Stages whose turn has come at these limits, or at all: those with room, `limit` of each at most."""
        listed = None if names is None else TextArray(names)
        return [StageRef(**row) for row in self._call("find_limit_waiters", (listed, limit))]

    def claim_tasks(self, ref: StageRef, task_ids: Sequence[str], *, lease: Lease) -> list[ClaimedRow]:
        """Claim tasks: one row per id, with its outcome, in the order of the ids."""
        rows = self._call("claim_tasks", (*ref, TextArray(task_ids), lease.lease_id, lease.owner))
        for row in rows:
            row["outcome"] = ClaimOutcome.stored(row["outcome"])
        return sorted((ClaimedRow(**row) for row in rows), key=BY_TASK_ID)

    def renew_leases(self, held: Sequence[HeldTask]) -> dict[tuple[UUID, str], LeaseOutcome]:
        """Extend a process's leases in one call, by lease id and task id; one that is missing is lost."""
        parameters = (
            TextArray(lease.job_id for lease in held),
            [lease.run for lease in held],
            TextArray(lease.task_id for lease in held),
            UuidArray(lease.lease_id for lease in held),
            JsonbArray(lease.progress for lease in held),
        )
        rows = self._call_at_once("renew_leases", parameters)
        return {(row["lease_id"], row["task_id"]): LeaseOutcome.stored(row["outcome"]) for row in rows}

    def is_any_stopping(self, job_ids: Collection[str]) -> bool:
        """Whether one of the jobs is being cancelled or has ended."""
        return bool(self._execute("is_any_stopping", self._stopping_text, (TextArray(job_ids),)))

    @cached_property
    def _stopping_text(self) -> str:
        stopping = [status.value for status in JobStatus if status.is_terminal or status is JobStatus.CANCELLING]
        # A look by key for each, whatever the plan makes of the number of ids.
        query = SQL(
            "select 1 from unnest(%s::text[]) w(job_id) "
            "where (select j.status in ({}) from {} j where j.job_id = w.job_id) limit 1"
        )
        named = SQL(", ").join(Literal(status) for status in stopping)
        return query.format(named, Identifier(self._schema, "jobs")).as_string()

    def renew_leases_of_owner(self, owner: str) -> list[RenewedLease]:
        """Extend whatever is leased under the name."""
        rows = self._call("renew_leases_of_owner", (owner,))
        return [RenewedLease(**row | {"outcome": LeaseOutcome.stored(row["outcome"])}) for row in rows]

    def renew_step_lease(self, step: StepRef, owner: str) -> bool:
        """Extend the lease of who takes a job's step now. False: the job does not wait for it, or another has it."""
        (row,) = self._call_at_once("renew_step_lease", (*step, owner, STEP_LEASE_SECONDS))
        return bool(row["renew_step_lease"])

    def take_step_again(self, step: StepRef, owner: str, *, is_alone: bool) -> LostProcesses | None:
        """Take the lease of a step that was begun before. None: the job does not wait for it, or a process has it.

        Args:
            is_alone: Nothing else runs in this process.
        """
        rows = self._call("take_step_again", (*step, owner, STEP_LEASE_SECONDS, is_alone))
        return LostProcesses(**rows[0]) if rows else None

    def release_step_lease(self, step: StepRef, owner: str) -> bool:
        """End the lease, if it was written."""
        (row,) = self._call("release_step_lease", (*step, owner))
        return bool(row["release_step_lease"])

    def is_step_leased(self, step: StepRef) -> bool:
        """Whether a process that lives takes the step."""
        (row,) = self._call("is_step_leased", tuple(step))
        return bool(row["is_step_leased"])

    def release_tasks(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str], started: bool) -> list[str]:
        """Release tasks before their lease ends. Returns those that are pending again and want a message."""
        (row,) = self._call("release_tasks", (*ref, lease_id, TextArray(task_ids), started))
        return list(row["release_tasks"])

    def release_tasks_into_line(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        started: bool,
        mean_seconds: float | None = None,
    ) -> Released:
        """The same; those of a stage with a window wait for their turn, and want no message now."""
        values = (*ref, lease_id, TextArray(task_ids), started, mean_seconds)
        (row,) = self._call("release_tasks_into_line", values)
        return Released(row["released_ids"], is_in_line=row["is_in_line"])

    def return_tasks_to_line(self, ref: StageRef, task_ids: Sequence[str], mean_seconds: float) -> list[str]:
        """Put tasks that nobody has claimed back into their stage's line. Returns which wait there."""
        (row,) = self._call("return_tasks_to_line", (*ref, TextArray(task_ids), mean_seconds))
        return list(row["return_tasks_to_line"])

    def note_unwritten(self, ref: StageRef, *, lease_id: UUID, task_ids: Sequence[str], reason: str) -> int:
        """Note in the timeline that these tasks have ended and the database did not take it; how many were noted."""
        values = (*ref, lease_id, TextArray(task_ids), reason)
        (row,) = self._call_at_once("note_unwritten", values)
        return int(row["note_unwritten"])

    def postpone_tasks(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        task_ids: Sequence[str],
        unknown: Mapping[str, str],
        patience_seconds: float,
        delays: Sequence[float],
    ) -> list[PostponedTask]:
        """Leave claimed tasks to an app that knows them: which are postponed, and which failed beyond the patience."""
        parameters = (*ref, lease_id, TextArray(task_ids), as_jsonb(unknown), patience_seconds, list(delays))
        rows = self._call("postpone_tasks", parameters)
        return [PostponedTask(**row | {"outcome": PostponeOutcome.stored(row["outcome"])}) for row in rows]


class StageCompletionRepository(PostgreSQLRepository):
    """Ends tasks, and with the last one the stage, in the same transaction."""

    def complete_task_and_check_stage(
        self, ref: StageRef, *, lease_id: UUID, results: Mapping[str, JsonObject]
    ) -> StageCheck:
        """End tasks as completed: task id -> result. What the lease no longer holds is left alone."""
        parameters = (*ref, lease_id, TextArray(results), JsonbArray(results.values()))
        (row,) = self._call("complete_task_and_check_stage", parameters)
        return _check(row)

    def complete_tasks_and_check_stage(self, ref: StageRef, completions: Sequence[Completion]) -> StageCheck:
        """End tasks of several messages as completed, each under the lease of its message, in one call."""
        (row,) = self._call("complete_tasks_and_check_stage", (*ref, *_columns_of_completions(completions)))
        return _check(row)

    def complete_tasks_and_claim_next(
        self, ref: StageRef, completions: Sequence[Completion], wanted: NextTasks
    ) -> tuple[StageCheck, list[ClaimedRow]]:
        """As `complete_tasks_and_check_stage`, and claim tasks that wait in line, in the same call."""
        parameters = (
            *ref,
            *_columns_of_completions(completions),
            TextArray(wanted.task_types),
            wanted.limit,
            wanted.lease.lease_id,
            wanted.lease.owner,
        )
        rows = self._call("complete_tasks_and_claim_next", parameters)
        return _check(rows[0]), sorted((_claimed(row) for row in rows if row["task_id"] is not None), key=BY_TASK_ID)

    def complete_stage_and_plan_next(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        following: SmallStage,
    ) -> bool:
        """End all tasks of a stage and plan the next, in one call. False: not all is as expected, nothing was done.

        The same call once more, after its answer was lost with its connection, is True too where it claimed the tasks.
        """
        parameters = (*ref, lease_id, TextArray(results), JsonbArray(results.values()), *_columns_of(following))
        if self._call_if_as_expected("complete_stage_and_plan_next", parameters):
            return True
        if following.lease is None:
            return False
        following_ref = (ref.job_id, ref.run, ref.stage + 1, following.tasks[0].task_id, following.lease.lease_id)
        (row,) = self._call("was_born_claimed", following_ref)
        return bool(row["was_born_claimed"])

    def complete_stage_and_finalize(
        self,
        ref: StageRef,
        *,
        lease_id: UUID,
        results: Mapping[str, JsonObject],
        summary: JsonObject,
    ) -> str | None:
        """End all tasks of the last stage and the job, in one call. None: not all is as expected, nothing was done."""
        parameters = (*ref, lease_id, TextArray(results), JsonbArray(results.values()), as_jsonb(summary))
        rows = self._call_if_as_expected("complete_stage_and_finalize", parameters)
        return rows[0]["complete_stage_and_finalize"] if rows else None

    def fail_task_and_check_stage(
        self, ref: StageRef, *, lease_id: UUID, errors: Mapping[str, Mapping[str, Any]]
    ) -> StageCheck:
        """End tasks as failed: task id -> error. The stage's policy may fail the job."""
        parameters = (*ref, lease_id, TextArray(errors), JsonbArray(errors.values()))
        (row,) = self._call("fail_task_and_check_stage", parameters)
        return _check(row)

    def increment_task_retry_count(
        self,
        ref: StageRef,
        task_id: str,
        *,
        lease_id: UUID,
        error: Mapping[str, Any],
        delay_seconds: float,
    ) -> RetryAnswer:
        """Schedule another attempt."""
        parameters = (*ref, lease_id, task_id, as_jsonb(error), delay_seconds, True)
        (row,) = self._call("increment_task_retry_count", parameters)
        outcome = RetryOutcome.stored(row["outcome"])
        return RetryAnswer(outcome, row["attempt"], row["due_at"], delay_seconds, is_in_line=row["is_in_line"])

    def count_lost_processes(self, ref: JobRef, task_ids: Sequence[str]) -> dict[str, int]:
        """How often each was taken back from a process that was lost.

        Not from one that ended on request, nor from one whose outcome the database did not take.
        """
        query = SQL(
            "select task_id, sum(case event when 'task_interrupted' then 1 else -1 end)::integer as count from {}"
            " where job_id = %s and run = %s and event in ('task_interrupted', 'outcome_not_written')"
            " and task_id = any (%s) group by task_id"
        ).format(Identifier(self._schema, "job_events"))
        rows = self._execute_query("count_lost_processes", query, (*ref, list(task_ids)))
        return {row["task_id"]: row["count"] for row in rows}

    def take_back_tasks(self, ref: StageRef) -> TakenBack:
        """Take tasks back whose lease ran out."""
        (row,) = self._call("take_back_tasks", (*ref, SHOWN_INTERRUPTED))
        return TakenBack(**row)

    def enforce_deadlines(self, ref: StageRef, limit: int) -> Enforcement:
        """End what is overdue at the job's current stage: the job, or at most `limit` tasks not begun."""
        (row,) = self._call("enforce_deadlines", (*ref, limit))
        return Enforcement(**row | {"outcome": DeadlineOutcome.stored(row["outcome"])})

    def resume_stalled_job(self, ref: StageRef) -> bool:
        """End the stage or advance the job where its last task's process did not: whether the job moved."""
        (row,) = self._call("resume_stalled_job", ref)
        return bool(row["resume_stalled_job"])

    def check_job_completion(self, job_id: str) -> list[dict[str, Any]]:
        """How far a job is: one row per stage of its current run, with counts."""
        return self._call("check_job_completion", (job_id,))

    def _call_if_as_expected(self, function: str, parameters: Sequence[Any]) -> list[DictRow]:
        """A call that does all or nothing: no rows when something is not as the caller expects."""
        try:
            return self._call(function, parameters)
        except PreconditionFailed as error:
            self._log.info("not_as_expected", extra={"operation": function, "reason": error.reason})
            return []


def _check(row: DictRow) -> StageCheck:
    ids = tuple(row["updated_ids"])
    return StageCheck(ids, row["is_last_task_in_stage"], row["stage_status"], row["job_status"])


def _claimed(row: DictRow) -> ClaimedRow:
    return ClaimedRow(
        row["task_id"],
        ClaimOutcome.CLAIMED,
        row["attempt"],
        row["interruptions"],
        row["task_type"],
        row["task_index"],
        row["name"],
        row["parameters"],
    )


def _columns_of_completions(completions: Sequence[Completion]) -> tuple[Any, ...]:
    results = {task_id: result for one in completions for task_id, result in one.results.items()}
    leases = UuidArray(one.lease_id for one in completions for _ in one.results)
    return leases, TextArray(results), JsonbArray(results.values())


def _columns_of(planned: SmallStage) -> tuple[Any, ...]:
    tasks = planned.tasks
    return (
        TextArray([task.task_id for task in tasks]),
        TextArray([task.task_type for task in tasks]),
        TextArray([task.queue for task in tasks]),
        TextArray([task.name for task in tasks]),
        JsonbArray([task.parameters for task in tasks]),
        planned.lease.lease_id if planned.lease else None,
        planned.lease.owner if planned.lease else None,
        planned.tasks_per_message,
    )
