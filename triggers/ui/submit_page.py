"""Submitting a job: a form made from the job type's schema, with what is wrong beside each field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator

from core.errors import InvalidParameters, SubmissionRefused
from core.models.control import IfEnded
from core.models.fields import JobIdText, JobTypeText
from core.models.submission import SubmitRequest
from jobs.base import JobBase
from jobs.parameter_schema import to_json_schema
from jobs.parameters import ParameterError, ParameterErrors
from triggers.access import may_look_at
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.author_threads import calls_authors
from triggers.endpoints import NoQuery
from triggers.problems import invalid_request, unknown_job, wrong_field
from triggers.ui import submit_options
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services
from triggers.ui.schema_form import PREFIX, as_text, make_fields, read_values, top_name, words_of

router = APIRouter(route_class=PageRoute)

JobTypePath = Annotated[JobTypeText, Path()]


class SubmitPageQuery(Query):
    like: Annotated[JobIdText | None, BeforeValidator(blank_is_none)] = None


@dataclass(frozen=True)
class Entered:
    """Texts by field: of the parameters, and of what is beside them."""

    parameters: Mapping[str, str]
    options: Mapping[str, str]


@router.get("/ui/submit")
def choose_job_type(request: Request, services: Services, query: NoQuery) -> Response:
    """The job types of this app."""
    del query
    jobs = [services.registry.get_job(name) for name in services.registry.job_types]
    kinds = [(job.job_type, job.description, [stage.name for stage in job.definition().stages]) for job in jobs]
    return render(request, "job_types.html", nav="submit", kinds=kinds)


@router.get("/ui/submit/{job_type}")
def show_form(
    job_type: JobTypePath, request: Request, services: Services, query: Annotated[SubmitPageQuery, InQuery()]
) -> Response:
    """The form; `like` fills it with the parameters of a job."""
    job = services.registry.get_job(job_type)
    given: dict[str, str] = {}
    chosen: dict[str, str] = {}
    if query.like is not None:
        earlier = services.queries.get_job_detail(query.like).job
        if not may_look_at(request, earlier.job_type):
            raise unknown_job(query.like)
        given = {name: as_text(value) for name, value in earlier.parameters.items() if value is not None}
        chosen = submit_options.texts_of(earlier)
    return _form(request, job, Entered(given, chosen))


@router.post("/ui/submit/{job_type}")
@calls_authors
def submit(
    job_type: JobTypePath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Submit it and go to its page; or the form again, with what is wrong."""
    del query
    job = services.registry.get_job(job_type)
    values, errors = read_values(to_json_schema(job.parameters_schema), form)
    given = {name.removeprefix(PREFIX): text for name, text in form.items() if name.startswith(PREFIX)}
    entered = Entered(given, submit_options.read_texts(form))
    options, wrong = submit_options.read_options(entered.options)
    if errors or wrong:
        return _form(request, job, entered, errors, wrong)
    if_ended = _read_if_ended(form.get("if_ended"))
    try:
        done = services.machine.submit_job(
            SubmitRequest(
                job_type,
                values,
                actor=actor,
                if_ended=if_ended,
                tags=options.tags,
                start_at=options.start_at,
                priority=options.priority,
            )
        )
    except ParameterErrors as error:
        return _form(request, job, entered, error.errors)
    except (InvalidParameters, SubmissionRefused) as error:
        return _form(request, job, entered, [ParameterError("", str(error), "")])
    note = "submitted" if done.created else ("rerun" if str(done.outcome) == "rerun" else "existing")
    return go_to(request, "jobs", done.job_id, note=note)


def _read_if_ended(text: str | None) -> IfEnded:
    known = [each.value for each in IfEnded]
    if text is not None and text not in known:
        raise invalid_request([wrong_field("if_ended", f"one of {', '.join(known)}", repr(text[:100]))])
    return IfEnded.RETURN if text is None else IfEnded(text)


def _form(
    request: Request,
    job: type[JobBase],
    entered: Entered,
    errors: list[ParameterError] | tuple[ParameterError, ...] = (),
    wrong_options: Mapping[str, str] | None = None,
) -> Response:
    """The form; with errors, its status is 400."""
    wrong_options = wrong_options or {}
    schema = to_json_schema(job.parameters_schema)
    of_fields: dict[str, str] = {}
    others: list[str] = []
    for error in errors:
        name = top_name(error)
        if name in schema.get("properties", {}):
            of_fields[name] = words_of(error)
        else:
            others.append(error.expected if not error.field else error.message)
    page = render(
        request,
        "submit.html",
        nav="submit",
        job_type=job.job_type,
        description=job.description,
        fields=make_fields(schema, entered.parameters, of_fields),
        options=submit_options.make_option_fields(entered.options, wrong_options),
        # What was chosen, or is wrong, is seen.
        has_options=any(entered.options.values()),
        others=others,
        error_count=len(of_fields) + len(others) + len(wrong_options),
        prefix=PREFIX,
        option_prefix=submit_options.PREFIX,
    )
    page.status_code = 400 if errors or wrong_options else 200
    return page
