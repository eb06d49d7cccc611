"""The operations of the API as calls: one function per operation, with its name and the names of its parameters.

`Client` and `AsyncClient` have each as a method. A test compares them with the OpenAPI document.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from coremachine.client.call import TIMEOUT_SECONDS, Call, body_of, header_of, path_of, query_of

if TYPE_CHECKING:  # the models are imported for the first answer that becomes one
    from coremachine.client import models

Json = Mapping[str, Any]
Texts = str | Iterable[str]
Moment = datetime | str

# An operation whose answer depends on a parameter is one function per answer; `explain_schedule` has a shorter name.
VARIANTS: Mapping[str, str] = {
    "draft_job": "submit_job",
    "group_failures": "list_failures",
    "group_dead_letters": "list_dead_letters",
    "explain_schedule": "explain_schedule_by_name",
}
# A thousand submissions, or an action on a thousand jobs; Azure's front ends cut what takes longer.
_LONG_SECONDS = 230.0
_SAFE_WISHES = (None, "return")


def submit_job(
    job_type: str,
    parameters: Json | None = None,
    *,
    force: bool | None = None,
    if_ended: str | None = None,
    tag: Texts | None = None,
    start_at: Moment | None = None,
    priority: str | None = None,
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    wait: float | None = None,
) -> "Call[models.SubmittedJob]":
    """Submit a job. The same parameters give the same job, so that a submission is repeated where no answer came.

    Args:
        parameters: Those of the job type, as JSON values.
        force: A new job, even if one of the same parameters is there. Repeated only with an `idempotency_key`.
        if_ended: return, rerun, force or fail: what is wanted where the job does not run with these parameters.
        tag: `name=value`, one or several.
        priority: high, normal or low, in place of its job type's.
        idempotency_key: The same key again gives the same job.
        wait: Seconds, at most 30, that the answer may wait for the job's end; then its `job` has the whole job.
    """
    headers = {
        "Idempotency-Key": idempotency_key and header_of("idempotency_key", idempotency_key),
        "x-correlation-id": correlation_id and header_of("correlation_id", correlation_id),
        "Prefer": None if wait is None else f"wait={wait:g}",
    }
    return Call(
        "POST",
        path_of("jobs", "submit", job_type),
        "SubmittedJob",
        query=query_of(force=force or None, if_ended=if_ended, tag=tag, start_at=start_at, priority=priority),
        body=_parameters_of(parameters),
        headers={name: value for name, value in headers.items() if value},
        repeats=_is_repeatable(force=force, if_ended=if_ended, idempotency_key=idempotency_key),
        timeout_seconds=TIMEOUT_SECONDS + (wait or 0.0),
    )


def _parameters_of(given: Json | None) -> Json:
    parameters: Json = body_of(parameters=given or {})["parameters"]
    return parameters


def draft_job(
    job_type: str,
    parameters: Json | None = None,
    *,
    force: bool | None = None,
    if_ended: str | None = None,
    tag: Texts | None = None,
    start_at: Moment | None = None,
    priority: str | None = None,
) -> "Call[models.DraftAnswer]":
    """What a submission would write, with the tasks of its first stage; nothing is written."""
    wishes = {"if_ended": if_ended, "tag": tag, "start_at": start_at, "priority": priority}
    query = query_of(force=force or None, **wishes, dry_run=True)
    path = path_of("jobs", "submit", job_type)
    return Call("POST", path, "DraftAnswer", query=query, body=_parameters_of(parameters), repeats=True)


def submit_batch(jobs: Sequence[Json]) -> "Call[models.BatchAnswer]":
    """Submit up to 1,000 jobs: an outcome for each, in their order.

    Args:
        jobs: Each has job_type, and may have parameters, tags, force, if_ended, idempotency_key, correlation_id,
            start_at and priority.
    """
    repeats = all(
        _is_repeatable(force=job.get("force"), if_ended=job.get("if_ended"), idempotency_key=job.get("idempotency_key"))
        for job in jobs
    )
    body = body_of(jobs=list(jobs))
    return Call("POST", "jobs/submit:batch", "BatchAnswer", body=body, repeats=repeats, timeout_seconds=_LONG_SECONDS)


def get_submission_schema() -> "Call[dict[str, Any]]":
    """The JSON Schema of a message that submits a job through the jobs queue."""
    return _get("messages/submission", "dict")


def get_job(job_id: str, *, wait: float | None = None) -> "Call[models.JobAnswer]":
    """A job with its stages.

    Args:
        wait: Seconds, at most 30, that the answer may wait for the job's end.
    """
    query, timeout = query_of(wait=wait or None), TIMEOUT_SECONDS + (wait or 0.0)
    return Call("GET", path_of("jobs", job_id), "JobAnswer", query=query, repeats=True, timeout_seconds=timeout)


def list_jobs(
    *,
    job_id: str | None = None,
    status: Texts | None = None,
    job_type: Texts | None = None,
    paused: bool | None = None,
    held: bool | None = None,
    tag: Texts | None = None,
    correlation_id: str | None = None,
    error: str | None = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    sort: str | None = None,
    reasons: bool | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.JobListItem]]":
    """Jobs, the newest first. What several parameters ask for counts together.

    Args:
        job_id: The id, or its beginning.
        status: One or several: any of them. So with `job_type`.
        tag: `team=geo`, or `team` for any value of it; several: all of them.
        error: A part of the error's type or message, in any case.
        sort: Newest first, if left out.
        reasons: With why each job waits or failed.
        limit: The number per page, at most 1,000.
    """
    query = query_of(
        job_id=job_id,
        status=status,
        job_type=job_type,
        paused=paused,
        held=held,
        tag=tag,
        correlation_id=correlation_id,
        error=error,
        created_after=created_after,
        created_before=created_before,
        sort=sort,
        reasons=reasons,
        limit=limit,
        cursor=cursor,
    )
    return _list("jobs", "JobListItem", query)


def list_tasks(
    job_id: str,
    *,
    run: int | None = None,
    stage: int | None = None,
    status: Texts | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.TaskSummary]]":
    """The tasks of one run of a job (the current one, if left out), by stage and index."""
    query = query_of(run=run, stage=stage, status=status, limit=limit, cursor=cursor)
    return _list(path_of("jobs", job_id, "tasks"), "TaskSummary", query)


def get_task(job_id: str, task_id: str, *, run: int | None = None) -> "Call[models.TaskSummary]":
    """One task, with its parameters, result and error whole."""
    return _get(path_of("jobs", job_id, "tasks", task_id), "TaskSummary", query_of(run=run))


def list_runs(job_id: str) -> "Call[models.Page[models.JobRun]]":
    """The runs of a job, the latest first."""
    return _list(path_of("jobs", job_id, "runs"), "JobRun")


def get_run(job_id: str, run: int) -> "Call[models.JobRun]":
    """One run of a job, with its parameters, result and error whole."""
    return _get(path_of("jobs", job_id, "runs", str(run)), "JobRun")


def list_events(
    job_id: str, *, limit: int | None = None, cursor: str | None = None, wait: float | None = None
) -> "Call[models.Page[models.JobEvent]]":
    """A job's timeline: transitions, failures, retries, interruptions, what operators did.

    Args:
        wait: Seconds, at most 30, that the answer may wait for an event after the cursor.
    """
    query = query_of(limit=limit, cursor=cursor, wait=wait)
    timeout = TIMEOUT_SECONDS + (wait or 0.0)
    path = path_of("jobs", job_id, "events")
    return Call("GET", path, "JobEvent", query=query, is_page=True, repeats=True, timeout_seconds=timeout)


def list_logs(
    job_id: str,
    *,
    task_id: str | None = None,
    run: int | None = None,
    after: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.JobEvent]]":
    """Attempts that did not succeed, the oldest first, with the last lines of each in `detail`.

    Args:
        after: An `event_id`: only what came later.
    """
    query = query_of(task_id=task_id, run=run, after=after, limit=limit, cursor=cursor)
    return _list(path_of("jobs", job_id, "logs"), "JobEvent", query)


def explain_job(job_id: str) -> "Call[models.Explanation]":
    """Why a job does not move, the most telling first."""
    return _get(path_of("jobs", job_id, "explain"), "Explanation")


def list_job_types() -> "Call[models.Page[models.JobTypeDetail]]":
    """The job types of the app, each with the JSON Schema of its parameters."""
    return _list("job-types", "JobTypeDetail")


def cancel_job(
    job_id: str, *, reason: str | None = None, cancel_grace_seconds: float | None = None
) -> "Call[models.CancelledJob]":
    """Cancel a job.

    Args:
        cancel_grace_seconds: What tasks that run get to stop; 0: nothing.
    """
    body = body_of(reason=reason, cancel_grace_seconds=cancel_grace_seconds)
    return _act(path_of("jobs", job_id, "cancel"), "CancelledJob", body)


def pause_job(job_id: str, *, reason: str | None = None) -> "Call[models.JobActionAnswer]":
    """Begin no more of a job's tasks; those that run end as they would."""
    return _act(path_of("jobs", job_id, "pause"), "JobActionAnswer", body_of(reason=reason))


