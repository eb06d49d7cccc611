"""The log's records: the checkpoint, levels, fields and meaning of each. A test holds the table against the code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """One record of the log. `fields` leaves out `checkpoint` and those that are bound around it."""

    meaning: str
    checkpoint: str = ""
    level: str = "info"
    fields: str = ""


_STEP = "job_id run stage"
_ATTEMPTS = f"{_STEP} task_ids attempts durations_seconds task_id attempt duration_seconds stage_complete"

JOBS = {
    "job_submitted": Record(
        "A submission wrote a job or found it.",
        "JOB_SUBMITTED",
        fields="job_id run outcome status same_parameters",
    ),
    "submission_not_noted": Record(
        "The job is written; the source of its submission could not be added to its timeline.",
        level="warning",
        fields="job_id",
    ),
    "submission_ended_late": Record(
        "A submission or dry run ended after it was given up (`outcome` nothing_written), or late.",
        "SUBMISSION_HANGS",
        "warning",
        "job_type outcome duration_seconds",
    ),
    "submission_ran_nothing": Record(
        "A submission through the jobs queue found a job that has ended; `advice` names what would run it.",
        "SUBMISSION_RAN_NOTHING",
        "warning",
        "job_id outcome status advice",
    ),
    "job_message_not_made": Record(
        "The job is written, but the job type's own code made no message; the janitor sends it.",
        level="error",
        fields="job_id",
    ),
    "job_message_without_effect": Record(
        "A job message came for a step that does not wait for it.", fields="job_id outcome"
    ),
    "stage_plan_ended": Record(
        "Planning a stage ended: `outcome` planned, or why not.",
        "STAGE_PLAN",
        fields=f"{_STEP} outcome count duration_seconds",
    ),
    "job_step_failed": Record(
        "Planning a stage or finalizing the job failed in the author's code.",
        "JOB_STEP_FAILED",
        "error",
        f"{_STEP} attempt operation error_type",
    ),
    "job_step_interrupted": Record(
        "A step is begun again whose process was lost, `owner` the last time.",
        "JOB_STEP_INTERRUPTED",
        "warning",
        f"{_STEP} interruptions owner",
    ),
    "job_step_runs_alone": Record(
        "The step spent half of its interruptions and runs alone in its process.",
        "JOB_STEP_RUNS_ALONE",
        "warning",
        _STEP,
    ),
    "job_step_not_written": Record(
        "The database refuses what came of a step (`reason`), though it answers; the step's message comes again.",
        "JOB_STEP_NOT_WRITTEN",
        "error",
        f"{_STEP} operation reason",
    ),
    "job_step_postponed": Record(
        "The job's next step needs a job type or stage that this app does not know.",
        "UNKNOWN_WORK",
        fields="job_id stage outcome missing wait_seconds",
    ),
    "stage_not_ended_with_next_step": Record(
        "A stage could not be ended together with the plan of the next; its results are written alone.",
        level="error",
        fields="job_id",
    ),
    "job_finalized": Record(
        "The job ended with its result.", "JOB_COMPLETE", fields="job_id run status duration_seconds"
    ),
    "job_failed": Record("The job failed.", "JOB_FAILED", "error", f"{_STEP} status error"),
    "job_cancelled": Record("The job ended after a cancel.", "JOB_CANCEL", fields=f"{_STEP} status"),
    "job_cancel_asked": Record("Somebody cancelled the job.", "JOB_CANCEL", fields="job_id status"),
    "job_cancel_forced": Record(
        "The grace time of a cancel passed; `count` tasks still ran.", "JOB_CANCEL", "warning", f"{_STEP} count"
    ),
    "job_pause_asked": Record("Somebody paused the job.", "JOB_CONTROL", fields="job_id run status outcome"),
    "job_resume_asked": Record("Somebody resumed the job.", "JOB_CONTROL", fields="job_id run status outcome"),
    "job_rerun_asked": Record("Somebody asked for the next run.", "JOB_CONTROL", fields="job_id run status outcome"),
    "job_delete_asked": Record("Somebody deleted the job.", "JOB_DELETE", fields="job_id outcome status"),
    "job_adjust_asked": Record(
        "Somebody asked for another priority, or another max_parallel of the stage that runs.",
        "JOB_CONTROL",
        fields="job_id run status outcome priority max_parallel",
    ),
    "job_hold_changed": Record("Somebody began or ended a legal hold.", "JOB_HOLD", fields="job_id is_held"),
    "bulk_action_done": Record(
        "Somebody acted on many jobs; each has a record of its own.", "BULK_ACTION", fields="action matched counts"
    ),
    "deadline_passed": Record(
        "A deadline of the stage or job passed; `outcome` names what was ended.",
        "DEADLINE_PASSED",
        "error",
        f"{_STEP} outcome count",
    ),
}

TASKS = {
    "tasks_not_claimed": Record(
        "Tasks of a message were not claimed; `outcomes` has the reasons.", "NOT_CLAIMED", fields=f"{_STEP} outcomes"
    ),
    "task_message_without_rows": Record(
        "A task message names a job or run that is not there.", "NO_ROWS", "warning", "job_id"
    ),
    "task_complete": Record("Tasks completed.", "TASK_COMPLETE", fields=_ATTEMPTS),
    "task_failed": Record("Tasks failed for good.", "TASK_FAILED", fields=_ATTEMPTS),
    "task_came_too_late": Record(
        "Tasks ended after their stage or job had ended; they are cancelled.", "TASK_TOO_LATE", fields=_ATTEMPTS
    ),
    "stale_lease_refused": Record(
        "Results of attempts that no longer have their lease were refused.",
        "STALE_LEASE",
        "warning",
        f"{_STEP} task_ids",
    ),
    "task_attempt_failed": Record(
        "An attempt failed in the author's code, with its traceback.",
        "TASK_ATTEMPT_FAILED",
        "warning",
        f"{_STEP} task_id attempt error_type duration_seconds",
    ),
    "retry_scheduled": Record(
        "Another attempt is due after `delay_seconds`.",
        "RETRY_SCHEDULED",
        "warning",
        f"{_STEP} task_ids task_id attempt duration_seconds outcome delay_seconds",
    ),
    "retry_refused": Record(
        "Another attempt was not scheduled: the attempt no longer has its lease, or the stage has ended.",
        "RETRY_SCHEDULED",
        "warning",
        f"{_STEP} task_ids task_id attempt duration_seconds outcome delay_seconds",
    ),
    "result_refused": Record(
        "The database cannot hold the result of a task, which fails.", level="warning", fields="job_id task_id"
    ),
    "tasks_interrupted": Record(
        "Workers were lost with these tasks; they were taken back.",
        "TASKS_INTERRUPTED",
        "warning",
        f"{_STEP} taken_back given_up timed_out is_last_task_in_stage task_ids",
    ),
    "outcome_not_written": Record(
        "Tasks have ended, and the database took their outcomes not now (`reason`), though it answers; they run again.",
        "OUTCOME_NOT_WRITTEN",
        "warning",
        f"{_STEP} count task_ids reason",
    ),
    "task_runs_alone": Record(
        "The task spent half of its interruptions and runs alone in its process.",
        "TASK_RUNS_ALONE",
        "warning",
        f"{_STEP} task_id",
    ),
    "tasks_postponed": Record(
        "Tasks need a handler that this app does not know; those in `failed` waited too long.",
        "UNKNOWN_WORK",
        "info, error",
        "job_id stage missing count failed",
    ),
    "large_value": Record(
        "A value is larger than the size from which the engine warns.",
        "LARGE_VALUE",
        "warning",
        f"{_STEP} task_id kind count largest_bytes warned_above_bytes",
    ),
    "large_value_not_noted": Record(
        "The same warning could not be added to the timeline.",
        "LARGE_VALUE",
        "warning",
        f"{_STEP} task_id reason",
    ),
    "forked_child_left_handler": Record(
        "A process that an author's code forked returned or raised instead of calling `os._exit`.",
        "FORK",
        "warning",
        "pid parent_pid exit_status reason",
    ),
    "background_call_failed": Record("A call of the engine's own threads failed.", level="error"),
}

WORKERS = {
    "late_call_failed": Record(
        "Results that waited for a slow planner or finalizer could not be written beside it; they are, after it.",
        level="error",
    ),
    "lease_lost": Record(
        "A lease was not renewed: the task was taken back, or its job ended.",
        "LEASE",
        "warning",
        "job_id task_id outcome",
    ),
    "task_timed_out": Record(
        "A lease was not renewed: the attempt ran longer than `task_timeout_seconds`.",
        "LEASE",
        "warning",
        "job_id task_id outcome",
    ),
    "task_not_wanted": Record(
        "A lease was renewed and the task asked to stop: its job is being cancelled.",
        "LEASE",
        "warning",
        "job_id task_id outcome",
    ),
    "lease_renewal_failed": Record("Leases could not be renewed this time.", "LEASE", "warning", "error"),
    "heartbeat_ended": Record(
        "The thread that renews leases met an error; another one begins with the next tasks.", "LEASE", "error"
    ),
    "heartbeat_not_started": Record("The system gave the process no thread for renewals.", "LEASE", "warning", "error"),
    "log_change_refused": Record(
        "An author's code would have silenced a logger of the engine: `change` names what it set, `place` the line.",
        "LOG_CHANGE_REFUSED",
        "warning",
        "logger change place",
    ),
    "lease_stand_in_not_started": Record(
        "The process that renews leases of a blocked worker could not be started.", "LEASE", "warning", "error"
    ),
    "lease_stand_in_ended": Record("That process ended; another one is started.", "LEASE", "warning", "exit_status"),
    "lease_stand_in": Record(
        "The worker is blocked and its leases are renewed by the stand-in (`outcome` renewed), or not (timed_out).",
        level="warning",
        fields="pid outcome tasks",
    ),
    "lease_stand_in_over": Record("The worker runs again.", level="warning", fields="pid seconds"),
    "lease_stand_in_gives_up": Record(
        "The worker was blocked for `COREMACHINE_LEASE_STAND_IN_SECONDS`; its leases end.",
        level="error",
        fields="pid seconds",
    ),
    "lease_stand_in_failed": Record(
        "The stand-in cannot reach the database; it tries again.", level="warning", fields="pid error"
    ),
    "thread_not_started": Record(
        "The system gave the process fewer threads than it asked for.", "THREADS", "warning", "started error"
    ),
    "limits_restored": Record(
        "A handler had lowered limits of its whole process (found); they are as at the start again.",
        "LIMITS",
        "warning",
        "found",
    ),
    "stage_not_counted": Record(
        "The tasks of a large stage could not be counted; the next look at its job tries again.",
        level="error",
        fields="job_id run stage",
    ),
    "memory_limit_not_enforced": Record(
        "A handler declares `memory_limit_mb`, and this system does not show how much memory a process takes.",
        "PROCESSES",
        "warning",
        "reason",
    ),
    "command_killed": Record(
        "A command of a handler (`run_command`) did not end by SIGTERM within its time.",
        "PROCESSES",
        "warning",
        "pid",
    ),
    "too_few_threads": Record(
        "`PYTHON_THREADPOOL_THREAD_COUNT` is too small for this app's functions.", level="warning"
    ),
    "too_few_messages": Record(
        "`maxConcurrentCalls` is below the slots of the host's processes: single-task messages do not use them all.",
        level="warning",
    ),
    "drained": Record("The process is about to end and released its tasks.", "DRAIN", fields="count"),
    "tasks_not_released": Record("Tasks could not be released; their leases end instead.", "DRAIN", "error", "count"),
    "drain_not_started": Record(
        "The system gave no thread to release tasks; the interpreter's end releases them, or their leases end.",
        "DRAIN",
        "warning",
        "error",
    ),
    "drain_failed": Record("The signal to end was not handled completely.", "DRAIN", "error"),
    "drain_without_signal": Record("The app cannot receive the signal to end here.", level="debug", fields="reason"),
}

MESSAGES = {
    "message_received": Record("A message was read.", level="debug", fields="message_id correlation_id delivery_count"),
    "message_fields_not_known": Record(
        "A message has fields that this release does not know.",
        fields="message_id correlation_id delivery_count fields",
    ),
    "submission_fields_not_known": Record(
        "A submission through the jobs queue has fields that this release does not know.",
        "SUBMISSION_FIELDS_NOT_KNOWN",
        "warning",
        "message_id correlation_id delivery_count fields hint",
    ),
    "message_kept": Record(
        "A message stays with its queue, since the database or a queue cannot be reached or the app ends.",
        "MESSAGE_KEPT",
        "debug, warning",
        "message_id correlation_id delivery_count reason pause_seconds",
    ),
    "message_postponed": Record(
        "A message that this release does not know, or whose job type has too many submissions that hang "
        "(`SUBMISSION_HANGS`), was sent again, for later.",
        "UNKNOWN_WORK",
        fields="queue reason times",
    ),
    "message_passed_on": Record(
        "A message met a process in which a task or a step runs alone, and went back to its queue, for another one.",
        "RUNS_ALONE",
        fields="queue times",
    ),
    "message_given_up": Record(
        "Such a message waited too long and became a dead letter.",
        "UNKNOWN_WORK",
        "error",
        "queue reason times",
    ),
    "message_not_confirmed": Record(
        "A queue did not confirm a message; the janitor sends it again.",
        "MESSAGE_NOT_CONFIRMED",
        "warning, error",
        "job_id queue reason",
    ),
    "message_dead_lettered": Record(
        "A queue gave up a message, which is now kept as a dead letter.",
        "DEAD_LETTER",
        "warning",
        "queue message_id job_id stage reason description is_known released",
    ),
    "dead_letter_kept": Record(
        "A dead message could not be stored yet and stays with its queue.",
        "MESSAGE_KEPT",
        "debug, warning",
        "queue message_id reason pause_seconds",
    ),
    "dead_letters_redriven": Record("Somebody sent dead messages again.", "REDRIVE", fields="sent not_sent actor"),
    "sender_not_opened": Record("A link to a queue could not be opened in advance.", fields="queue reason"),
    "service_bus_reconnect": Record(
        "A link to Service Bus is opened again.", level="warning", fields="queue error_type"
    ),
    "service_bus_not_closed": Record("A link could not be closed.", level="warning", fields="queue error"),
    "queue_not_seen_through": Record(
        "A queue was not searched to its end for lost messages.", fields="queue next_sequence_number"
    ),
    "queue_check_failed": Record("A queue's readiness could not be checked.", level="warning", fields="queue reason"),
}

APP = {
    "token_not_renewed": Record(
        "The token for the database could not be renewed (`reason`); the present one is used while it lives.",
        "TOKEN",
        "warning",
        "reason",
    ),
    "telemetry_started": Record(
        "Spans, measures and records go to these OpenTelemetry exporters from now on, or to those `present`.",
        "TELEMETRY",
        fields="traces metrics logs",
    ),
    "telemetry_not_started": Record(
        "What the variables for OpenTelemetry ask for cannot be used: `reason`. The app works without it.",
        "TELEMETRY",
        "error",
        "reason",
    ),
    "telemetry_failed": Record(
        "A report to OpenTelemetry failed (`operation`). What it was about is done.",
        "TELEMETRY",
        "warning",
        "operation error",
    ),
    "telemetry_not_flushed": Record(
        "The process ends, and these signals were not sent within three seconds: the collector is slow or away.",
        "TELEMETRY",
        "warning",
        "signals",
    ),
    "janitor_swept": Record(
        "A sweep ended; one more field per kind of repair counts it. Warning where there was something to repair.",
        "JANITOR",
        "debug, warning",
        "errors duration_seconds",
    ),
    "schedule_not_decided": Record(
        "What becomes of a schedule's due ticks could not be decided; the next sweep tries again.",
        level="error",
        fields="schedule",
    ),
    "webhook_not_delivered": Record(
        "An attempt to send a delivery failed. `status` is pending, and it is sent again, or dead.",
        level="warning",
        fields="webhook delivery_id attempt status reason",
    ),
    "webhook_delivery_broken": Record(
        "Sending a delivery met an error that is not the receiver's; it is retried.",
        level="error",
        fields="webhook",
    ),
    "webhook_reason_not_found": Record(
        "Why a stalled job does not move could not be found out; its event is sent without the reason.",
        level="error",
        fields="job_id",
    ),
    "webhook_sender_not_started": Record(
        "The system gave no thread to send webhooks; the next sweep tries again.", level="warning", fields="error"
    ),
    "webhook_sender_ended": Record(
        "The sender of webhooks met an error; the next sweep starts it again.", level="error"
    ),
    "tick_not_submitted": Record(
        "A schedule's tick got no job, or not yet; `coremachine schedules explain` has the reason.",
        level="warning",
        fields="schedule tick_at reason detail attempt",
    ),
    "tick_submission_failed": Record(
        "Submitting a tick's job met an error that is not its fault; it is retried.",
        level="error",
        fields="schedule",
    ),
    "process_broken": Record(
        "A job's code replaced what all of this process needs (`changed`), so that the engine fails in it. It ends; "
        "another takes its place.",
        "PROCESS_BROKEN",
        "error",
        "changed error",
    ),
    "lock_holders_not_found": Record(
        "All connections are in use, and the session that they may wait for could not be looked for.",
        "",
        "info",
        "reason",
    ),
    "clock_was_ahead": Record(
        "The database's clock had been ahead: leases and due times beyond what they can be begin anew. Look at the "
        "time service of its server.",
        "JANITOR",
        "warning",
        "count",
    ),
    "job_not_pruned": Record(
        "The database refuses to delete an old job, as for a foreign key of another table; the others are deleted.",
        "PRUNE",
        "warning",
        "job_id reason",
    ),
    "janitor_row_failed": Record(
        "The database refused what a sweep does to one job or stage; the others were looked after.",
        "JANITOR",
        "error",
        "operation job_id run stage",
    ),
    "janitor_step_failed": Record("A step of a sweep failed; the others went on.", "JANITOR", "error", "operation"),
    "sweep_ended": Record(
        "The timer function of the janitor ended.",
        "SWEEP",
        fields="past_due repairs failed_steps latest_tick_seconds duration_seconds",
    ),
    "database_away": Record(
        "The database cannot be reached; once a minute, with the number of failures.",
        "DATABASE_AWAY",
        "warning",
        "reason failures outage_seconds",
    ),
    "database_back": Record("The database answers again.", "DATABASE_BACK", fields="failures outage_seconds"),
    "called_again": Record(
        "A statement was repeated after a serialization failure or deadlock.", fields="operation reason"
    ),
    "called_over_another_connection": Record(
        "A statement was repeated over a new connection.", fields="operation reason"
    ),
    "not_as_expected": Record("A precondition of a statement did not hold.", fields="operation reason"),
    "operation_failed": Record(
        "An operation of the engine failed, with its traceback.",
        level="error",
        fields="operation job_id stage task_id error_type contract_violation",
    ),
    "nested_error": Record(
        "While one error was handled, another one happened.",
        level="error",
        fields="nested_error operation primary_error primary_error_type cleanup_error cleanup_error_type job_id "
        "stage task_id",
    ),
    "schema_migrated": Record("Migrations were applied.", "SCHEMA_MIGRATED", fields="schema applied"),
    "schema_newer_than_code": Record(
        "The database has migrations of a newer release.", "SCHEMA_NEWER", "warning", "schema"
    ),
    "migration_waits": Record("A migration waits for a lock.", "MIGRATION_WAITS", "warning", "attempt"),
    "function_dropped": Record("A function of an older release was dropped.", "FUNCTION_DROPPED", fields="function"),
    "services_not_ready": Record("The app cannot work as it is set up.", "SERVICES_NOT_READY", "error"),
    "database_has_triggers": Record(
        "Triggers of others on the engine's tables may leave changes out, or some of its own are disabled: once, with "
        "what to do.",
        level="warning",
        fields="reason",
    ),
    "database_not_ready": Record("The database does not suit this app yet.", level="warning", fields="reason"),
    "app_misconfigured": Record("A setting cannot be used; the app serves HTTP alone to report it.", level="error"),
    "request_refused": Record("A request was answered with 503.", level="debug, warning", fields="path code reason"),
    "request_failed": Record("A request was answered with 500.", level="error", fields="method path"),
    "request_unreadable": Record("A request's address or headers cannot be read.", level="error", fields="method"),
    "work_without_app": Record(
        "Work waits that no live app can take: once for each queue and task type, until it is over.",
        "FLEET",
        "warning",
        "queue task_type problem reason",
    ),
    "work_has_app_again": Record("What `work_without_app` reported is over.", "FLEET", fields="queue task_type"),
    "task_route_not_used": Record(
        "COREMACHINE_TASK_ROUTES names a task type that no job or handler of this app has.",
        level="warning",
        fields="task_type queue",
    ),
    "queues_not_looked_at": Record(
        "The system gave no thread to look at the queues; what was found before stays.", level="warning", fields="error"
    ),
    "presence_not_started": Record(
        "The system gave no thread, so that the other apps do not see this process.", level="warning", fields="error"
    ),
    "presence_not_registered": Record(
        "This process could not register itself; it tries again.", level="warning", fields="reason"
    ),
    "end_not_registered": Record(
        "This process could not write that it ends; it counts as silent after a minute.", fields="reason"
    ),
    "job_type_failed": Record("A job type's own code failed during a request.", level="error", fields="path code"),
    "wait_given_up": Record("A request stopped waiting for a job to end.", level="warning", fields="job_id reason"),
    "resource_not_checked": Record(
        "A resource validator had no answer in time; the submission is accepted.",
        level="warning",
        fields="parameter reason",
    ),
    "resource_validator_failed": Record(
        "A resource validator raised something else than it may.", level="warning", fields="parameter validator"
    ),
    "parameter_validator_failed": Record(
        "A validator of a job type's pydantic model raised something else than it may; the parameters are refused.",
        level="warning",
        fields="model",
    ),
}

GROUPS = {
    "Jobs and stages": JOBS,
    "Tasks": TASKS,
    "Worker processes": WORKERS,
    "Messages and queues": MESSAGES,
    "App, database and HTTP": APP,
}
RECORDS = {name: record for group in GROUPS.values() for name, record in group.items()}
