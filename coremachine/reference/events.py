"""The events of a job's timeline, with their meanings. A test holds the table against what the code records."""

from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
`GET /api/jobs/{job_id}/events` and `coremachine events` show a job's timeline, the oldest event first. Each event has
`event`, `at`, `run`, perhaps `stage` and `task_id`, and a `detail` whose keys depend on the event.
"""

EVENTS = {
    "job_submitted": "The job was written. `forced_from`: the job of the same parameters beside which it was made.",
    "job_rerun": "The next run began, with `mode`, `from_run`, `kept_count`, `fresh_count`, `reason`, `actor` and "
    "`parameters`.",
    "job_completed": "All stages completed and the job's result was stored.",
    "job_completed_with_errors": "As `job_completed`, with failed tasks that the stages' failure policies permit.",
    "job_failed": "The job failed; the detail is the error.",
    "job_cancelled": "The job ended after a cancel.",
    "job_paused": "Nothing new of the job begins until it is resumed (`reason`, `actor`).",
    "job_resumed": "The job goes on (`reason`, `actor`, `paused_seconds`).",
    "job_adjusted": "Somebody changed `priority`, or `max_parallel` of the stage (`reason`, `actor`).",
    "job_step_retry_scheduled": "Planning a stage or finalizing the job failed and is repeated after `delay_seconds`; "
    "the detail is the error with `attempt`.",
    "job_step_interrupted": "A process (`owner`) was lost while it planned a stage or finalized the job. No attempt is "
    "counted; `interruptions` is.",
    "job_step_runs_alone": "Planning the stage, or finalizing the job, spent half of its interruptions and now runs "
    "alone in its worker process.",
    "job_step_not_written": "The stage was planned, or the summary made, and the database refused to write that "
    "(`step`, `reason`). The message comes again; the same reason is noted once in a minute.",
    "job_waits_for_release": "The job's next step needs a job type or stage that this app does not know; it waits for "
    "an app that does.",
    "tasks_wait_for_release": "Tasks (`count`) need a handler that this app does not know; they wait for an app that "
    "does. `task_id` is the first of them.",
    "stage_planned": "All tasks of the stage are written (`expected_count`).",
    "stage_completed": "All tasks of the stage completed.",
    "stage_completed_with_errors": "All tasks of the stage ended; some failed, and its failure policy permits that.",
    "retry_scheduled": "An attempt failed or ran too long and the task is attempted again after `delay_seconds`; the "
    "detail is the error, whose `attempt` counts interrupted ones too.",
    "task_failed": "The task failed; the detail is the error.",
    "task_interrupted": "A worker (`owner`) was lost with the task, or lost its lease. The attempt does not count; "
    "`interruptions` does.",
    "outcome_not_written": "The task had ended, and the database did not take its outcome (`reason`). It counts as an "
    "interruption when its lease runs out.",
    "task_runs_alone": "The task spent half of its interruptions and now runs alone in its worker process.",
    "tasks_released": "A process that is about to end released `count` tasks that it had begun; each of them is "
    "an interruption.",
    "large_value": "A result, a set of parameters or a summary is larger than the size from which the engine warns "
    "(`kind`, `count`, `largest_bytes`, `warned_above_bytes`).",
    "cancel_requested": "Somebody cancelled the job (`reason`, `actor`, `grace_seconds`).",
    "cancel_forced": "The grace time of a cancel passed; `count` tasks that still ran were cancelled.",
    "job_held": "Somebody put the job under a legal hold (`reason`, `actor`): it is not deleted.",
    "job_released": "Somebody ended the legal hold of the job (`reason`, `actor`).",
    "pruning_begun": "Retention, or somebody, began to delete the rows of the job.",
    "message_dead_lettered": "A queue gave up a message about this job (`dead_letter_id`, `queue`, `reason`).",
    "dead_letter_redriven": "Somebody sent a dead message again (`dead_letter_id`, `queue`, `actor`).",
    "dead_letter_obsolete": "A dead message was closed without being sent: its rows had changed.",
    "janitor_announced_tasks": "The janitor sent messages for `count` tasks that had none (`reason`: not_confirmed, "
    "when no message of theirs was confirmed since they became due, also after a lease had run out; lost, when the "
    "queue no longer had it; parked, after a pause).",
    "janitor_announced_job": "The janitor sent the message for the job's next step (`reason`: not_confirmed or lost, "
    "as for tasks; moved, when the janitor itself had moved the job on).",
    "janitor_closed_stage": "The janitor ended a stage whose tasks had all ended.",
    "janitor_advanced_job": "The janitor moved the job to its next stage, which the last task had not done.",
}


def render() -> str:
    rows = ([code(name), meaning] for name, meaning in EVENTS.items())
    source = "`coremachine/reference/events.py`"
    return page("Timeline events", source, _INTRODUCTION, table(["event", "meaning and detail"], rows))