def resume_job(job_id: str, *, reason: str | None = None) -> "Call[models.JobActionAnswer]":
    """Let a paused job go on."""
    return _act(path_of("jobs", job_id, "resume"), "JobActionAnswer", body_of(reason=reason))


def rerun_job(
    job_id: str,
    *,
    mode: str | None = None,
    from_stage: int | None = None,
    parameters: Json | None = None,
    expected_run: int | None = None,
    reason: str | None = None,
) -> "Call[models.RerunAnswer]":
    """Run a job that has ended once more, under the same id.

    Args:
        mode: failed (what did not complete; the default), from_stage or all.
        parameters: Take the place of those of the last run; the others stay.
        expected_run: The run that you have seen; `Conflict` if the job is in another one.
    """
    body = body_of(mode=mode, from_stage=from_stage, parameters=parameters, expected_run=expected_run, reason=reason)
    return _act(path_of("jobs", job_id, "rerun"), "RerunAnswer", body)


def adjust_job(
    job_id: str,
    *,
    priority: str | None = None,
    max_parallel: int | str | None = None,
    stage: int | None = None,
    reason: str | None = None,
) -> "Call[models.AdjustedJob]":
    """Change a job's priority, or how many tasks of its present stage run at a time, while it runs.

    Args:
        priority: high, normal or low.
        max_parallel: A number, or "none" for any number.
        stage: The stage that you mean with it; `Conflict` if the job is at another one.
    """
    body = body_of(priority=priority, max_parallel=max_parallel, stage=stage, reason=reason)
    return Call("PATCH", path_of("jobs", job_id), "AdjustedJob", body=body)


