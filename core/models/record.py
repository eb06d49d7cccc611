"""Rows. The DDL is generated from these models, so a column's type, default and comment are here alone."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from core.models.definition import FrozenModel
from core.models.refs import JobRef, StageRef, StepRef
from core.models.status import (
    JobPriority,
    JobStatus,
    StageStatus,
    StoredJobPriority,
    StoredJobStatus,
    StoredStageStatus,
    StoredTaskStatus,
    TaskStatus,
)

JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class JobRecord(FrozenModel):
    """One submitted job. Its current run is in this row, the runs before it are in `job_runs`."""

    job_id: JobId = Field(
        description="SHA-256 over job type and parameters, in hexadecimal; for a forced job over its nonce, too."
    )
    job_type: str = Field(description="Name of the job class that plans its stages and makes its summary.")
    status: StoredJobStatus = Field(
        default=JobStatus.QUEUED,
        description=(
            "State of the current run: queued (its stage waits to be planned), processing (tasks of its stage run), "
            "cancelling (some tasks have not stopped yet), finalizing (its summary is to be made), or how it ended. "
            "Moved by the transaction that ends the last task of a stage, by the planner, and by operators."
        ),
    )
    run: Annotated[int, Field(ge=1)] = Field(
        default=1, description="Number of the current run, from 1. Each rerun raises it by 1."
    )
    stage: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="The stage where the current run is, from 1. Raised by the transaction that ends a stage.",
    )
    total_stages: Annotated[int, Field(ge=1)] = Field(description="Number of stages in its definition.")
    parameters: dict[str, Any] = Field(
        default={}, description="Validated parameters of the current run. Only a rerun replaces them."
    )
    definition: dict[str, Any] = Field(
        description=(
            "Snapshot of the job class at submission: stages with their policies, and timeout_seconds. A new release "
            "of the code does not change it; a rerun may replace it."
        )
    )
    correlation_id: str = Field(
        description="Names the job in its messages and log lines. Given by the submitter, or made."
    )
    result: dict[str, Any] | None = Field(
        default=None, description="The job's own summary, as its job class made it; null until it has completed."
    )
    error: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Why it failed or is being cancelled or was: type, message, retryable, attempt, traceback, at, and what "
            "goes with the type. Null in any other state."
        ),
    )
    attempt: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description=(
            "Failed attempts at the current step, which is to plan the stage or to make the summary. 0 again with each "
            "step."
        ),
    )
    due_at: datetime | None = Field(
        default=None,
        description=(
            "The step is not announced before this time: after a failed attempt, after a dead letter, or while a "
            "janitor sends its message. Null: at once."
        ),
    )
    announced_at: datetime | None = Field(
        default=None,
        description=(
            "When the queue confirmed the message for the current step. Null: none is confirmed, so the janitor sends "
            "one."
        ),
    )
    created_at: datetime | None = Field(default=None, description="When it was submitted.")
    updated_at: datetime | None = Field(
        default=None, description="When this row last changed state. The janitor measures its grace from here."
    )
    finished_at: datetime | None = Field(
        default=None, description="When the current run ended. Null while it is open. Retention counts from here."
    )
    nonce: str | None = Field(
        default=None,
        description="Makes the id of a forced job differ from others with its parameters; else null.",
    )
    forced_from: str | None = Field(
        default=None,
        description="For a forced job, the id that its parameters have without the nonce; else null.",
    )
    deadline_at: datetime | None = Field(
        default=None,
        description=(
            "By when the current run must have ended, from timeout_seconds of its definition; a pause moves it. The "
            "janitor fails the job as JobTimedOut after it. Null: no deadline."
        ),
    )
    paused_at: datetime | None = Field(
        default=None,
        description=(
            "Since when it is paused: nothing is claimed, planned or finalized. Set by pause; cleared by resume, cancel"
            " and the job's end."
        ),
    )
    cancel_deadline_at: datetime | None = Field(
        default=None,
        description=(
            "When a job that is cancelling ends whether its tasks have stopped or not: request plus grace. The janitor "
            "then revokes their leases."
        ),
    )
    waiting_for: dict[str, Any] | None = Field(
        default=None,
        description=(
            "What an app did not know that was to take the job's step: kind, name, by, since, seen_at, times, "
            "waited_seconds, patience_seconds, due_at, and `at`. It counts only while run, stage, status and attempt "
            "equal `at`; nobody clears it."
        ),
    )
    run_started_at: datetime | None = Field(
        default=None, description="When the current run began. Null in the first run, which began at created_at."
    )
    tags: dict[str, Any] | None = Field(
        default=None, description="Short texts by name, given by the submitter, to find it by. Null: it has none."
    )
    start_at: datetime | None = Field(
        default=None,
        description="The current run does not begin before this time, as its submitter wished. Null: at once.",
    )
    hold: dict[str, Any] | None = Field(
        default=None,
        description="Legal hold: reason, actor, at. While it is set, neither retention nor people delete the job.",
    )
    traceparent: str | None = Field(
        default=None,
        description="The trace of its submission, as W3C writes it. Null where no trace was recorded when it came.",
    )
    priority: StoredJobPriority | None = Field(
        default=None,
        description="Its weight among others, as its submitter or an operator wished. Null: that of its definition.",
    )
    stall_noted_at: datetime | None = Field(
        default=None, description="When webhooks last learned that it does not move. Null: never."
    )
    step_lease: dict[str, Any] | None = Field(
        default=None,
        description=(
            "The process that takes the job's step, if that lasts or was begun before: owner, since, expires_at, "
            "is_alone, and `at`. Its heartbeats renew it. `interruptions` counts the processes that ended over the "
            "step, `alone` those of them that did nothing else, `lost` is the last; `has_ended`: nobody has it now. "
            "It counts only while run, stage, status and attempt equal `at`."
        ),
    )

    @property
    def effective_priority(self) -> JobPriority:
        """The one that counts."""
        return self.priority or JobPriority.stored(self.definition.get("priority") or JobPriority.NORMAL)

    def after_stage(self, stage: int, status: str) -> "JobRecord":
        """The job as its row is when it waits for the step after this stage.

        Args:
            status: Which step: queued for the next stage to be planned, or finalizing.
        """
        following = stage + 1 if status == JobStatus.QUEUED else stage
        update = {"status": JobStatus(status), "stage": following, "attempt": 0, "paused_at": None}
        return self.model_copy(update=update)

    @property
    def ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)

    @property
    def step_ref(self) -> StepRef:
        return StepRef(self.job_id, self.run, self.stage, self.status.value, self.attempt)

    @property
    def step_name(self) -> str:
        """What the job waits for, where it waits for a step."""
        return "finalize_job" if self.status is JobStatus.FINALIZING else "plan_stage"

    @property
    def step_interruptions(self) -> int:
        """How many processes ended while they took the step that the job waits for, if none takes it now."""
        note = self.step_lease
        if note is None or note["at"] != {name: getattr(self, name) for name in ("run", "stage", "status", "attempt")}:
            return 0
        # A lease that nobody has counted has run out.
        return int(note.get("interruptions", 0)) + ("has_ended" not in note)


class JobRunRecord(FrozenModel):
    """A run of a job as it ended, written when a rerun followed it; the current run is in the job's row."""

    job_id: JobId = Field(description="The job.")
    run: Annotated[int, Field(ge=1)] = Field(description="Number of the run, from 1.")
    status: StoredJobStatus = Field(description="How the run ended.")
    parameters: dict[str, Any] = Field(description="Its parameters.")
    definition: dict[str, Any] = Field(description="The snapshot of the job class that it ran with.")
    result: dict[str, Any] | None = Field(default=None, description="Its summary; null unless it completed.")
    error: dict[str, Any] | None = Field(
        default=None, description="Why it failed or was cancelled, as in jobs.error; else null."
    )
    finished_at: datetime | None = Field(default=None, description="When it ended.")
    followed_at: datetime = Field(description="When the rerun after it began, which wrote this row.")


