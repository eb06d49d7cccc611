"""Endpoints about webhooks: write, look at, test, give another secret, send again, delete."""

from collections.abc import Iterable
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi import Query as InQuery
from pydantic_core import PydanticCustomError

from core.models.view import Page
from core.models.webhook import DeliveryRecord, DeliveryStatus, WebhookRecord
from core.webhooks.signing import WebhookSettingWrong
from core.webhooks.webhooks import WebhookWish, WrittenWebhook
from triggers import api_models, problems
from triggers import webhook_models as models
from triggers.actor import Actor
from triggers.endpoints import JsonBody, NoQuery, OneValueRoute, body_schema, parse_body
from triggers.problems import ProblemError

router = APIRouter(tags=["webhooks"], route_class=OneValueRoute)


class WebhookCommands(Protocol):
    """`core.webhooks.webhooks.Webhooks`."""

    def put(self, wish: WebhookWish, *, actor: str | None = None) -> WrittenWebhook | None: ...
    def rotate_secret(self, name: str, *, actor: str | None = None) -> str | None: ...


class WebhookQueries(Protocol):
    """`infrastructure.webhooks.WebhookRepository`."""

    def delete_webhook(self, name: str, *, actor: str | None) -> bool: ...
    def add_test_delivery(self, name: str, *, actor: str | None) -> str | None: ...
    def redeliver(self, name: str, delivery_id: str, *, actor: str | None) -> DeliveryStatus | None: ...
    def find_webhook(self, name: str) -> WebhookRecord | None: ...
    def list_webhooks(self, *, limit: int = 50, cursor: str | None = None) -> Page[WebhookRecord]: ...
    def list_deliveries(
        self,
        name: str,
        *,
        id_begins: str | None = None,
        statuses: Iterable[DeliveryStatus] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[DeliveryRecord]: ...
    def find_delivery(self, name: str, delivery_id: str) -> DeliveryRecord | None: ...


class WebhookServices(Protocol):
    """All that these endpoints need."""

    @property
    def webhooks(self) -> WebhookCommands: ...
    @property
    def webhook_queries(self) -> WebhookQueries: ...


def _services(request: Request) -> WebhookServices:
    services: WebhookServices = request.app.state.get_services()
    return services


Services = Annotated[WebhookServices, Depends(_services)]
NamePath = Annotated[models.WebhookName, Path()]
DeliveryPath = Annotated[models.DeliveryId, Path()]


@router.get("/webhooks", response_model_exclude_unset=True)
def list_webhooks(
    request: Request, services: Services, query: Annotated[api_models.PageQuery, InQuery()]
) -> api_models.Page[models.WebhookAnswer]:
    """Webhooks by name, without their secrets."""
    page = services.webhook_queries.list_webhooks(limit=query.limit, cursor=query.cursor)
    return api_models.page_of(map(_answer, page.items), page.next_cursor, request)


@router.get("/webhooks/{name}")
def get_webhook(name: NamePath, services: Services, query: NoQuery) -> models.WebhookAnswer:
    """One webhook, without its secret."""
    del query
    return _answer(_find(services, name))


@router.put(
    "/webhooks/{name}",
    openapi_extra=body_schema(models.PutWebhook, required=True),
    responses={201: {"model": models.WrittenWebhook, "description": "It is new"}},
)
def put_webhook(
    name: NamePath, response: Response, services: Services, body: JsonBody, query: NoQuery, actor: Actor
) -> models.WrittenWebhook:
    """Write a webhook, or replace the one of this name. A new one is answered with its secret, this once.

    From then on what it asks for is written down with each transition, and sent as an event of CloudEvents 1.0, signed
    as Standard Webhooks describes.
    """
    del query
    asked = dict(parse_body(models.PutWebhook, body))
    wish = WebhookWish(
        name=name,
        is_paused=asked.pop("paused"),
        events=tuple(asked.pop("events")),
        job_types=tuple(asked.pop("job_types")),
        **asked,
    )
    try:
        written = services.webhooks.put(wish, actor=actor)
    except PydanticCustomError as error:
        item = {"type": error.type, "ctx": error.context, "loc": ("body", "webhook"), "msg": str(error)}
        raise problems.invalid_request([problems.field_problem(item)]) from error
    except WebhookSettingWrong as error:
        raise _wrong_setting(error) from error
    if written is None:
        raise ProblemError(409, "webhook_deleted", f"Webhook {name} was deleted at the same time; send it again.")
    response.status_code = 201 if written.is_new else 200
    return models.WrittenWebhook(**models.webhook_fields(written.webhook), secret=written.secret)


@router.delete("/webhooks/{name}")
def delete_webhook(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> models.DeletedWebhook:
    """Delete a webhook and its deliveries."""
    del query
    if not services.webhook_queries.delete_webhook(name, actor=actor):
        raise _unknown(name)
    return models.DeletedWebhook(name=name)


@router.post("/webhooks/{name}/rotate-secret")
def rotate_webhook_secret(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> models.WebhookSecret:
    """Make another secret, and show it this once. For a day deliveries are signed with the former one too."""
    del query
    try:
        secret = services.webhooks.rotate_secret(name, actor=actor)
    except WebhookSettingWrong as error:
        raise _wrong_setting(error) from error
    if secret is None:
        setting = _find(services, name).secret_setting
        raise ProblemError(
            409, "secret_in_setting", f"The secret of {name} is in the app setting {setting}; change it."
        )
    return models.WebhookSecret(name=name, secret=secret)


@router.post("/webhooks/{name}/test", status_code=202)
def test_webhook(name: NamePath, services: Services, query: NoQuery, actor: Actor) -> models.Delivery:
    """Send an event `webhook.test` to it."""
    del query
    delivery_id = services.webhook_queries.add_test_delivery(name, actor=actor)
    if delivery_id is None:
        raise _unknown(name)
    return _find_delivery(services, name, delivery_id)


@router.get("/webhooks/{name}/deliveries", response_model_exclude_unset=True)
def list_deliveries(
    name: NamePath, request: Request, services: Services, query: Annotated[models.DeliveriesQuery, InQuery()]
) -> api_models.Page[models.Delivery]:
    """Its deliveries, the newest first. Settled ones are kept for 30 days."""
    statuses = () if query.status is None else (query.status,)
    page = services.webhook_queries.list_deliveries(
        name, id_begins=query.delivery_id, statuses=statuses, limit=query.limit, cursor=query.cursor
    )
    if not page.items:
        _find(services, name)
    return api_models.page_of(map(models.delivery_of, page.items), page.next_cursor, request)


@router.post("/webhooks/{name}/deliveries/{delivery_id}/redeliver", status_code=202)
def redeliver(
    name: NamePath, delivery_id: DeliveryPath, services: Services, query: NoQuery, actor: Actor
) -> models.Delivery:
    """Send a dead or delivered one again, with the same id and all attempts. One that is pending stays as it is."""
    del query
    if services.webhook_queries.redeliver(name, delivery_id, actor=actor) is None:
        raise _unknown_delivery(name, delivery_id)
    return _find_delivery(services, name, delivery_id)


def _find(services: WebhookServices, name: str) -> WebhookRecord:
    found = services.webhook_queries.find_webhook(name)
    if found is None:
        raise _unknown(name)
    return found


def _find_delivery(services: WebhookServices, name: str, delivery_id: str) -> models.Delivery:
    found = services.webhook_queries.find_delivery(name, delivery_id)
    if found is None:
        raise _unknown_delivery(name, delivery_id)
    return models.delivery_of(found)


def _answer(webhook: WebhookRecord) -> models.WebhookAnswer:
    return models.WebhookAnswer(**models.webhook_fields(webhook))


def _unknown(name: str) -> ProblemError:
    return ProblemError(404, "unknown_webhook", f"There is no webhook {name}.")


def _unknown_delivery(name: str, delivery_id: str) -> ProblemError:
    return ProblemError(404, "unknown_delivery", f"Webhook {name} has no delivery {delivery_id}.")


def _wrong_setting(error: WebhookSettingWrong) -> ProblemError:
    return ProblemError(409, "webhook_setting", str(error))
