"""What the dead-letter functions run: a dead message is written down, and then it may leave its queue."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.models.dead_letter import DeadLetter, RecordedLetter
from core.operating.dead_letters import keep_body, keep_text, read_reference
from core.safety.safe_log import safe_logger
from triggers.delivery import Delivery, pause_seconds
from triggers.services import get_services

log = safe_logger(__name__)

_REASON, _DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"
_KEPT_ID = 200
# Of a host that gives no time.
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class LetterRecorder(Protocol):
    """`core.operating.dead_letters.DeadLetters`."""

    def record(self, letter: DeadLetter) -> RecordedLetter: ...


def find_recorder() -> LetterRecorder:
    """The process's own."""
    return get_services().dead_letters


def receive_dead_letter(
    queue: str,
    message: Delivery,
    *,
    get_recorder: Callable[[], LetterRecorder] = find_recorder,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Write a dead message down. Returning completes it, so this returns only when the row is committed.

    Args:
        queue: The logical name of the queue that gave it up.

    Raises:
        Exception: Whatever kept the row from being written; the message stays in the dead-letter queue. It comes back
            at once, and no count of deliveries ends that: hence a pause first, whatever the error.
    """
    try:
        get_recorder().record(read_letter(queue, message))
    except Exception as error:
        seconds = pause_seconds(message.delivery_count)
        if is_outage := isinstance(error, StoreUnavailable):
            outage.note(str(error))
        log.log(
            logging.DEBUG if is_outage else logging.WARNING,
            "dead_letter_kept",
            extra={
                "checkpoint": "MESSAGE_KEPT",
                "queue": queue,
                "message_id": message.message_id,
                "reason": str(error),
                "pause_seconds": seconds,
            },
        )
        pause(seconds)
        raise


def read_letter(queue: str, message: Delivery) -> DeadLetter:
    """All that can be read of a dead message, of any kind."""
    body = message.get_body()
    properties = message.application_properties or {}
    return DeadLetter(
        queue=queue,
        message_id=(keep_text(message.message_id) or "")[:_KEPT_ID],
        sequence_number=message.sequence_number or 0,
        enqueued_at=_as_utc(message.enqueued_time_utc or _NO_TIME),
        reference=read_reference(queue, body, properties),
        reason=_text(properties.get(_REASON)),
        description=_text(properties.get(_DESCRIPTION)),
        delivery_count=message.delivery_count or 0,
        correlation_id=(keep_text(message.correlation_id) or "")[:_KEPT_ID] or None,
        body=keep_body(body),
        body_size=len(body),
    )


def _as_utc(told: datetime) -> datetime:
    """The host sends it without a zone; it is UTC. One whose zone takes it beyond all years is no time."""
    try:
        return told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC)
    except OverflowError:
        return _NO_TIME


def _text(value: object) -> str | None:
    return None if value is None else keep_text(str(value))
