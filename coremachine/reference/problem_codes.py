"""The codes of the HTTP API's errors, with their meanings. A test holds the table against the code."""

from coremachine.reference.markdown import code, page, table

_INTRODUCTION = """
Each answer from 400 up is a problem document (`application/problem+json`, RFC 9457). Decide by `code`, which stays the
same; `detail` is for people and may change. `errors` lists the single things that are wrong with a request.
The preview page of a job type may have codes of its own; that job type's page lists them.
"""

# Status and meaning by code.
CODES = {
    "invalid_request": ("400", "The path, the query, a header or the body has a wrong value or an unknown name."),
    "invalid_parameters": ("400", "The job's parameters do not fit its schema, or a resource validator refused them."),
    "malformed_request": ("400", "The request's address or headers cannot be read."),
    "no_role": ("401", "Roles are set up, and the caller has none: its key is missing or wrong, or nobody signed in."),
    "role_too_low": ("403", "The caller's role does not allow this request."),
    "foreign_origin": ("403", "A change on the dashboard that no page of this app asked for; programs use the API."),
    "not_found": ("404", "There is nothing at this address."),
    "unknown_job": ("404", "There is no job with this id."),
    "unknown_job_type": ("404", "This app does not know the job type."),
    "unknown_task": ("404", "The job has no such task in this run."),
    "unknown_run": ("404", "The job has no such run."),
    "unknown_dead_letter": ("404", "There is no such dead letter."),
    "unknown_schedule": ("404", "There is no schedule of this name."),
    "unknown_webhook": ("404", "There is no webhook of this name."),
    "unknown_delivery": ("404", "The webhook has no such delivery."),
    "unknown_limit": ("404", "There is no limit of this name now, or nobody has chosen numbers for it."),
    "no_preview": ("404", "Jobs of this type have no preview."),
    "method_not_allowed": ("405", "The address does not support this method; `Allow` lists those that it does."),
    "job_is_there": ("409", "`if_ended=fail`: the job of these parameters has ended or is being cancelled."),
    "other_parameters": ("409", "A rerun gave the job of this submission other parameters; see `run_url`."),
    "job_has_ended": ("409", "The job has ended; it can only be rerun."),
    "job_has_not_ended": ("409", "A rerun or a deletion needs a job that has ended."),
    "job_is_cancelling": ("409", "The job is being cancelled."),
    "job_status_not_known": ("409", "A newer release gave the job a status that this one does not know."),
    "other_stage": ("409", "The job is not at the stage that was named; look at the job again."),
    "nothing_waits": ("409", "`max_parallel`: no task of the job's present stage waits in line."),
    "other_run": ("409", "`expected_run` is not the job's current run; look at the job again."),
    "nothing_failed": ("409", "Rerun of what failed: no task of the last run failed."),
    "pruned": ("409", "Rerun: retention deleted rows of the job, so no result can be kept; use mode `all`."),
    "stage_not_reached": ("409", "Rerun from a stage: the stages before it have not all completed."),
    "job_is_held": ("409", "The job is under a legal hold and is not deleted."),
    "more_jobs_match": ("409", "More jobs match than `confirm` names; nothing was done."),
    "unknown_work": ("409", "The job type needs a task type or queue that this app does not know."),
    "nothing_to_rewind": ("409", "Rewind: the job has not ended, or no task of it failed."),
    "schedule_changed": ("409", "Others changed the schedule at the same time; send the request again."),
    "tick_failed": ("409", "Run now: no job was made; the detail has the reason."),
    "webhook_setting": ("409", "An app setting that the webhook needs is missing or wrong; the detail names it."),
    "webhook_deleted": ("409", "The webhook was deleted at the same time; send the request again."),
    "secret_in_setting": ("409", "The webhook's secret is in an app setting: change it there."),
    "instance_has_ended": ("410", "For clients of Durable Functions: the job has ended."),
    "length_required": ("411", "A body was announced without a length, and none arrived."),
    "body_too_large": ("413", "The body is larger than 1 MiB, that of many submissions than 8 MiB."),
    "unsupported_media_type": ("415", "The body is not JSON in UTF-8, or the headers say something else."),
    "idempotency_key_reused": ("422", "The `Idempotency-Key` came before with another content."),
    "request_refused": ("4xx", "The web framework refused the request."),
    "internal_error": ("500", "An error that is not the request's fault; the log has the trace."),
    "job_type_failed": ("500", "The job type's own code failed; nothing was written."),
    "app_not_ready": ("503", "The app cannot work as it is set up; the detail names the setting."),
    "database_unavailable": (
        "503",
        "The database cannot be reached, or all connections to it are in use; `Retry-After` is when to ask again.",
    ),
    "job_type_busy": (
        "503",
        "All threads that submissions of this job type may take run its code: its validation takes long or hangs.",
    ),
    "validation_hangs": ("504", "The job type's own validation lasts too long; nothing was written."),
    "database_unsuitable": ("503", "The database answers, but not as the app needs it."),
    "queue_unavailable": ("503", "A queue cannot be reached; repeating the request does no harm."),
}


def render() -> str:
    rows = ([code(name), status, meaning] for name, (status, meaning) in CODES.items())
    source = "`coremachine/reference/problem_codes.py`"
    return page("Problem codes", source, _INTRODUCTION, table(["code", "status", "meaning"], rows))
