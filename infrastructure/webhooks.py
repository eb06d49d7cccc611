"""Webhooks and their deliveries."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from psycopg.sql import SQL, Composable
from pydantic import TypeAdapter

from core.models.view import Page
from core.models.webhook import DeliveryAnswer, DeliveryRecord, DeliveryStatus, DueDelivery, WebhookRecord
from infrastructure.adapters import as_jsonb
from infrastructure.postgresql import PostgreSQLRepository, columns_of
from infrastructure.queries import check_limit, make_page, read_cursor

_WEBHOOKS = TypeAdapter(tuple[Literal["webhooks"], str])
_DELIVERIES = TypeAdapter(tuple[Literal["webhook_deliveries"], datetime, str])


class WebhookRepository(PostgreSQLRepository):
    """`sql/functions/webhooks.sql`, and what people read of the tables."""

    def put_webhook(self, webhook: WebhookRecord, *, seed: str, actor: str | None) -> tuple[bool, str | None]:
        """Whether it is new, and the seed that counts: the given one if it had none and needs one."""
        parameters = (
            webhook.name,
            webhook.url,
            webhook.url_setting,
            list(webhook.events),
            list(webhook.job_types),
            None if webhook.tags is None else as_jsonb(webhook.tags),
            webhook.failed_tasks,
            webhook.is_paused,
            webhook.secret_setting,
            seed,
            webhook.description,
            actor,
            webhook.stalled_seconds,
        )
        (row,) = self._call("put_webhook", parameters)
        return bool(row["is_new"]), row["seed"]

    def rotate_secret(self, name: str, seed: str, *, both_seconds: float, actor: str | None) -> bool:
        """False: there is no such webhook, or its secret is in an app setting."""
        (row,) = self._call("rotate_webhook_secret", (name, seed, both_seconds, actor))
        return bool(row["rotate_webhook_secret"])

    def delete_webhook(self, name: str, *, actor: str | None) -> bool:
        """Whether it was there."""
        (row,) = self._call("delete_webhook", (name, actor))
        return bool(row["delete_webhook"])

    def add_test_delivery(self, name: str, *, actor: str | None) -> str | None:
        """The id of a delivery that tests the webhook; None for an unknown one."""
        (row,) = self._call("add_test_delivery", (name, actor))
        found: str | None = row["add_test_delivery"]
        return found

    def redeliver(self, name: str, delivery_id: str, *, actor: str | None) -> DeliveryStatus | None:
        """Let it be sent again unless it is pending: its status before; None for an unknown one."""
        (row,) = self._call("redeliver", (name, delivery_id, actor))
        return None if row["redeliver"] is None else DeliveryStatus(row["redeliver"])

    def has_webhooks(self) -> bool:
        """Whether there is any."""
        query = SQL("select exists (select from {}) as found").format(self._table("webhooks"))
        (row,) = self._execute_query("has_webhooks", query, ())
        return bool(row["found"])

    def claim_deliveries(self, limit: int, most_each: int, hold_seconds: float) -> list[DueDelivery]:
        """Deliveries that the caller is to send."""
        return [DueDelivery(**row) for row in self._call("claim_deliveries", (limit, most_each, hold_seconds))]

    def add_reason(self, delivery: DueDelivery, why: Mapping[str, Any]) -> DueDelivery:
        """With the reason why its job does not move, unless it has that already; kept for later attempts."""
        (row,) = self._call("add_delivery_reason", (delivery.webhook, delivery.delivery_id, as_jsonb(dict(why))))
        data = row["add_delivery_reason"]
        return delivery if data is None else replace(delivery, data=data)

    def settle_delivery(self, delivery: DueDelivery, answer: DeliveryAnswer) -> bool:
        """False: it was settled already, or a later attempt has it."""
        parameters = (
            delivery.webhook,
            delivery.delivery_id,
            delivery.attempt,
            answer.status,
            answer.http_status,
            answer.reason,
            answer.delay_seconds,
        )
        (row,) = self._call("settle_delivery", parameters)
        return bool(row["settle_delivery"])

    def prune_deliveries(self, older_than_seconds: float, limit: int) -> int:
        """Delete settled deliveries of that age: how many."""
        (row,) = self._call("prune_deliveries", (older_than_seconds, limit))
        return int(row["prune_deliveries"])

    def find_webhook(self, name: str) -> WebhookRecord | None:
        query = SQL("select {} from {} where name = %s").format(columns_of(WebhookRecord), self._table("webhooks"))
        rows = self._execute_query("find_webhook", query, (name,))
        return WebhookRecord.model_validate(rows[0]) if rows else None

    def list_webhooks(self, *, limit: int = 50, cursor: str | None = None) -> Page[WebhookRecord]:
        """Webhooks by name.

        Raises:
            InvalidCursor, ValueError: As for `JobQueries.find_jobs`.
        """
        after = "" if cursor is None else read_cursor(_WEBHOOKS, cursor)[1]
        check_limit(limit)
        query = SQL("select {} from {} where name > %s order by name limit %s").format(
            columns_of(WebhookRecord), self._table("webhooks")
        )
        rows = self._execute_query("list_webhooks", query, (after, limit + 1))
        return make_page(rows, WebhookRecord, limit, lambda row: _WEBHOOKS.dump_json(("webhooks", row["name"])))

    def list_deliveries(
        self,
        name: str,
        *,
        id_begins: str | None = None,
        statuses: Iterable[DeliveryStatus] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[DeliveryRecord]:
        """Deliveries of a webhook, the newest first. Raises as `list_webhooks`.

        Args:
            id_begins: Those whose id begins with these digits and hyphens.
        """
        conditions: list[Composable] = [SQL("webhook = %s")]
        parameters: list[Any] = [name]
        if id_begins is not None:
            # A range of the primary key: no character of an id comes after `g`.
            conditions.append(SQL("delivery_id >= %s and delivery_id < %s || 'g'"))
            parameters += [id_begins.lower()] * 2
        wanted = [str(status) for status in statuses]
        if wanted:
            conditions.append(SQL("status = any(%s)"))
            parameters.append(wanted)
        if cursor is not None:
            conditions.append(SQL("(created_at, delivery_id) < (%s, %s)"))
            parameters.extend(read_cursor(_DELIVERIES, cursor)[1:])
        check_limit(limit)
        query = SQL("select {} from {} where {} order by created_at desc, delivery_id desc limit %s").format(
            columns_of(DeliveryRecord), self._table("webhook_deliveries"), SQL(" and ").join(conditions)
        )
        rows = self._execute_query("list_deliveries", query, [*parameters, limit + 1])
        return make_page(
            rows,
            DeliveryRecord,
            limit,
            lambda row: _DELIVERIES.dump_json(("webhook_deliveries", row["created_at"], row["delivery_id"])),
        )

    def find_delivery(self, name: str, delivery_id: str) -> DeliveryRecord | None:
        query = SQL("select {} from {} where webhook = %s and delivery_id = %s").format(
            columns_of(DeliveryRecord), self._table("webhook_deliveries")
        )
        rows = self._execute_query("find_delivery", query, (name, delivery_id))
        return DeliveryRecord.model_validate(rows[0]) if rows else None
