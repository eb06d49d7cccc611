"""Sends deliveries that are due: in threads of its own, so that a silent receiver keeps nobody else waiting."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC
from json import dumps
from threading import Event, Thread
from typing import Any

from core.basics.faults import fault_point
from core.basics.version import VERSION
from core.errors import StoreUnavailable
from core.models.webhook import DeliveryAnswer, DeliveryStatus, DueDelivery, PostAnswer, WebhookEvent
from core.ports import DeliveryStore, Poster
from core.safety.safe_log import safe_logger
from core.webhooks.signing import WebhookSecrets, WebhookSettingWrong, sign

log = safe_logger(__name__)

# Seconds after each attempt that failed: nine attempts within a day.
RETRY_DELAYS = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 28_800.0, 28_800.0)
LANES = 16
MOST_PER_WEBHOOK = 2
# Longer than an attempt can last: a delivery whose sender died is sent by another after this time.
HOLD_SECONDS = 120.0
PAUSE_SECONDS = 1.0
KEPT_SECONDS = 30 * 86_400.0
_PRUNE_EVERY_SECONDS = 3600.0
_PRUNED_PER_CALL = 1000
# A receiver that asks for more patience than this waits for the next attempt all the same.
LONGEST_DELAY = 86_400.0
_GONE = 410


class NotDelivered(Exception):
    """No answer came, or the address may not be connected to; the text is the reason, without the address."""


class WebhookSender:
    """Any number may send at once: rows decide who sends what.

    Args:
        source: `source` of the events, the same in all processes.
        explain_job: Why a job does not move, as a JSON-able object; None for a job that is gone.
        read_clock: Seconds since 1970, for the signatures.
    """

    def __init__(
        self,
        store: DeliveryStore,
        poster: Poster,
        secrets: WebhookSecrets,
        *,
        source: str,
        explain_job: Callable[[str], Mapping[str, Any] | None] = lambda _job_id: None,
        read_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._poster = poster
        self._secrets = secrets
        self._source = source
        self._explain_job = explain_job
        self._read_clock = read_clock
        self._prune_at = 0.0

    def run(self, stop: Event) -> None:
        """Send what is due, until there is no webhook any more or somebody stops it.

        Raises:
            StoreUnavailable: The database is away; what was sent meanwhile is sent again, with the same id.
        """
        on_their_way: set[Future[None]] = set()
        while not stop.is_set():
            free = LANES - len(on_their_way)
            if free:
                found = self._store.claim_deliveries(free, MOST_PER_WEBHOOK, HOLD_SECONDS)
                on_their_way |= {self._begin(delivery) for delivery in found}
            if on_their_way:
                done, on_their_way = wait(on_their_way, timeout=PAUSE_SECONDS, return_when=FIRST_COMPLETED)
                for each in done:
                    each.result()
            elif not self._store.has_webhooks():
                return
            else:
                self._prune()
                stop.wait(PAUSE_SECONDS)
        wait(on_their_way)

    def _begin(self, delivery: DueDelivery) -> Future[None]:
        """In a thread that keeps no process from its end, as those of an executor would."""
        future: Future[None] = Future()

        def work() -> None:
            try:
                self.deliver(delivery)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)
            else:
                future.set_result(None)

        Thread(target=work, name="webhook", daemon=True).start()
        return future

    def _prune(self) -> None:
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_EVERY_SECONDS
            self._store.prune_deliveries(KEPT_SECONDS, _PRUNED_PER_CALL)

    def deliver(self, delivery: DueDelivery) -> None:
        """One attempt, and the note of what came of it."""
        try:
            answer = self._attempt(delivery)
        except StoreUnavailable:
            raise
        except Exception as error:
            # One delivery keeps none of the others from being sent.
            log.exception("webhook_delivery_broken", extra={"webhook": delivery.webhook})
            answer = _again(delivery, f"internal error: {type(error).__name__}")
        fault_point("webhook.sent")
        self._store.settle_delivery(delivery, answer)
        if answer.status is not DeliveryStatus.DELIVERED:
            details = {"webhook": delivery.webhook, "delivery_id": delivery.delivery_id, "attempt": delivery.attempt}
            log.warning("webhook_not_delivered", extra={**details, "status": answer.status, "reason": answer.reason})

    def _with_reason(self, delivery: DueDelivery) -> DueDelivery:
        """With the reason of a stalled job, as it was before the first attempt."""
        if delivery.event != WebhookEvent.JOB_STALLED or "why" in delivery.data:
            return delivery
        try:
            why = self._explain_job(delivery.subject)
        except StoreUnavailable:
            raise
        except Exception:
            # The event is worth more than its reason, which its receiver can ask for.
            log.exception("webhook_reason_not_found", extra={"job_id": delivery.subject})
            return delivery
        return delivery if why is None else self._store.add_reason(delivery, why)

    def _attempt(self, delivery: DueDelivery) -> DeliveryAnswer:
        try:
            url = delivery.url or self._secrets.read_setting(delivery.url_setting or "")
            secrets = self._secrets.find(delivery.secret_setting, delivery.secret_seed, delivery.former_seed)
        except WebhookSettingWrong as error:
            return _again(delivery, str(error))
        body = write_event(self._with_reason(delivery), self._source)
        timestamp = int(self._read_clock())
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": f"CoreMachine/{VERSION}",
            "webhook-id": delivery.delivery_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(secrets, delivery.delivery_id, timestamp, body),
        }
        try:
            answer = self._poster.post(url, headers, body)
        except NotDelivered as error:
            return _again(delivery, str(error))
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004 - as HTTP has them
            return DeliveryAnswer(DeliveryStatus.DELIVERED, status)
        if status == _GONE:
            return DeliveryAnswer(DeliveryStatus.DEAD, status, "the receiver is gone for good (410)")
        return _again(delivery, f"expected an answer from 200 to 299, found {status}", answer)


def write_event(delivery: DueDelivery, source: str) -> bytes:
    """The body: an event of CloudEvents 1.0 in its JSON format, the same bytes at each attempt."""
    event = {
        "specversion": "1.0",
        "id": delivery.delivery_id,
        "source": source,
        "type": f"coremachine.{delivery.event}",
        "subject": delivery.subject,
        "time": delivery.created_at.astimezone(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": dict(delivery.data),
    }
    return dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _again(delivery: DueDelivery, reason: str, answer: PostAnswer | None = None) -> DeliveryAnswer:
    """Not before the time that the receiver asks for, which spends an attempt like any other."""
    http_status, wished = (answer.status, answer.retry_after_seconds or 0.0) if answer else (None, 0.0)
    tries = delivery.attempt - delivery.first_attempt
    if tries > len(RETRY_DELAYS):
        return DeliveryAnswer(DeliveryStatus.DEAD, http_status, f"{reason}; this was attempt {tries}, the last one")
    delay = max(RETRY_DELAYS[tries - 1], min(wished, LONGEST_DELAY))
    return DeliveryAnswer(DeliveryStatus.PENDING, http_status, reason, delay)
