"""Operator actions on jobs over HTTP: cancel, pause, resume, adjust, rerun. Each is an event of the job's timeline."""

from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response

from core.models import JobStatus
from core.models.control import AdjustOutcome, ControlAnswer, ControlOutcome, JobAction, allowed_actions
from jobs.registry import UnknownJobType
from triggers import api_models as models
from triggers import problems
from triggers.actor import Actor
from triggers.author_threads import calls_authors
from triggers.endpoints import JobIdPath, JsonBody, NoQuery, OneValueRoute, Services, body_schema, job_links, parse_body
from triggers.ports import ApiServices
from triggers.problems import ProblemError

router = APIRouter(tags=["job actions"], route_class=OneValueRoute)

_NOT_RERUN = {
    ControlOutcome.OTHER_RUN: "its run is not the one that you have seen; look at the job again",
    ControlOutcome.NOTHING_FAILED: "no task of its last run failed; name `from_stage` (--from-stage), or ask for mode "
    "'all' (--all)",
    ControlOutcome.PRUNED: "retention has deleted some of its tasks, so nothing can be kept; ask for mode 'all' "
    "(--all)",
    ControlOutcome.STAGE_NOT_REACHED: "stages before `from_stage` (--from-stage) have not all completed in its last "
    "run, or there is no such stage",
}

_NOT_ADJUSTED = {
    AdjustOutcome.OTHER_STAGE: "expected the stage that was named; look at the job again",
    AdjustOutcome.NOTHING_WAITS: "expected a stage with tasks that wait in line; all are announced, or it is "
    "not planned",
}


