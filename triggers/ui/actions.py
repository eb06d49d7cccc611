"""What people ask of a job with a button: the API's own endpoints do it, with the values of the form."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from core.models.bulk import DeleteOutcome
from core.models.control import RerunMode
from triggers import bulk_api, job_actions
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.author_threads import calls_authors
from triggers.bulk_models import DeleteQuery
from triggers.endpoints import JobIdPath, NoQuery, parse_body
from triggers.ui.forms import Form, whole_number
from triggers.ui.page import PageRoute, go_to
from triggers.ui.ports import Services

router = APIRouter(route_class=PageRoute)
# A large job is deleted in parts; Azure's front ends cut a request after 230 seconds.
_DELETE_SECONDS = 60.0


@router.post("/ui/jobs/{job_id}/cancel")
def cancel_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Cancel it."""
    del query
    job_actions.cancel_job(job_id, request, services, dict(form), Query(), actor)
    return go_to(request, "jobs", job_id, note="cancel")


@router.post("/ui/jobs/{job_id}/pause")
def pause_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Pause it."""
    del query
    job_actions.pause_job(job_id, request, services, dict(form), Query(), actor)
    return go_to(request, "jobs", job_id, note="pause")


@router.post("/ui/jobs/{job_id}/resume")
def resume_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Let it go on."""
    del query
    job_actions.resume_job(job_id, request, services, dict(form), Query(), actor)
    return go_to(request, "jobs", job_id, note="resume")


@router.post("/ui/jobs/{job_id}/adjust")
def adjust_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Change its priority, or how many tasks of its present stage run at a time."""
    body: dict[str, Any] = {name: form[name] for name in ("priority", "reason") if name in form}
    if "max_parallel" in form:
        text = form["max_parallel"].strip()
        body["max_parallel"] = text if text == "none" else whole_number("max_parallel", text)
        # What the number was meant for: the job may have gone on meanwhile.
        body["stage"] = whole_number("stage", form.get("stage", ""))
    done = job_actions.adjust_job(job_id, request, services, body, query, actor)
    return go_to(request, "jobs", job_id, note="adjust" if done.changed else "as_before")


@router.post("/ui/jobs/{job_id}/rerun")
@calls_authors
def rerun_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Begin its next run."""
    del query
    body: dict[str, Any] = dict(form)
    if form.get("mode") != RerunMode.FROM_STAGE:
        # The choice of a stage is in the form whatever is to run.
        body.pop("from_stage", None)
    body |= {name: whole_number(name, form[name]) for name in ("from_stage", "expected_run") if name in body}
    job_actions.begin_rerun(services, request, job_id, body, actor)
    return go_to(request, "jobs", job_id, note="rerun")


@router.post("/ui/jobs/{job_id}/delete")
def delete_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Delete it, and go to the list; to its page where a part of it is left."""
    del query
    asked = parse_body(DeleteQuery, dict(form))
    until = time.monotonic() + _DELETE_SECONDS
    while True:
        outcome = bulk_api.delete_job(job_id, services, asked, actor).outcome
        if outcome is DeleteOutcome.DELETED:
            return go_to(request, "jobs", did="delete", outcome="deleted-1")
        if outcome is not DeleteOutcome.DELETING or time.monotonic() > until:
            return go_to(request, "jobs", job_id, note=outcome.value)


@router.post("/ui/jobs/{job_id}/hold")
def hold_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Put it under a legal hold."""
    del query
    bulk_api.hold_job(job_id, services, dict(form), Query(), actor)
    return go_to(request, "jobs", job_id, note="hold")


@router.post("/ui/jobs/{job_id}/release")
def release_job(
    job_id: JobIdPath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """End its legal hold."""
    del query
    bulk_api.release_job(job_id, services, dict(form), Query(), actor)
    return go_to(request, "jobs", job_id, note="release")
