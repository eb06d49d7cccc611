"""The queues and the processes that read them: what waits, who can run it, and whether the app has what it needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from fastapi import APIRouter, Request, Response

from core.models.app import InstanceState
from core.models.dashboard import OpenTasks
from triggers.api_models import Query
from triggers.apps_api import list_apps, list_queues
from triggers.apps_models import AppInstance
from triggers.endpoints import NoQuery
from triggers.ui.page import PageRoute, render
from triggers.ui.ports import Services
from triggers.ui.recent import recent_reads

router = APIRouter(route_class=PageRoute)
# Of an app: each restart leaves one.
_MOST_ENDED = 20
_NONE = OpenTasks(queue="", retrying=0, unannounced=0, owners=())


@router.get("/ui/queues")
def show_queues(request: Request, services: Services, query: NoQuery) -> Response:
    """The queues and the apps as the API has them, and the checks of readiness."""
    del query
    reads = recent_reads(request)
    apps = reads.get("apps", lambda: list_apps(services, Query()))
    queues = reads.get("queues", lambda: list_queues(services, Query()))
    tasks = reads.get("open_tasks", services.dashboard.read_open_tasks)
    by_queue = {each.queue: each for each in tasks}
    busy = {owner: [each.queue for each in tasks if owner in each.owners] for each in tasks for owner in each.owners}
    known = {each.instance for each in apps.value}
    return render(
        request,
        "queues.html",
        nav="queues",
        queues=[(queue, by_queue.get(queue.queue, _NONE)) for queue in queues.value],
        apps=_by_app(apps.value),
        at=apps.at,
        findings=apps.findings,
        busy=busy,
        unregistered=sorted(busy.keys() - known),
        missing=services.find_missing_queues(),
        checks=services.check_readiness(),
    )


@dataclass(frozen=True)
class Fleet:
    """The processes of an app.

    Args:
        running: Those that did not say that they ended: first the live ones in the order in which they began, then the
            silent ones, the one heard of last first.
        ended: The latest that ended, the last one first.
        ended_count: How many ended.
    """

    running: list[AppInstance]
    ended: list[AppInstance]
    ended_count: int


def _by_app(instances: Iterable[AppInstance]) -> list[tuple[str, Fleet]]:
    found = sorted(instances, key=lambda each: each.app_name)
    return [(name, fleet_of(group)) for name, group in groupby(found, key=lambda each: each.app_name)]


def fleet_of(instances: Iterable[AppInstance]) -> Fleet:
    """Of one app."""
    latest = sorted(instances, key=lambda each: each.ended_at or each.seen_at, reverse=True)
    live = [each for each in latest if each.status is InstanceState.LIVE]
    ended = [each for each in latest if each.status is InstanceState.ENDED]
    others = [each for each in latest if each.status not in {InstanceState.LIVE, InstanceState.ENDED}]
    # Live ones change their last sign of life all the time, and would change places.
    began = sorted(live, key=lambda each: (each.started_at, each.instance))
    return Fleet([*began, *others], ended[:_MOST_ENDED], len(ended))
