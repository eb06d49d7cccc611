"""Endpoints about limits that stages share: look at them, and change their numbers while jobs run."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Path, Request
from fastapi import Query as InQuery

from core.models.limit import LimitFacts, LimitName, Rate
from core.models.view import Page
from triggers import api_models
from triggers.actor import Actor
from triggers.endpoints import JsonBody, NoQuery, OneValueRoute, body_schema, parse_body
from triggers.limit_models import ForgottenLimit, LimitAnswer, LimitHolding, PutLimit
from triggers.problems import ProblemError

router = APIRouter(tags=["limits"], route_class=OneValueRoute)


class LimitStore(Protocol):
    """`infrastructure.limits.LimitRepository`."""

    def set_limit(
        self, name: str, at_once: int | None, rate: Rate | None, *, reason: str | None, actor: str | None
    ) -> None: ...
    def forget_limit(self, name: str, *, reason: str | None, actor: str | None) -> bool: ...
    def read_limits(self, names: Sequence[str]) -> tuple[LimitFacts, ...]: ...
    def list_limits(self, *, limit: int = 50, cursor: str | None = None) -> Page[LimitFacts]: ...


class TurnServer(Protocol):
    """`core.machine.CoreMachine`."""

    def serve_limits(self, names: Sequence[str]) -> int: ...


class LimitServices(Protocol):
    """All that these endpoints need."""

    @property
    def limits(self) -> LimitStore: ...
    @property
    def machine(self) -> TurnServer: ...


def _services(request: Request) -> LimitServices:
    services: LimitServices = request.app.state.get_services()
    return services


Services = Annotated[LimitServices, Depends(_services)]
NamePath = Annotated[LimitName, Path(description="The limit's name; it may have any printable characters, `/` too.")]


@router.get("/limits", response_model_exclude_unset=True)
def list_limits(
    request: Request, services: Services, query: Annotated[api_models.PageQuery, InQuery()]
) -> api_models.Page[LimitAnswer]:
    """Limits by name, with who holds their places. One that no stage has needed for an hour is not among them."""
    page = services.limits.list_limits(limit=query.limit, cursor=query.cursor)
    return api_models.page_of(map(_answer, page.items), page.next_cursor, request)


@router.get("/limits/{name:path}")
def get_limit(name: NamePath, services: Services, query: NoQuery) -> LimitAnswer:
    """One limit."""
    del query
    return _find(services, name)


@router.put("/limits/{name:path}", openapi_extra=body_schema(PutLimit, required=True))
def put_limit(name: NamePath, services: Services, body: JsonBody, query: NoQuery, actor: Actor) -> LimitAnswer:
    """Choose a limit's numbers, from now on and for all jobs that name it; it need not be there yet.

    What waits and may run now is announced at once. Where the number is lower than what runs, none begins until fewer
    do. The change is in the audit log.
    """
    del query
    asked = parse_body(PutLimit, body)
    services.limits.set_limit(name, asked.at_once, asked.rate, reason=asked.reason, actor=actor)
    services.machine.serve_limits([name])
    return _find(services, name)


@router.delete("/limits/{name:path}")
def forget_limit(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> ForgottenLimit:
    """Leave a limit's numbers to the stages that declare it, as before somebody chose others."""
    del query
    if not services.limits.forget_limit(name, reason=None, actor=actor):
        raise ProblemError(404, "unknown_limit", f"Nobody has chosen numbers for a limit {name!r}.")
    services.machine.serve_limits([name])
    return ForgottenLimit(name=name)


def _find(services: LimitServices, name: str) -> LimitAnswer:
    found = services.limits.read_limits([name])
    if not found:
        raise ProblemError(404, "unknown_limit", f"There is no limit {name!r} now; PUT makes one.")
    return _answer(found[0])


def _answer(facts: LimitFacts) -> LimitAnswer:
    holders = [
        LimitHolding(job_id=each.job_id, run=each.run, stage=each.stage, count=each.count) for each in facts.holders
    ]
    rate = None if facts.rate is None else str(facts.rate)
    return LimitAnswer(**{**vars(facts), "rate": rate, "holders": holders})
