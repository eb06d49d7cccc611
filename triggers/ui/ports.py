"""What the pages ask of the rest of the app."""

from typing import Annotated, Protocol

from fastapi import Depends, Request

from infrastructure.dashboard import DashboardQueries
from triggers.apps_api import AppServices
from triggers.bulk_api import BulkActions
from triggers.insight_api import InsightServices
from triggers.ports import ApiServices
from triggers.schedules_api import ScheduleServices


class UiServices(ApiServices, InsightServices, ScheduleServices, AppServices, Protocol):
    """What the API has, and reads of their own."""

    @property
    def dashboard(self) -> DashboardQueries: ...
    @property
    def bulk(self) -> BulkActions: ...


def _services(request: Request) -> UiServices:
    services: UiServices = request.app.state.get_services()
    return services


Services = Annotated[UiServices, Depends(_services)]
