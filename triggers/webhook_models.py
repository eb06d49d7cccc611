"""What the endpoints about webhooks take and answer."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from core.basics.canonical import shown
from core.models.fields import JobTypeText, StorableText, Tags, check_no_credential, expectation
from core.models.webhook import (
    EVENTS_TO_CHOOSE,
    DeliveryRecord,
    DeliveryStatus,
    StoredDeliveryStatus,
    WebhookEvent,
    WebhookRecord,
)
from core.safety.credentials import find_credential
from core.webhooks.targets import LONGEST_URL
from jobs.parameters import near_name_hint
from triggers.api_models import PageQuery

MOST_JOB_TYPES = 50
WebhookName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Letters, digits, dots, dashes, underscores.")
]
DeliveryId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="As the list of deliveries has it.")
]
_EVENT_NAMES = [event.value for event in EVENTS_TO_CHOOSE]


def _event(value: Any) -> Any:
    if not isinstance(value, str) or value not in _EVENT_NAMES:
        hint = near_name_hint(str(value)[:50], _EVENT_NAMES)
        raise expectation(f"one of {', '.join(_EVENT_NAMES)}", shown(value, 100), hint)
    return WebhookEvent(value)


def _status(value: Any) -> Any:
    known = [status.value for status in DeliveryStatus]
    if value not in known:
        raise expectation(f"one of {', '.join(known)}", shown(value, 100), near_name_hint(str(value)[:50], known))
    return DeliveryStatus(value)


def _check_url(text: str) -> str:
    if find_credential(text) is not None:
        hint = "put the address into an app setting, and name that as url_setting"
        raise expectation("an address without credentials", "one with a credential", hint)
    return text


_EventName = Annotated[WebhookEvent, BeforeValidator(_event), Field(json_schema_extra={"enum": _EVENT_NAMES})]


class PutWebhook(BaseModel):
    """A webhook as it is to be from now on; what is left out has its default, and a secret that was made stays.

    An address is `url`, or the app setting `url_setting` where the address is itself a secret. In `job_types` a star
    is any characters.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[
        Annotated[StorableText, AfterValidator(_check_url)] | None,
        Field(
            max_length=LONGEST_URL,
            description="https, to a public address.",
            examples=["https://example.org/hook"],
            json_schema_extra={"format": "uri"},
        ),
    ] = None
    url_setting: Annotated[
        str | None, Field(pattern=r"^COREMACHINE_WEBHOOK_URL_[A-Z0-9_]{1,60}$", description="Name of an app setting.")
    ] = None
    events: Annotated[list[_EventName], Field(min_length=1, max_length=20)]
    job_types: Annotated[
        list[JobTypeText],
        Field(
            max_length=MOST_JOB_TYPES,
            description="For jobs of these types alone, with stars for any characters. Left out: of all types.",
            examples=[["flood_*"]],
        ),
    ] = []
    tags: Annotated[Tags | None, Field(description="For jobs that have all of these tags alone.")] = None
    failed_tasks: Annotated[
        int, Field(ge=1, le=1_000_000_000, description="For job.failing: failed tasks in one stage.")
    ] = 1
    stalled_seconds: Annotated[
        int, Field(ge=60, le=31 * 86_400, description="For job.stalled: how long nothing of a job has begun or ended.")
    ] = 1800
    paused: Annotated[bool, Field(description="Nothing is written for it, and what waits is not sent.")] = False
    secret_setting: Annotated[
        str | None,
        Field(
            pattern=r"^COREMACHINE_WEBHOOK_SECRET_[A-Z0-9_]{1,60}$",
            description="Name of an app setting with a secret, `whsec_...`. Left out: one is made, and shown once.",
        ),
    ] = None
    description: Annotated[
        Annotated[StorableText, AfterValidator(check_no_credential)] | None,
        Field(min_length=1, max_length=1000, description="For people."),
    ] = None


class DeliveriesQuery(PageQuery):
    delivery_id: Annotated[
        str | None,
        Field(pattern=r"^[0-9A-Fa-f-]{1,36}$", description="The id, or its beginning: hexadecimal digits and hyphens."),
    ] = None
    status: Annotated[DeliveryStatus | None, BeforeValidator(_status)] = None


class WebhookAnswer(BaseModel):
    """A webhook, without its secret. `both_secrets_until`: until then deliveries have signatures of two secrets."""

    name: str
    url: str | None
    url_setting: str | None
    events: list[str]
    job_types: list[str]
    tags: dict[str, Any] | None
    failed_tasks: int
    stalled_seconds: int = 1800
    paused: bool
    secret_setting: str | None
    both_secrets_until: datetime | None
    description: str | None
    revision: int
    last_change: dict[str, Any]
    created_at: datetime | None
    updated_at: datetime | None


class WrittenWebhook(WebhookAnswer):
    """`secret`: shown here and never again; null where it was shown before, or is in an app setting."""

    secret: str | None


class WebhookSecret(BaseModel):
    """The new secret, shown here and never again. Deliveries are signed with the former one too for a day."""

    name: str
    secret: str


class DeletedWebhook(BaseModel):
    """Its deliveries are deleted too; one that is on its way may still arrive."""

    name: str


class Delivery(BaseModel):
    """One event for one webhook. `id` is the same at each attempt; `due_at` is the next one's time while pending."""

    id: str
    webhook: str
    event: str
    subject: str
    data: dict[str, Any]
    status: StoredDeliveryStatus
    attempts: int
    due_at: datetime | None
    http_status: int | None
    reason: str | None
    created_at: datetime | None
    settled_at: datetime | None


def webhook_fields(webhook: WebhookRecord) -> dict[str, Any]:
    """The fields of a `WebhookAnswer`."""
    found = {name: value for name, value in webhook if name in WebhookAnswer.model_fields}
    return found | {"paused": webhook.is_paused, "both_secrets_until": webhook.former_until}


def delivery_of(delivery: DeliveryRecord) -> Delivery:
    found = {name: value for name, value in delivery if name in Delivery.model_fields}
    found["due_at"] = delivery.due_at if delivery.status is DeliveryStatus.PENDING else None
    return Delivery(**found, id=delivery.delivery_id, attempts=delivery.attempt)
