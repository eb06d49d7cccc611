"""Webhooks: where events go, what became of the deliveries, and sending one again."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi import Query as InQuery
from pydantic import BeforeValidator, TypeAdapter

from core.models.fields import Cursor, expectation
from core.models.webhook import DeliveryStatus
from triggers import webhooks_api
from triggers.actor import Actor
from triggers.api_models import Query
from triggers.endpoints import NoQuery
from triggers.ui.edit_form import Draft, Editor, answer_form, draft_of, show_form
from triggers.ui.forms import Form
from triggers.ui.jobs_page import blank_is_none
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services, UiServices
from triggers.webhook_models import DeliveryId, PutWebhook, WebhookName

router = APIRouter(route_class=PageRoute)
PAGE = 50
_NOTES = {
    "test": "A test is on its way: it is the first line of the deliveries.",
    "redeliver": "The delivery is sent again, with the same id.",
    "created": "The webhook is there. Send a test to see that its receiver answers.",
    "saved": "The changes are saved. What waits goes to the address that it has now.",
    "pause": "The webhook is paused: nothing is written for it, and what waits is not sent.",
    "resume": "The webhook goes on, first with what waits.",
    "deleted": "The webhook was deleted with its deliveries.",
}
EDITOR = Editor(
    PutWebhook,
    *("webhook", "webhooks", "new-webhook"),
    TypeAdapter(WebhookName),
    "up to 100 letters, digits, dots, dashes and underscores",
)
_Note = Literal["test", "redeliver", "created", "saved", "pause", "resume", "deleted"]
NamePath = Annotated[WebhookName, Path()]


def _known_status(value: str | None) -> str | None:
    known = [status.value for status in DeliveryStatus]
    if value is not None and value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:100])
    return value


class WebhooksQuery(Query):
    cursor: Annotated[Cursor | None, BeforeValidator(blank_is_none)] = None
    note: _Note | None = None


class WebhookQuery(WebhooksQuery):
    status: Annotated[str | None, BeforeValidator(_known_status), BeforeValidator(blank_is_none)] = None


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
        note=_NOTES.get(query.note or ""),
    )


@router.get("/ui/new-webhook")
def show_new(request: Request, query: NoQuery) -> Response:
    """The form for a new one."""
    del query
    return show_form(request, Draft(EDITOR))


@router.post("/ui/new-webhook")
def create_webhook(request: Request, services: Services, form: Form, query: NoQuery, actor: Actor) -> Response:
    """Write it, where no other has its name, and show its secret."""
    del query
    present = services.webhook_queries.find_webhook(form.get("name", "").strip())

    def put(name: str, body: dict[str, Any]) -> Response:
        return _put(name, request, services, body, actor, "created")

    return answer_form(request, Draft(EDITOR), form, present.revision if present else None, put)


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


@router.get("/ui/webhooks/{name}/edit")
def show_edit(name: NamePath, request: Request, services: Services, query: NoQuery) -> Response:
    """The form for what it is now."""
    return show_form(request, draft_of(EDITOR, name, webhooks_api.get_webhook(name, services, query)))


@router.post("/ui/webhooks/{name}/edit")
def edit_webhook(
    name: NamePath, request: Request, services: Services, form: Form, query: NoQuery, actor: Actor
) -> Response:
    """Write it as the form has it."""
    found = webhooks_api.get_webhook(name, services, query)

    def put(name: str, body: dict[str, Any]) -> Response:
        return _put(name, request, services, body, actor, "saved")

    return answer_form(request, Draft(EDITOR, name), form, found.revision, put)


@router.post("/ui/webhooks/{name}/pause")
def pause_webhook(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Pause it."""
    return _put(name, request, services, _body_of(name, services, query, paused=True), actor, "pause")


@router.post("/ui/webhooks/{name}/resume")
def resume_webhook(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Let it go on."""
    return _put(name, request, services, _body_of(name, services, query, paused=False), actor, "resume")


@router.post("/ui/webhooks/{name}/rotate-secret")
def rotate_secret(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Make another secret, and show it."""
    made = webhooks_api.rotate_webhook_secret(name, services, query, actor)
    return _show_secret(request, name, made.secret, is_new=False)


@router.post("/ui/webhooks/{name}/delete")
def delete_webhook(name: NamePath, request: Request, services: Services, query: NoQuery, actor: Actor) -> Response:
    """Delete it."""
    webhooks_api.delete_webhook(name, services, query, actor)
    return go_to(request, "webhooks", note="deleted")


def _body_of(name: str, services: UiServices, query: Query, *, paused: bool) -> dict[str, Any]:
    found = webhooks_api.get_webhook(name, services, query).model_dump(mode="json")
    kept = {field: found[field] for field in PutWebhook.model_fields if found[field] is not None}
    return kept | {"paused": paused}


def _put(
    name: str, request: Request, services: UiServices, body: dict[str, Any], actor: str | None, note: str
) -> Response:
    written = webhooks_api.put_webhook(name, Response(), services, body, Query(), actor)
    if written.secret is not None:
        return _show_secret(request, name, written.secret, is_new=True)
    return go_to(request, "webhooks", name, note=note)


def _show_secret(request: Request, name: str, secret: str, *, is_new: bool) -> Response:
    """No address leads to this page, and nothing keeps it: the secret is shown once."""
    page = render(request, "webhook_secret.html", nav="webhooks", name=name, secret=secret, is_new=is_new)
    page.headers["Cache-Control"] = "no-store"
    return page