class StageRecord(FrozenModel):
    """One stage in one run of a job. It is written when the run comes to the stage."""

    job_id: JobId = Field(description="The job.")
    run: Annotated[int, Field(ge=1)] = Field(description="The run of the job.")
    stage: Annotated[int, Field(ge=1)] = Field(description="Number of the stage, from 1.")
    status: StoredStageStatus = Field(
        default=StageStatus.QUEUED,
        description=(
            "queued (its tasks are not all inserted, so it cannot end), processing (they are), or how it ended. Moved "
            "by the planner, and by the transaction that ends its last task."
        ),
    )
    settings: dict[str, Any] = Field(
        description=(
            "The stage as its job's definition has it: name, parallelism, lease_seconds, max_interruptions, retry, "
            "failure, timeouts. tasks_per_message is the size of its messages now, max_parallel what an operator set "
            "last."
        )
    )
    expected_count: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Number of its tasks, sealed by the planner with their insert. Null until then."
    )
    failed_count: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Number of its tasks that have failed, counted under the stage's exclusive lock."
    )
    created_at: datetime | None = Field(
        default=None, description="When the run came to this stage. Its deadlines count from here."
    )
    planned_at: datetime | None = Field(
        default=None,
        description="When its tasks were inserted. Null until then.",
    )
    finished_at: datetime | None = Field(default=None, description="When it ended. Null while it is open.")
    is_unwatched: bool = Field(
        default=False,
        description=(
            "True: other transactions held every open task when one was to be watched, so each completion takes the "
            "stage's lock exclusively, until one finds a task to watch. See docs/explanation/locking.md."
        ),
    )
    deadline_at: datetime | None = Field(
        default=None,
        description=(
            "By when it must have ended, from timeout_seconds of its settings; a pause moves it. The janitor fails the "
            "job as StageTimedOut after it. Null: no deadline."
        ),
    )
    queue_deadline_at: datetime | None = Field(
        default=None,
        description=(
            "By when its tasks must have begun, from queue_timeout_seconds of its settings; a pause moves it. The "
            "janitor fails tasks without an attempt as QueueTimeExpired after it. Null: no deadline."
        ),
    )
    from_run: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The run in which it ran, where a rerun kept it or a part of its tasks; else null.",
    )
    window_after: str | None = Field(
        default=None,
        description=(
            "Its tasks are announced in windows: those with an id up to this one were taken so far, the others wait in"
            " line. Empty: none was taken yet. Null: it is announced as a whole. docs/explanation/delivery.md "
            "has more."
        ),
    )
    window_from: str | None = Field(
        default=None, description="The first of the tasks that were open in its window when some were last taken."
    )
    window_size: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="How many of its tasks are to wait in the queue, beside those that run; set anew by each take.",
    )
    window_open: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How many tasks were open in its window after the last take."
    )
    window_at: datetime | None = Field(
        default=None, description="When tasks were last taken into its window. Null until the first are."
    )