def hold_job(job_id: str, *, reason: str | None = None) -> "Call[models.HeldJob]":
    """Put a job under a legal hold: neither retention nor people delete it."""
    return _act(path_of("jobs", job_id, "hold"), "HeldJob", body_of(reason=reason))


def release_job(job_id: str, *, reason: str | None = None) -> "Call[models.HeldJob]":
    """End a job's legal hold."""
    return _act(path_of("jobs", job_id, "release"), "HeldJob", body_of(reason=reason))


def delete_job(job_id: str, *, reason: str | None = None) -> "Call[models.DeletedJob]":
    """Delete a job that has ended. Send it again while the outcome is `deleting`: a part of a large job is left."""
    path, query = path_of("jobs", job_id), query_of(reason=reason)
    return Call("DELETE", path, "DeletedJob", query=query, timeout_seconds=_LONG_SECONDS)


def act_on_jobs(
    action: str,
    filter: Json,  # noqa: A002 - the API's name
    *,
    reason: str | None = None,
    confirm: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    cancel_grace_seconds: float | None = None,
) -> "Call[models.BulkAnswer]":
    """Cancel, pause, resume, retry, rerun or delete all jobs of a filter. Without `confirm` they are only counted.

    Args:
        filter: job_id, status, job_type (lists), paused, tags, correlation_id, error, created_after, created_before.
            `{}` is all jobs.
        confirm: The count that was seen; nothing is done if more match.
        cursor: `next_cursor` of the request before, to go on after it; `confirm` is then its `remaining`.
    """
    body = body_of(
        action=action,
        filter=filter,
        reason=reason,
        confirm=confirm,
        limit=limit,
        cursor=cursor,
        cancel_grace_seconds=cancel_grace_seconds,
    )
    is_dry = confirm is None
    return Call("POST", "jobs/bulk", "BulkAnswer", body=body, repeats=is_dry, timeout_seconds=_LONG_SECONDS)


