"""What the pages ask of the rest of the app."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import Depends, Request

from core.models.limit import LimitWaiter
from infrastructure.dashboard import DashboardQueries
from triggers.apps_api import AppServices
from triggers.bulk_api import AuditReads, BulkActions, Keeping
from triggers.insight_api import InsightServices
from triggers.limits_api import LimitStore, TurnServer
from triggers.ports import ApiServices, JobCommands
from triggers.schedules_api import ScheduleServices
from triggers.webhooks_api import WebhookServices


class LimitReads(LimitStore, Protocol):
    """`infrastructure.limits.LimitRepository`, as the pages see it."""

    def list_waiters(self, name: str, *, limit: int) -> Sequence[LimitWaiter]: ...


class UiMachine(JobCommands, Keeping, TurnServer, Protocol):
    """`core.machine.CoreMachine`, as the pages see it."""


class UiServices(ApiServices, InsightServices, ScheduleServices, AppServices, WebhookServices, Protocol):
    """What the API has, and reads of their own."""

    @property
    def machine(self) -> UiMachine: ...
    @property
    def dashboard(self) -> DashboardQueries: ...
    @property
    def bulk(self) -> BulkActions: ...
    @property
    def audit(self) -> AuditReads: ...
    @property
    def limits(self) -> LimitReads: ...


def _services(request: Request) -> UiServices:
    services: UiServices = request.app.state.get_services()
    return services


Services = Annotated[UiServices, Depends(_services)]