class TaskRecord(FrozenModel):
    """One unit of work in one run of a job, retried alone."""

    job_id: JobId = Field(description="The job.")
    run: Annotated[int, Field(ge=1)] = Field(description="The run of the job.")
    task_id: Annotated[str, Field(max_length=100)] = Field(
        description="Unique within the run. Tasks of a stage are locked in its order."
    )
    stage: Annotated[int, Field(ge=1)] = Field(description="The stage that it belongs to, from 1.")
    task_index: Annotated[int, Field(ge=0)] = Field(
        description="Its place in the stage, from 0: the order in which results are read."
    )
    task_type: str = Field(description="Name of the handler that runs it.")
    queue: str = Field(description="Logical name of the queue that its messages go to.")
    name: str | None = Field(default=None, description="What people call it, such as a file name; null if it has none.")
    parameters: dict[str, Any] = Field(default={}, description="What its handler gets, as the planner wrote it.")
    status: StoredTaskStatus = Field(
        default=TaskStatus.PENDING,
        description=(
            "pending (no message for it is confirmed), queued (one is), processing (an attempt has a lease), "
            "pending_retry (to be retried at due_at), or how it ended. Moved by claims and by the attempt that has "
            "the lease; by the janitor when that lease has run out."
        ),
    )
    attempt: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description=(
            "Attempts so far, the running one included; 0 until the first claim. Less interruptions, it is what counts "
            "against retry.max_attempts of the stage."
        ),
    )
    interruptions: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description=(
            "Attempts that ended without an outcome: crash, lost lease, drained host. They spend no retry. Beyond "
            "max_interruptions of the stage the task fails as InterruptedTooOften."
        ),
    )
    lease_id: UUID | None = Field(
        default=None,
        description=(
            "The running attempt's random lease. Only its holder may renew, complete, fail or reschedule the task."
            " Null unless the task is processing."
        ),
    )
    lease_expires_at: datetime | None = Field(
        default=None,
        description=(
            "When the lease runs out unless a heartbeat extends it by lease_seconds of the stage. The janitor takes"
            " the task back after it. Null unless the task is processing."
        ),
    )
    lease_owner: str | None = Field(default=None, description="Name of the process that has, or last had, the lease.")
    due_at: datetime | None = Field(
        default=None,
        description=(
            "The task is not announced before this time, and not claimed before it while it is pending_retry: after a "
            "failed attempt, after a dead letter, or while a janitor sends its message. Null: at once."
        ),
    )
    announced_at: datetime | None = Field(
        default=None,
        description=(
            "When a queue confirmed its latest message, or a janitor found that message lost and sent another. Null: "
            "none is confirmed for what it waits for, so the janitor sends one. Of a pending task: when a process "
            "released it into its stage's line, where it waits for its turn."
        ),
    )
    progress: dict[str, Any] | None = Field(
        default=None,
        description="What its handler last reported, written with a heartbeat; null if it reports nothing.",
    )
    result: dict[str, Any] | None = Field(
        default=None, description="What its handler returned; null until it has completed."
    )
    error: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Why its latest failed attempt failed: type, message, retryable, attempt (its number, interrupted ones "
            "counted, as in the column), traceback, at, and log: the last lines that the attempt logged and printed, "
            "if there are any. Cleared when it completes."
        ),
    )
    created_at: datetime | None = Field(default=None, description="When it was planned, or when a rerun wrote it anew.")
    started_at: datetime | None = Field(
        default=None,
        description="When its latest attempt was claimed; task_timeout_seconds counts from here.",
    )
    finished_at: datetime | None = Field(
        default=None, description="When it completed, failed or was cancelled. Null while it is open."
    )
    is_watched: bool = Field(
        default=False,
        description=(
            "True for one open task of a running stage: the transaction that ends it passes the watch on, or decides "
            "that the stage has ended. The end of any other task decides nothing. See docs/explanation/locking.md."
        ),
    )
    timed_out_at: datetime | None = Field(
        default=None,
        description=(
            "When a heartbeat of the running attempt was first refused, since task_timeout_seconds of the stage were "
            "over. Its lease then runs out. Cleared by the next claim."
        ),
    )
    parked_at: datetime | None = Field(
        default=None,
        description=(
            "It needs another message, since its own came while the job was paused, or since a rerun wrote it. A time "
            "in the future: one sender holds it until then. Cleared when the message is confirmed, or by a claim."
        ),
    )
    from_run: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The run in which it ran, where a rerun kept it; else null."
    )
    is_windowed: bool = Field(
        default=False,
        description=(
            "True: its stage is announced in windows. While it is pending and its id is above window_after of the "
            "stage, or it has been released into the line, it waits in line, and no message is sent for it."
        ),
    )
    waiting_for: dict[str, Any] | None = Field(
        default=None,
        description=(
            "What the app that claimed it did not know: kind, name, by, since, seen_at, times, waited_seconds, "
            "patience_seconds, and `at`. It counts only while attempt equals that of `at`."
        ),
    )
    is_limited: bool = Field(
        default=False,
        description=("True: its stage has limits, so that a claim needs a place in each. Written when it is planned."),
    )
    held_for: str | None = Field(
        default=None,
        description=(
            "The limit that it waits for since its message came, or whose rate its message is scheduled for. Written "
            "by its claim and by who takes the next tasks; cleared when it is announced again or claimed."
        ),
    )


