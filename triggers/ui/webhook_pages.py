"""Webhooks: where events go, what became of the deliveries, and sending one again."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator

from core.models.fields import Cursor, expectation
from core.models.webhook import DeliveryStatus
from triggers import webhooks_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services
from triggers.webhook_models import DeliveryId, WebhookName

router = APIRouter(route_class=PageRoute)
PAGE = 50
_NOTES = {
    "test": "A test is on its way: it is the first line of the deliveries.",
    "redeliver": "The delivery is sent again, with the same id.",
}
NamePath = Annotated[WebhookName, Path()]


def _known_status(value: str | None) -> str | None:
    known = [status.value for status in DeliveryStatus]
    if value is not None and value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100])
    return value


class WebhooksQuery(Query):
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None


class WebhookQuery(WebhooksQuery):
    status: Annotated[str | None, BeforeValidator(_known_status), BeforeValidator(blank_is_none)] = None
    note: Literal["test", "redeliver"] | None = None


@router.get("/ui/webhooks")
def show_webhooks(request: Request, services: Services, query: Annotated[WebhooksQuery, InQuery()]) -> Response:
    """By name, each with its latest deliveries in numbers."""
    page = services.webhook_queries.list_webhooks(limit=PAGE, cursor=query.cursor)
    states = services.dashboard.read_webhook_states([webhook.name for webhook in page.items])
    return render(
        request,
        "webhooks.html",
        nav="webhooks",
        rows=[(webhook, states[webhook.name]) for webhook in page.items],
        next_cursor=page.next_cursor,
    )


@router.get("/ui/webhooks/{name}")
def show_webhook(
    name: NamePath, request: Request, services: Services, query: Annotated[WebhookQuery, InQuery()]
) -> Response:
    """One webhook, with its deliveries."""
    webhook = webhooks_api.get_webhook(name, services, Query())
    statuses = () if query.status is None else (DeliveryStatus(query.status),)
    page = services.webhook_queries.list_deliveries(name, statuses=statuses, limit=PAGE, cursor=query.cursor)
    return render(
        request,
        "webhook.html",
        nav="webhooks",
        webhook=webhook,
        deliveries=page.items,
        next_cursor=page.next_cursor,
        query=query,
        statuses=[status.value for status in DeliveryStatus],
        note=_NOTES.get(query.note or ""),
    )


@router.post("/ui/webhooks/{name}/test")
def test_webhook(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Send it a test."""
    webhooks_api.test_webhook(name, services, query, actor)
    return go_to(request, "webhooks", name, note="test")


@router.post("/ui/webhooks/{name}/deliveries/{delivery_id}/redeliver")
def redeliver(
    name: NamePath,
    delivery_id: Annotated[DeliveryId, Path()],
    request: Request,
    services: Services,
    query: NoQuery,
    actor: Actor,
) -> Response:
    """Send one again."""
    webhooks_api.redeliver(name, delivery_id, services, query, actor)
    return go_to(request, "webhooks", name, note="redeliver")