def list_audit(
    *,
    job_id: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.AuditEntry]]":
    """The audit log: actor, action, job and reason, the latest first."""
    return _list("audit", "AuditEntry", query_of(job_id=job_id, actor=actor, action=action, limit=limit, cursor=cursor))


def list_failures(
    *,
    job_id: str | None = None,
    job_type: str | None = None,
    fingerprint: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.FailedTaskSummary]]":
    """Failed tasks, one by one."""
    query = query_of(job_id=job_id, job_type=job_type, fingerprint=fingerprint, group=False, limit=limit, cursor=cursor)
    return _list("failures", "FailedTaskSummary", query)


def group_failures(
    *, job_id: str | None = None, job_type: str | None = None, limit: int | None = None
) -> "Call[models.Page[models.FailureGroup]]":
    """Failed tasks, grouped by what went wrong: the largest groups, on one page."""
    return _list("failures", "FailureGroup", query_of(job_id=job_id, job_type=job_type, group=True, limit=limit))


def list_dead_letters(
    *,
    queue: str | None = None,
    job_id: str | None = None,
    fingerprint: str | None = None,
    resolved: bool | str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.DeadLetterSummary]]":
    """Messages that their queue gave up, the newest first.

    Args:
        resolved: True: those that were dealt with; "all": both. Others alone, if left out.
    """
    query = query_of(queue=queue, job_id=job_id, fingerprint=fingerprint, resolved=resolved, limit=limit, cursor=cursor)
    return _list("dead-letters", "DeadLetterSummary", query)


def group_dead_letters(
    *,
    queue: str | None = None,
    job_id: str | None = None,
    resolved: bool | str | None = None,
    limit: int | None = None,
) -> "Call[models.Page[models.DeadLetterGroup]]":
    """The same, grouped by what they died of."""
    query = query_of(queue=queue, job_id=job_id, resolved=resolved, limit=limit, group=True)
    return _list("dead-letters", "DeadLetterGroup", query)


def get_dead_letter(dead_letter_id: int) -> "Call[models.DeadLetterDetail]":
    """One dead message with its body."""
    return _get(path_of("dead-letters", str(dead_letter_id)), "DeadLetterDetail")


def redrive_dead_letters(
    *,
    ids: Sequence[int] | None = None,
    fingerprint: str | None = None,
    queue: str | None = None,
    job_id: str | None = None,
    dry_run: bool | None = None,
    limit: int | None = None,
) -> "Call[models.RedriveAnswer]":
    """Send dead messages again: those that fit all that is given."""
    ids = None if ids is None else list(ids)
    body = body_of(ids=ids, fingerprint=fingerprint, queue=queue, job_id=job_id, dry_run=dry_run, limit=limit)
    return Call("POST", "dead-letters/redrive", "RedriveAnswer", body=body, repeats=bool(dry_run))


def list_schedules(
    *,
    job_type: str | None = None,
    paused: bool | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.ScheduleAnswer]]":
    """Schedules by name, each with its next tick."""
    query = query_of(job_type=job_type, paused=paused, limit=limit, cursor=cursor)
    return _list("schedules", "ScheduleAnswer", query)


def get_schedule(name: str) -> "Call[models.ScheduleAnswer]":
    """One schedule."""
    return _get(path_of("schedules", name), "ScheduleAnswer")