class IdempotencyKeyRecord(FrozenModel):
    """A submission's own key and the job that it got; kept as long as that job."""

    job_id: JobId = Field(description="The job that the first submission with this key got.")
    idempotency_key: str = Field(description="The key, as the submitter gave it.")
    payload_hash: str = Field(
        description="SHA-256 over the submission that it came with. A second one must have the same."
    )
    created_at: datetime | None = Field(default=None, description="When the key first came.")


class AuditRecord(FrozenModel):
    """What somebody did to a job or to many. It outlives the job."""

    audit_id: int = Field(description="Identity; the order in which rows were written.")
    job_id: str = Field(description="The job; empty for an action on many.")
    action: str = Field(description="What was done: one of `AuditAction`, or another one of a newer release.")
    actor: str | None = Field(
        default=None, description="The person or app that did it; null where nobody vouches for a name."
    )
    reason: str | None = Field(default=None, description="Why, as the actor wrote it.")
    detail: dict[str, Any] = Field(default={}, description="What goes with the action, such as from and to.")
    at: datetime = Field(description="When, by the database's clock.")


class LimitRecord(FrozenModel):
    """How many tasks of all stages that name it may run at once, and how many may begin in a time."""

    name: str = Field(description="What stages call it, with the parameters of their job in it.")
    at_once: int | None = Field(default=None, description="How many tasks may run at a time; null: any number.")
    rate_count: int | None = Field(
        default=None, description="How many may begin in any rate_seconds; null, as rate_seconds: any number."
    )
    rate_seconds: float | None = Field(default=None, description="The period of the rate.")
    is_edited: bool = Field(
        default=False, description="True: an operator chose the numbers. False: the stage that was planned last did."
    )
    turn: float = Field(
        default=0, description="Where its queue of stages is: the turn of the stage that was served last."
    )
    created_at: datetime | None = Field(default=None, description="When a stage first named it, or an operator.")
    used_at: datetime = Field(description="When it was last needed, give or take ten minutes; the janitor's.")
    edited_at: datetime | None = Field(default=None, description="When an operator last changed it.")
    edited_by: str | None = Field(
        default=None, description="The person or app that did; null where nobody vouches for a name."
    )
    reason: str | None = Field(default=None, description="Why, as the operator wrote it.")


