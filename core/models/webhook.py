"""Webhooks: addresses that receive events, and what became of each delivery."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from core.models.definition import FrozenModel
from core.models.status import StoredEnum


class WebhookEvent(StoredEnum):
    """What a webhook may receive.

    job.failing: the failed tasks of a stage have reached the webhook's number. job.stalled: nothing of the job has
    begun or ended for the webhook's time. schedule.missed: ticks were skipped, since nobody acted on them in time.
    schedule.failed: the job of a tick was refused. webhook.test: somebody asked for a test.
    """

    JOB_COMPLETED = "job.completed"
    JOB_COMPLETED_WITH_ERRORS = "job.completed_with_errors"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_FAILING = "job.failing"
    JOB_STALLED = "job.stalled"
    SCHEDULE_MISSED = "schedule.missed"
    SCHEDULE_FAILED = "schedule.failed"
    WEBHOOK_TEST = "webhook.test"


# All that a webhook can ask for: a test comes on request.
EVENTS_TO_CHOOSE = tuple(event for event in WebhookEvent if event is not WebhookEvent.WEBHOOK_TEST)


class DeliveryStatus(StoredEnum):
    """pending: still to be sent, or sent again. delivered: the receiver took it. dead: nobody sends it any more."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


StoredEvent = Annotated[WebhookEvent, BeforeValidator(WebhookEvent.stored)]
StoredDeliveryStatus = Annotated[DeliveryStatus, BeforeValidator(DeliveryStatus.stored)]


class WebhookRecord(FrozenModel):
    """An address that receives events. It has no secret: its own is made from the app's key and `secret_seed`."""

    name: str = Field(description="The webhook's name.")
    url: str | None = Field(default=None, description="Where deliveries go. Null: url_setting names it.")
    url_setting: str | None = Field(
        default=None, description="The app setting that has the address, for one that is itself a secret."
    )
    events: tuple[str, ...] = Field(description="The events that it receives.")
    job_types: tuple[str, ...] = Field(description="Job types that it is about; a star is any characters. Empty: all.")
    tags: dict[str, Any] | None = Field(default=None, description="Only jobs with all these tags. Null: all.")
    failed_tasks: Annotated[int, Field(ge=1)] = Field(
        default=1, description="For job.failing: the number of failed tasks in one stage."
    )
    stalled_seconds: Annotated[int, Field(ge=60)] = Field(
        default=1800, description="For job.stalled: how long nothing of a job has begun or ended."
    )
    is_paused: bool = Field(default=False, description="True: nothing is written for it, and what waits is not sent.")
    secret_setting: str | None = Field(
        default=None, description="The app setting that has the secret of its signatures. Null: it is made here."
    )
    secret_seed: str | None = Field(
        default=None, description="What the secret is made from, together with COREMACHINE_WEBHOOK_KEY. Useless alone."
    )
    former_seed: str | None = Field(default=None, description="The seed before the latest change of the secret.")
    former_until: datetime | None = Field(
        default=None, description="Until this time deliveries are signed with the former secret too."
    )
    description: str | None = Field(default=None, description="A text for people.")
    revision: Annotated[int, Field(ge=1)] = Field(default=1, description="Raised by each change.")
    last_change: dict[str, Any] = Field(default={}, description="The latest change: action, actor, at.")
    created_at: datetime | None = Field(default=None, description="When it was first written.")
    updated_at: datetime | None = Field(default=None, description="When it was last changed.")


class DeliveryRecord(FrozenModel):
    """One event for one webhook, written in the transaction in which it happened."""

    webhook: str = Field(description="The webhook.")
    delivery_id: str = Field(description="A random id, the same at each attempt: receivers tell repetitions by it.")
    event: StoredEvent = Field(description="What happened, such as job.failed.")
    subject: str = Field(description="The job's id, or the schedule's name.")
    data: dict[str, Any] = Field(default={}, description="What is said of it.")
    status: StoredDeliveryStatus = Field(default=DeliveryStatus.PENDING, description="pending, delivered or dead.")
    attempt: Annotated[int, Field(ge=0)] = Field(default=0, description="How often it was sent.")
    first_attempt: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Attempts before somebody asked to send it again; they spend no retry."
    )
    due_at: datetime = Field(description="While pending: not sent before this time.")
    held_until: datetime | None = Field(
        default=None, description="While an attempt is under way: nobody else sends it before this time."
    )
    http_status: int | None = Field(default=None, description="The latest answer's status. Null: there was none.")
    reason: str | None = Field(default=None, description="Why the latest attempt did not deliver it.")
    created_at: datetime | None = Field(default=None, description="When it happened.")
    settled_at: datetime | None = Field(default=None, description="When it was delivered or given up.")


@dataclass(frozen=True)
class DueDelivery:
    """A delivery that its holder is to send; the fields are those of the two records."""

    webhook: str
    delivery_id: str
    event: str
    subject: str
    data: Mapping[str, Any]
    attempt: int
    first_attempt: int
    created_at: datetime
    url: str | None
    url_setting: str | None
    secret_setting: str | None
    secret_seed: str | None
    # While it counts.
    former_seed: str | None


@dataclass(frozen=True)
class DeliveryAnswer:
    """What came of an attempt. `delay_seconds`: while it stays pending, until the next attempt."""

    status: DeliveryStatus
    http_status: int | None = None
    reason: str | None = None
    delay_seconds: float | None = None


@dataclass(frozen=True)
class PostAnswer:
    """What a receiver answered. `retry_after_seconds`: how long it asks to be left alone; None where it does not."""

    status: int
    retry_after_seconds: float | None = None