def put_schedule(
    name: str,
    job_type: str,
    cron: str,
    *,
    parameters: Json | None = None,
    time_zone: str | None = None,
    catch_up: str | None = None,
    overlap: str | None = None,
    starts_at: Moment | None = None,
    ends_at: Moment | None = None,
    description: str | None = None,
) -> "Call[models.WrittenSchedule]":
    """Write a schedule, or replace the one of this name. A pause stays; what is left out has its default.

    Args:
        cron: Minute, hour, day of month, month, day of week.
        time_zone: IANA name; UTC, if left out.
        catch_up: skip, latest or all: what becomes of ticks that were missed.
        overlap: skip, wait or allow: a tick while a job of the schedule is open.
    """
    body = body_of(
        job_type=job_type,
        cron=cron,
        parameters=parameters,
        time_zone=time_zone,
        catch_up=catch_up,
        overlap=overlap,
        starts_at=starts_at,
        ends_at=ends_at,
        description=description,
    )
    return Call("PUT", path_of("schedules", name), "WrittenSchedule", body=body)


def delete_schedule(name: str) -> "Call[models.DeletedSchedule]":
    """Delete a schedule and what is known of its ticks; its jobs stay."""
    return Call("DELETE", path_of("schedules", name), "DeletedSchedule")


def pause_schedule(name: str, *, reason: str | None = None) -> "Call[models.ScheduleAnswer]":
    """Submit nothing at its ticks until it is resumed."""
    return _act(path_of("schedules", name, "pause"), "ScheduleAnswer", body_of(reason=reason) or None)


def resume_schedule(name: str, *, reason: str | None = None) -> "Call[models.ScheduleAnswer]":
    """Go on with the next tick; those that passed are skipped."""
    return _act(path_of("schedules", name, "resume"), "ScheduleAnswer", body_of(reason=reason) or None)


def run_schedule(name: str) -> "Call[models.ScheduleTick]":
    """Submit a job now, as if a tick were due."""
    return Call("POST", path_of("schedules", name, "run"), "ScheduleTick")


def list_ticks(
    name: str, *, status: str | None = None, limit: int | None = None, cursor: str | None = None
) -> "Call[models.Page[models.ScheduleTick]]":
    """What became of a schedule's ticks, the latest first."""
    query = query_of(status=status, limit=limit, cursor=cursor)
    return _list(path_of("schedules", name, "ticks"), "ScheduleTick", query)


def list_next_ticks(name: str, *, count: int | None = None) -> "Call[models.Page[datetime]]":
    """The next times of a schedule, in its zone."""
    return _list(path_of("schedules", name, "next"), "datetime", query_of(count=count))


def explain_schedule(name: str) -> "Call[models.ScheduleExplanation]":
    """Why a schedule submits nothing."""
    return _get(path_of("schedules", name, "explain"), "ScheduleExplanation")


def list_webhooks(*, limit: int | None = None, cursor: str | None = None) -> "Call[models.Page[models.WebhookAnswer]]":
    """Webhooks by name, without their secrets."""
    return _list("webhooks", "WebhookAnswer", query_of(limit=limit, cursor=cursor))


def get_webhook(name: str) -> "Call[models.WebhookAnswer]":
    """One webhook, without its secret."""
    return _get(path_of("webhooks", name), "WebhookAnswer")


def put_webhook(
    name: str,
    events: Sequence[str],
    *,
    url: str | None = None,
    url_setting: str | None = None,
    job_types: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    failed_tasks: int | None = None,
    stalled_seconds: int | None = None,
    paused: bool | None = None,
    secret_setting: str | None = None,
    description: str | None = None,
) -> "Call[models.WrittenWebhook]":
    """Write a webhook, or replace the one of this name. A new one is answered with its secret, this once.

    Args:
        events: Such as job.failed; at least one.
        url_setting: The app setting that has the address, where that is itself a secret; else `url`.
        job_types: A star is any characters; all types, if left out.
        failed_tasks: For job.failing: how many failed tasks in one stage.
        stalled_seconds: For job.stalled: how long nothing of a job has begun or ended.
        secret_setting: The app setting that has the secret; one is made, if left out.
    """
    body = body_of(
        events=list(events),
        url=url,
        url_setting=url_setting,
        job_types=None if job_types is None else list(job_types),
        tags=tags,
        failed_tasks=failed_tasks,
        stalled_seconds=stalled_seconds,
        paused=paused,
        secret_setting=secret_setting,
        description=description,
    )
    return Call("PUT", path_of("webhooks", name), "WrittenWebhook", body=body)