class LimitPlaceRecord(FrozenModel):
    """A task's place in a limit: kept for it since its message was sent, or held by its attempt."""

    job_id: JobId = Field(description="The job.")
    run: Annotated[int, Field(ge=1)] = Field(description="The run of the job.")
    task_id: str = Field(description="The task.")
    limit_name: str = Field(description="The limit.")
    stage: Annotated[int, Field(ge=1)] = Field(description="The task's stage.")
    has_begun: bool = Field(description="True: an attempt holds it. False: it is kept until the message comes.")
    ends_at: datetime | None = Field(
        default=None,
        description=(
            "When it is free again without more: a place that is kept, or that of an attempt which was cut off. Null: "
            "when the task's row leaves processing."
        ),
    )


class LimitStartRecord(FrozenModel):
    """How many tasks began under a limit in a twentieth of its period."""

    limit_name: str = Field(description="The limit.")
    ends_at: datetime = Field(description="The end of that time.")
    count: int = Field(description="How many tasks began.")


class LimitWaiterRecord(FrozenModel):
    """A stage with tasks that wait for a limit; of several, for the one that has the least room."""

    job_id: JobId = Field(description="The job.")
    run: Annotated[int, Field(ge=1)] = Field(description="The run of the job.")
    stage: Annotated[int, Field(ge=1)] = Field(description="The stage.")
    limit_name: str = Field(description="The limit that it waits for.")
    turn: float = Field(description="Stages are served in this order; each task that is served adds to it.")


class JobEvent(FrozenModel):
    """One line of a job's timeline. A task's plain success has none: its own row shows it."""

    job_id: JobId = Field(description="The job.")
    event_id: int = Field(description="Identity; within a job, the order in which events were written.")
    run: int = Field(description="The run of the job that it happened in.")
    stage: int | None = Field(default=None, description="The stage that it concerns; null for the job as a whole.")
    task_id: str | None = Field(default=None, description="The task that it concerns; null for several, or for none.")
    event: str = Field(description="What happened, such as stage_completed or task_interrupted.")
    detail: dict[str, Any] = Field(
        default={}, description="What goes with this event, such as an error, a reason, an actor or delay_seconds."
    )
    at: datetime = Field(description="When it happened, by the database's clock.")
