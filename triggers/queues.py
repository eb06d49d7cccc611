"""What the queue functions run: a body becomes a model, the machine does the rest.

A task's failure is recorded by the machine and never raised here: the host would hand the message out again at once.
What is raised keeps the message with the broker, and after its deliveries in the dead-letter queue.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from pydantic import ValidationError

from core.errors import DeliveryError, Draining, StoreUnavailable
from core.models.message import read_job_message, read_task_message
from core.orchestration_manager import JOBS_QUEUE
from core.safe_log import safe_logger
from triggers.ports import MessageProcessor, ServicesNotReady
from triggers.services import get_services

log = safe_logger(__name__)

MAX_PAUSE_SECONDS = 15.0
_SHOWN_BYTES = 200
_SHOWN_PROBLEMS = 3

M = TypeVar("M")


class Delivery(Protocol):
    """`azure.functions.ServiceBusMessage`, as far as it is needed."""

    @property
    def message_id(self) -> str: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def delivery_count(self) -> int | None: ...
    def get_body(self) -> bytes: ...


class MessageUnreadable(ValueError):
    """The message is no JSON, or none of what its queue carries; it belongs into the dead-letter queue."""

    def __init__(self, message_id: str, expected: str, reason: str) -> None:
        super().__init__(f"message {message_id}: expected {expected}; {reason}")


def _machine() -> MessageProcessor:
    return get_services().machine


def receive_job_message(
    message: Delivery,
    *,
    get_machine: Callable[[], MessageProcessor] = _machine,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Plan, finalize or submit what a message of the jobs queue names.

    Raises:
        MessageUnreadable, StoreUnavailable, DeliveryError, Draining, ServicesNotReady: The message stays with the
            broker.
    """
    parsed = _read(message, "a JobQueueMessage or StageCompleteMessage", partial(read_job_message, JOBS_QUEUE))
    with _pausing_while_unavailable(message, pause):
        get_machine().process_job_message(parsed)


def receive_task_message(
    message: Delivery,
    *,
    queue: str,
    get_machine: Callable[[], MessageProcessor] = _machine,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Run the tasks that a message names. Raises as `receive_job_message` does.

    Args:
        queue: Logical name of the queue that it came from.
    """
    parsed = _read(message, "a TaskQueueMessage", partial(read_task_message, queue))
    with _pausing_while_unavailable(message, pause):
        get_machine().process_task_message(parsed)


def _read(message: Delivery, expected: str, parse: Callable[[bytes], M]) -> M:
    body = message.get_body()
    try:
        parsed = parse(body)
    except ValidationError as error:
        found = body[:_SHOWN_BYTES].decode("utf-8", errors="replace")
        extra = {"checkpoint": "MESSAGE_UNREADABLE", **_context(message), "expected": expected, "found": found}
        log.exception("message_unreadable", extra=extra)
        raise MessageUnreadable(message.message_id, expected, _reason(error)) from error
    if strange := getattr(parsed, "model_extra", None):
        log.info("message_fields_not_known", extra={**_context(message), "fields": sorted(strange)[:_SHOWN_PROBLEMS]})
    log.debug("message_received", extra=_context(message))
    return parsed


def _reason(error: ValidationError) -> str:
    """The first problems, without the message's values."""
    problems = error.errors(include_input=False, include_url=False)[:_SHOWN_PROBLEMS]
    return "; ".join(": ".join([".".join(map(str, item["loc"])) or "body", item["msg"]]) for item in problems)


@contextmanager
def _pausing_while_unavailable(message: Delivery, pause: Callable[[float], None]) -> Iterator[None]:
    """An abandoned message comes back at once: an outage, or a process that ends, would soon use up its deliveries."""
    try:
        yield
    except (StoreUnavailable, DeliveryError, Draining, ServicesNotReady) as error:
        seconds = pause_seconds(message.delivery_count)
        extra = {"checkpoint": "MESSAGE_KEPT", **_context(message), "reason": str(error), "pause_seconds": seconds}
        # An outage is told once a minute for all messages, where it was met.
        log.log(logging.DEBUG if isinstance(error, StoreUnavailable) else logging.WARNING, "message_kept", extra=extra)
        pause(seconds)
        raise


def pause_seconds(delivery_count: int | None) -> float:
    """1, 2, 4, ... up to MAX_PAUSE_SECONDS: ten deliveries outlast an outage of about two minutes."""
    return min(2.0 ** (max(delivery_count or 1, 1) - 1), MAX_PAUSE_SECONDS)


def _context(message: Delivery) -> dict[str, str | int | None]:
    return {
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "delivery_count": message.delivery_count,
    }