@router.post("/jobs/{job_id}/cancel", status_code=202, openapi_extra=body_schema(models.CancelRequest))
def cancel_job(
    job_id: JobIdPath, request: Request, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.CancelledJob:
    """Cancel what has not started; running tasks learn of it, and are ended after `cancel_grace_seconds`.

    Again for a cancelled job changes nothing; for one that is cancelling it can only bring that end nearer.
    """
    del query
    asked = parse_body(models.CancelRequest, body)
    status = services.machine.cancel_job(job_id, asked.reason, grace_seconds=asked.cancel_grace_seconds, actor=actor)
    if status is None:
        raise problems.unknown_job(job_id)
    _expect_known(JobStatus.stored(status))
    if status not in {JobStatus.CANCELLED, JobStatus.CANCELLING}:
        raise ProblemError(
            409,
            "job_has_ended",
            f"The job has ended as {status!r}; there is nothing to cancel.",
            job_status=status,
            allowed_actions=allowed_actions(JobStatus.stored(status), is_paused=False),
        )
    return models.CancelledJob(job_id=job_id, status=JobStatus.stored(status), links=job_links(request, job_id))


@router.post("/jobs/{job_id}/pause", openapi_extra=body_schema(models.ActionRequest))
def pause_job(
    job_id: JobIdPath, request: Request, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.JobActionAnswer:
    """Begin no more of its tasks and plan no stage. What runs ends as it would. Again changes nothing."""
    del query
    asked = parse_body(models.ActionRequest, body)
    answer = services.machine.pause_job(job_id, reason=asked.reason, actor=actor)
    return _answer(request, job_id, JobAction.PAUSE, answer)


@router.post("/jobs/{job_id}/resume", openapi_extra=body_schema(models.ActionRequest))
def resume_job(
    job_id: JobIdPath, request: Request, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.JobActionAnswer:
    """Let a paused job go on. For one that is not paused it changes nothing."""
    del query
    asked = parse_body(models.ActionRequest, body)
    answer = services.machine.resume_job(job_id, reason=asked.reason, actor=actor)
    return _answer(request, job_id, JobAction.RESUME, answer)


@router.post("/jobs/{job_id}/rerun", status_code=202, openapi_extra=body_schema(models.RerunRequest))
@calls_authors
def rerun_job(
    job_id: JobIdPath,
    request: Request,
    response: Response,
    services: Services,
    body: JsonBody,
    query: NoQuery,
    actor: Actor,
) -> models.RerunAnswer:
    """Begin the next run of a job that has ended, under the same id; `runs` shows the earlier ones."""
    del query
    done = begin_rerun(services, request, job_id, body, actor)
    headers = {"Location": done.links.poll, "Operation-Location": done.links.operation, "Retry-After": "1"}
    response.headers.update(headers)
    return done


def begin_rerun(
    services: ApiServices, request: Request, job_id: str, body: dict[str, Any], actor: str | None
) -> models.RerunAnswer:
    """Raises ProblemError where it cannot be run again as the body asks."""
    asked = parse_body(models.RerunRequest, body)
    try:
        answer = services.machine.rerun_job(job_id, asked.to_request(actor=actor))
    except UnknownJobType as error:
        detail = f"The job is there; this app does not know its type, another release or app may: ask that one. {error}"
        raise ProblemError(404, "unknown_job_type", detail) from error
    done = _answer(request, job_id, JobAction.RERUN, answer)
    return models.RerunAnswer(
        **dict(done),
        kept_count=answer.kept_count or 0 if answer else 0,
        fresh_count=answer.fresh_count if answer else None,
    )


@router.patch("/jobs/{job_id}", openapi_extra=body_schema(models.AdjustJob, required=True))
def adjust_job(
    job_id: JobIdPath, request: Request, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.AdjustedJob:
    """Change a job's priority, or how many tasks of its present stage run at a time, while it runs.

    Tasks that are announced already run all the same. A later stage has the `max_parallel` that it declares.
    """
    del query
    answer = services.machine.adjust_job(job_id, parse_body(models.AdjustJob, body).to_request(actor=actor))
    if answer is None:
        raise problems.unknown_job(job_id)
    actions = allowed_actions(answer.status, is_paused=answer.is_paused)
    if answer.outcome not in {AdjustOutcome.ADJUSTED, AdjustOutcome.UNCHANGED}:
        _expect_known(answer.status)
        if answer.outcome is AdjustOutcome.REFUSED:
            code = "job_is_cancelling" if answer.status is JobStatus.CANCELLING else "job_has_ended"
            reason = "expected one that runs, or waits to"
        else:
            code, reason = answer.outcome.value, _NOT_ADJUSTED[answer.outcome]
        detail = f"The job is {answer.status.value}, at stage {answer.stage}: {reason}."
        raise ProblemError(409, code, detail, job_status=answer.status, allowed_actions=actions)
    return models.AdjustedJob(
        job_id=job_id,
        status=answer.status,
        paused=answer.is_paused,
        run=answer.run,
        stage=answer.stage,
        changed=answer.outcome is AdjustOutcome.ADJUSTED,
        allowed_actions=list(actions),
        links=job_links(request, job_id),
        priority=answer.priority,
        max_parallel=answer.max_parallel,
    )


def _answer(request: Request, job_id: str, action: JobAction, answer: ControlAnswer | None) -> models.JobActionAnswer:
    if answer is None:
        raise problems.unknown_job(job_id)
    if not answer.is_done:
        _refuse(action, answer)
    return models.JobActionAnswer(
        job_id=job_id,
        status=answer.status,
        paused=answer.is_paused,
        run=answer.run,
        stage=answer.stage,
        changed=answer.has_changed,
        allowed_actions=list(answer.allowed_actions),
        links=job_links(request, job_id),
    )


def _expect_known(status: JobStatus) -> None:
    if not status.is_known:
        raise ProblemError(
            409,
            "job_status_not_known",
            f"The job is {status.value!r:.100}, a status that a newer release gave it and this one does not know: "
            "ask an app of that release.",
            job_status=status,
            allowed_actions=(),
        )


def _refuse(action: JobAction, answer: ControlAnswer) -> NoReturn:
    _expect_known(answer.status)
    state = f"{answer.status.value}, run {answer.run}{', paused' if answer.is_paused else ''}"
    if answer.outcome is ControlOutcome.REFUSED:
        code = "job_has_not_ended" if action is JobAction.RERUN else "job_has_ended"
        if answer.status is JobStatus.CANCELLING and action is not JobAction.RERUN:
            code = "job_is_cancelling"
        reason = f"it can be asked to {' or '.join(answer.allowed_actions)} now"
    else:
        code, reason = answer.outcome.value, _NOT_RERUN[answer.outcome]
    raise ProblemError(
        409,
        code,
        f"The job is {state}: expected one that can {action.value}; {reason}.",
        job_status=answer.status,
        allowed_actions=answer.allowed_actions,
    )