def delete_webhook(name: str) -> "Call[models.DeletedWebhook]":
    """Delete a webhook and its deliveries."""
    return Call("DELETE", path_of("webhooks", name), "DeletedWebhook")


def rotate_webhook_secret(name: str) -> "Call[models.WebhookSecret]":
    """Make another secret, and show it this once. For a day deliveries are signed with the former one too."""
    return Call("POST", path_of("webhooks", name, "rotate-secret"), "WebhookSecret")


def test_webhook(name: str) -> "Call[models.Delivery]":
    """Send an event `webhook.test` to it."""
    return Call("POST", path_of("webhooks", name, "test"), "Delivery")


def list_deliveries(
    name: str,
    *,
    delivery_id: str | None = None,
    status: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> "Call[models.Page[models.Delivery]]":
    """A webhook's deliveries, the newest first.

    Args:
        delivery_id: The id, or its beginning.
    """
    query = query_of(delivery_id=delivery_id, status=status, limit=limit, cursor=cursor)
    return _list(path_of("webhooks", name, "deliveries"), "Delivery", query)


def redeliver(name: str, delivery_id: str) -> "Call[models.Delivery]":
    """Send a dead or delivered one again, with the same id."""
    return Call("POST", path_of("webhooks", name, "deliveries", delivery_id, "redeliver"), "Delivery")


def list_limits(*, limit: int | None = None, cursor: str | None = None) -> "Call[models.Page[models.LimitAnswer]]":
    """Limits of what runs at once by name, with who holds their places."""
    return _list("limits", "LimitAnswer", query_of(limit=limit, cursor=cursor))


def get_limit(name: str) -> "Call[models.LimitAnswer]":
    """One limit."""
    return _get(path_of("limits", name), "LimitAnswer")


def put_limit(
    name: str, *, at_once: int | None = None, rate: str | None = None, reason: str | None = None
) -> "Call[models.LimitAnswer]":
    """Choose a limit's numbers, from now on and for all jobs that name it. What is left out is not limited.

    Args:
        at_once: How many tasks may run at a time; 0 lets none begin.
        rate: How many may begin in a time: 100/min, 10/s, 5/30s.
    """
    body = body_of(at_once=at_once, rate=rate, reason=reason)
    return Call("PUT", path_of("limits", name), "LimitAnswer", body=body)


def forget_limit(name: str) -> "Call[models.ForgottenLimit]":
    """Leave a limit's numbers to the stages that declare it."""
    return Call("DELETE", path_of("limits", name), "ForgottenLimit")


def list_apps() -> "Call[models.AppsAnswer]":
    """The processes of all apps, and work that none of them can take."""
    return _get("apps", "AppsAnswer")


def list_queues() -> "Call[models.QueuesAnswer]":
    """The queues: what waits on each and since when, and who reads it."""
    return _get("queues", "QueuesAnswer")


def livez() -> "Call[models.Liveness]":
    """Whether the process answers."""
    return _get("livez", "Liveness")


def readyz() -> "Call[models.Readiness]":
    """Whether the app can do its work. Not ready is an answer too, and comes at once."""
    return Call("GET", "readyz", "Readiness", answers_too=frozenset({HTTPStatus.SERVICE_UNAVAILABLE}))


def _is_repeatable(*, force: Any, if_ended: Any, idempotency_key: Any) -> bool:
    """Whether the same submission again gives the same job."""
    return idempotency_key is not None or not (force or if_ended not in _SAFE_WISHES)


def _get(path: str, answer: str, query: tuple[tuple[str, str], ...] = ()) -> Call[Any]:
    return Call("GET", path, answer, query=query, repeats=True)


def _list(path: str, item: str, query: tuple[tuple[str, str], ...] = ()) -> Call[Any]:
    return Call("GET", path, item, query=query, is_page=True, repeats=True)


def _act(path: str, answer: str, body: Json | None) -> Call[Any]:
    return Call("POST", path, answer, body=body)
