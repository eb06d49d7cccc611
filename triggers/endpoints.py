"""What endpoints share: their services, the pieces of their requests, and links in their answers."""

from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from fastapi import Depends, Path, Request, Response
from fastapi import Query as InQuery
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from core.basics.canonical import shown
from core.models.fields import JobIdText, without_consequences
from jobs.parameters import MAX_PROBLEMS, nearest_name_hint
from triggers import api_models as models
from triggers import problems
from triggers.ports import ApiServices, Missing
from triggers.request_body import read_json_object

Body = TypeVar("Body", bound=BaseModel)


def services_of(request: Request) -> ApiServices:
    """The app's services. Raises ServicesNotReady."""
    services: ApiServices = request.app.state.get_services()
    return services


async def find_services(request: Request) -> ApiServices:
    """The same; in a thread only until they are there, which may take a second."""
    state = request.app.state
    if state.services is not None:
        services: ApiServices = state.services
        return services
    services = await run_in_threadpool(services_of, request)
    if not isinstance(services.registry, Missing):
        state.services = services
    return services


Services = Annotated[ApiServices, Depends(find_services)]
JobIdPath = Annotated[JobIdText, Path(description="All 64 hexadecimal digits. Only the command line takes fewer.")]
NoQuery = Annotated[models.Query, InQuery()]
JsonBody = Annotated[dict[str, Any], Depends(read_json_object)]


def body_schema(model: type[BaseModel], *, required: bool = False) -> dict[str, Any]:
    """`openapi_extra` of an endpoint whose body `parse_body` reads; `triggers.openapi` gives its parts their place."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def parse_body(model: type[Body], body: dict[str, Any]) -> Body:
    """The body as a model, or a 400 that names the wrong fields, with the nearest name for an unknown one."""
    known = list(model.model_fields)
    unknown = [name for name in body if name not in model.model_fields]
    errors = [
        problems.wrong_field(name, "a known name", f"unknown name {shown(name, 100)}", nearest_name_hint(name, known))
        for name in unknown[:MAX_PROBLEMS]
    ]
    try:
        parsed = model.model_validate({name: body[name] for name in known if name in body})
    except ValidationError as error:
        found = without_consequences(error.errors(include_url=False))
        errors += [problems.field_problem({**item, "loc": ("body", *item["loc"])}) for item in found]
        raise problems.invalid_request(errors, len(unknown[MAX_PROBLEMS:])) from error
    if unknown:
        raise problems.invalid_request(errors, len(unknown[MAX_PROBLEMS:]))
    return parsed


class OneValueRoute(APIRoute):
    """A query parameter that has one value is given once: which of two was meant, nobody knows (400)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if b"&" in request.scope["query_string"]:
                _refuse_repeated_names(request, self.endpoint)
            return await handle(request)

        return checked


def _refuse_repeated_names(request: Request, endpoint: Callable[..., Any]) -> None:
    names = Counter(name for name, _ in request.query_params.multi_items())
    lists = _list_parameters(endpoint)
    wrong = [
        problems.wrong_field(name, "one value", f"{count} of them", "leave out all but one")
        for name, count in names.items()
        if count > 1 and name not in lists
    ]
    if wrong:
        raise problems.invalid_request(wrong)


@cache
def _list_parameters(endpoint: Callable[..., Any]) -> frozenset[str]:
    """Query parameters that may be given several times."""
    fields: dict[str, Any] = get_type_hints(endpoint)["query"].model_fields
    return frozenset(name for name, field in fields.items() if get_origin(field.annotation) is list)


@lru_cache(maxsize=64)
def _base_url(scheme: str, host: str | None, server: tuple[str, int | None] | None, root_path: str) -> str:
    """`Request.base_url`, which takes longer to make than all the links that begin with it."""
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "scheme": scheme, "server": server, "root_path": root_path, "headers": headers}
    return str(Request(scope).base_url).rstrip("/")


def job_links(request: Request, job_id: str) -> models.JobLinks:
    """Absolute, at the host that the client asked."""
    scope = request.scope
    root = scope.get("app_root_path", scope.get("root_path", ""))
    api = f"{_base_url(scope['scheme'], request.headers.get('host'), scope['server'], root)}/api"
    job = f"{api}/jobs/{job_id}"
    names = ("poll", "tasks", "events", "runs", "cancel", "pause", "resume", "rerun")
    return models.JobLinks(
        self_=job, operation=f"{api}/operations/{job_id}", **{name: f"{job}/{name}" for name in names}
    )
