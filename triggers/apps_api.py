"""Endpoints about the apps that run, and the queues between them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Request

from core.app_queues import JOBS_QUEUE
from core.models.app import FleetFacts, QueueLoad
from core.models.insight import Finding
from core.operating.fleet import LIVE_SECONDS, find_fleet_problems, live_instances
from triggers.apps_models import AppInstance, AppsAnswer, Queue, QueuesAnswer
from triggers.endpoints import NoQuery, OneValueRoute
from triggers.insight_models import FindingAnswer

router = APIRouter(tags=["apps"], route_class=OneValueRoute)


class FleetReads(Protocol):
    """`infrastructure.apps.AppRepository`."""

    def read_fleet(self, job_id: str | None = None) -> FleetFacts: ...
    def read_queue_loads(self, queues: Iterable[str]) -> list[QueueLoad]: ...


class AppServices(Protocol):
    """All that these endpoints need."""

    @property
    def apps(self) -> FleetReads: ...
    @property
    def queue_names(self) -> Mapping[str, str]: ...
    def find_missing_queues(self) -> Mapping[str, str]: ...
    def find_postponed_messages(self) -> Sequence[Finding]: ...


def _services(request: Request) -> AppServices:
    services: AppServices = request.app.state.get_services()
    return services


Services = Annotated[AppServices, Depends(_services)]


@router.get("/apps")
def list_apps(services: Services, query: NoQuery) -> AppsAnswer:
    """The processes of all apps, with their releases, queues and task types; a process registers itself every 20 s.

    `findings` has work that no live process can take (it waits), messages that the process which answers postponed
    lately since it does not know what they name, and releases that run side by side.
    """
    del query
    facts = services.apps.read_fleet()
    value = [AppInstance(**dict(each), status=each.state(facts.now, LIVE_SECONDS)) for each in facts.instances]
    return AppsAnswer(at=facts.now, value=value, findings=_answers(fleet_findings(services, facts)))


@router.get("/queues")
def list_queues(services: Services, query: NoQuery) -> QueuesAnswer:
    """The queues: what waits and runs, since when, dead messages, and the live processes that read each.

    The numbers are of the rows, so a message that is scheduled for later or was lost counts where its row does.
    """
    del query
    facts = services.apps.read_fleet()
    missing = services.find_missing_queues()
    loads = services.apps.read_queue_loads(services.queue_names)
    value = [_queue(load, facts, services.queue_names, missing) for load in loads]
    return QueuesAnswer(at=facts.now, value=value, findings=_answers(fleet_findings(services, facts)))


def fleet_findings(services: AppServices, facts: FleetFacts) -> list[Finding]:
    """What nobody can do now: of all processes, and of the messages that this one postponed."""
    return [*services.find_postponed_messages(), *find_fleet_problems(facts)]


def _queue(load: QueueLoad, facts: FleetFacts, names: Mapping[str, str], missing: Mapping[str, str]) -> Queue:
    readers = [each for each in live_instances(facts) if load.queue in each.queues]
    return Queue(
        **dict(load),
        real_name=names.get(load.queue),
        is_missing=load.queue in missing,
        consumers=len(readers),
        slots=sum(each.slots for each in readers),
        apps=sorted({each.app_name for each in readers}),
        task_types=sorted({name for each in readers for name in each.task_types if load.queue != JOBS_QUEUE}),
    )


def _answers(findings: Iterable[Finding]) -> list[FindingAnswer]:
    return [FindingAnswer.model_validate(vars(finding)) for finding in findings]
