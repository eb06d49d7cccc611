"""What the queue functions run: a body becomes a model, the machine does the rest.

A task's failure is recorded by the machine and never raised here: the host would hand the message out again at once.
What no delivery more can help (nobody can read it, or its sender must change it) is written down among the dead letters
with its reason, and leaves the queue. What is raised keeps the message with the broker, and after its deliveries in the
dead-letter queue.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from pydantic import ValidationError

from core.app_queues import JOBS_QUEUE
from core.errors import DeliveryError, Draining, MessageRefused, StoreUnavailable
from core.models.message import (
    JOB_KIND,
    STAGE_KIND,
    SUBMISSION_FIELDS,
    JobQueueMessage,
    read_job_message,
    read_task_message,
)
from core.operating.dead_letters import keep_text
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from jobs.parameters import nearest_name_hint
from triggers.dead_letters import LetterRecorder, find_recorder, read_letter
from triggers.delivery import Delivery, pause_seconds
from triggers.ports import MessageProcessor, ServicesNotReady
from triggers.services import get_services
from triggers.traces import in_trace_of

log = safe_logger(__name__)

_SHOWN_PROBLEMS, _SHOWN_FIELDS = 3, 20
_LONGEST_NAME = 100

M = TypeVar("M")


class MessageUnreadable(MessageRefused):
    """The message is no JSON, or none of what its queue carries."""

    def __init__(self, message_id: str, expected: str, problems: str) -> None:
        super().__init__(type(self).__name__, f"message {message_id}: expected {expected}; {problems}")


def _machine() -> MessageProcessor:
    return get_services().machine


def receive_job_message(
    message: Delivery,
    *,
    get_machine: Callable[[], MessageProcessor] = _machine,
    get_recorder: Callable[[], LetterRecorder] = find_recorder,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Plan, finalize or submit what a message of the jobs queue names.

    Raises:
        StoreUnavailable, DeliveryError, Draining, ServicesNotReady: The message stays with the broker.
    """
    with (
        in_trace_of(message.application_properties),
        _pausing_while_unavailable(message, pause),
        _recording_refusals(JOBS_QUEUE, message, get_recorder),
    ):
        parsed = _read(message, "a JobQueueMessage or StageCompleteMessage", partial(read_job_message, JOBS_QUEUE))
        get_machine().process_job_message(parsed, is_again=(message.delivery_count or 1) > 1)


def receive_task_message(
    message: Delivery,
    *,
    queue: str,
    get_machine: Callable[[], MessageProcessor] = _machine,
    get_recorder: Callable[[], LetterRecorder] = find_recorder,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Run the tasks that a message names. Raises as `receive_job_message` does.

    Args:
        queue: Logical name of the queue that it came from.
    """
    with (
        in_trace_of(message.application_properties),
        _pausing_while_unavailable(message, pause),
        _recording_refusals(queue, message, get_recorder),
    ):
        parsed = _read(message, "a TaskQueueMessage", partial(read_task_message, queue))
        get_machine().process_task_message(parsed, queue=queue)


@contextmanager
def _recording_refusals(queue: str, message: Delivery, get_recorder: Callable[[], LetterRecorder]) -> Iterator[None]:
    """Returning completes the message, so this returns only when its row is committed. The state manager logs it."""
    try:
        yield
    except MessageRefused as refusal:
        letter = replace(read_letter(queue, message), reason=refusal.reason, description=keep_text(str(refusal)))
        get_recorder().record(letter)


def _read(message: Delivery, expected: str, parse: Callable[[bytes], M]) -> M:
    try:
        parsed = parse(message.get_body())
    except ValidationError as error:
        # Not from it: its text quotes the body.
        raise MessageUnreadable(message.message_id, expected, _reason(error)) from None
    if strange := getattr(parsed, "model_extra", None):
        _tell_strange(message, parsed, sorted(strange))
    log.debug("message_received", extra=_context(message))
    return parsed


def _tell_strange(message: Delivery, parsed: object, names: list[str]) -> None:
    """A newer release may send fields that are not known; in a submission, which people write, it may be an error."""
    told = [redacted_start(name, _LONGEST_NAME) for name in names[:_SHOWN_FIELDS]]
    if not (isinstance(parsed, JobQueueMessage) and parsed.job_id is None):
        log.info("message_fields_not_known", extra={**_context(message), "fields": told})
        return
    hints = [f"{name!r}: {nearest_name_hint(name, SUBMISSION_FIELDS)}" for name in told[:_SHOWN_PROBLEMS]]
    extra = {"checkpoint": "SUBMISSION_FIELDS_NOT_KNOWN", **_context(message), "fields": told, "hint": "; ".join(hints)}
    log.warning("submission_fields_not_known", extra=extra)


def _reason(error: ValidationError) -> str:
    """The first problems, without the message's values."""
    problems = error.errors(include_input=False, include_url=False)[:_SHOWN_PROBLEMS]
    return "; ".join(f"{_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in problems)


def _place(loc: tuple[str | int, ...]) -> str:
    return ".".join(map(str, loc[1:] if loc[:1] in {(JOB_KIND,), (STAGE_KIND,)} else loc)) or "body"


@contextmanager
def _pausing_while_unavailable(message: Delivery, pause: Callable[[float], None]) -> Iterator[None]:
    """An abandoned message comes back at once: an outage, or a process that ends, would soon use up its deliveries."""
    try:
        yield
    except (StoreUnavailable, DeliveryError, Draining, ServicesNotReady) as error:
        seconds = pause_seconds(message.delivery_count)
        extra = {"checkpoint": "MESSAGE_KEPT", **_context(message), "reason": str(error), "pause_seconds": seconds}
        # An outage is logged once a minute for all messages, where it was met.
        log.log(logging.DEBUG if isinstance(error, StoreUnavailable) else logging.WARNING, "message_kept", extra=extra)
        pause(seconds)
        raise


def _context(message: Delivery) -> dict[str, str | int | None]:
    return {
        "message_id": message.message_id,
        "correlation_id": message.correlation_id,
        "delivery_count": message.delivery_count,
    }
