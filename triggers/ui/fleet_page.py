"""The queues: what waits on each, who works on it, and whether the app has what it needs."""

from fastapi import APIRouter, Request, Response

from core.models.dashboard import QueueLoad
from triggers.endpoints import NoQuery
from triggers.ui.page import PageRoute, render
from triggers.ui.ports import Services

router = APIRouter(route_class=PageRoute)


@router.get("/ui/queues")
def show_queues(request: Request, services: Services, query: NoQuery) -> Response:
    """The queues that open tasks are on, those that are not there, and the checks of readiness."""
    del query
    loads = services.dashboard.read_queues()
    dead: dict[str, int] = {}
    for group in services.dead_letter_queries.group_dead_letters():
        # A group may be of several queues: it counts for each of them.
        for queue in group.queues:
            dead[queue] = dead.get(queue, 0) + group.count
    return render(
        request,
        "queues.html",
        nav="queues",
        loads=loads,
        dead=dead,
        steps=services.dashboard.read_steps(),
        missing=services.find_missing_queues(),
        checks=services.check_readiness(),
        processes=_processes(loads),
    )


def _processes(loads: list[QueueLoad]) -> list[tuple[str, str, list[str]]]:
    """Processes that have a lease now: app, the rest of the name, and their queues."""
    queues: dict[str, list[str]] = {}
    for load in loads:
        for owner in load.owners:
            queues.setdefault(owner, []).append(load.queue)
    return [(owner.partition(":")[0], owner.partition(":")[2], queues[owner]) for owner in sorted(queues)]
