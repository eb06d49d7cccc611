"""What a receiver does with a message it holds: from a disposition on the link, or by `$management`."""

from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.performatives import (
    ACCEPTED,
    MODIFIED,
    OUTCOME_ACCEPTED,
    OUTCOME_MODIFIED,
    OUTCOME_REJECTED,
    OUTCOME_RELEASED,
    REJECTED,
    RELEASED,
    AmqpError,
    disposition_frame,
    rejected_with,
)
from coremachine.local.broker.queue import LockLost

LOCK_LOST_CONDITION = "com.microsoft:message-lock-lost"


def apply_outcome(entity: Entity, token: UUID, state: bytes) -> bytes:
    """Settle a lock with the outcome of a disposition.

    Returns:
        The state to answer: the same outcome, or rejected with the reason why it was not applied.
    """
    code, position = codec.decode(state, 1)
    value, _ = codec.decode(state, position)
    fields = value if isinstance(value, list) else []
    try:
        if code == ACCEPTED:
            entity.queue.complete(token)
            return OUTCOME_ACCEPTED
        if code == RELEASED:
            entity.queue.release(token)
            return OUTCOME_RELEASED
        if code == MODIFIED:
            is_deferral = len(fields) > 1 and bool(fields[1])
            entity.queue.defer(token) if is_deferral else entity.queue.abandon(token)
            return OUTCOME_MODIFIED
        if code == REJECTED:
            entity.queue.dead_letter(token, *_dead_letter_reason(fields))
            return OUTCOME_REJECTED
    except LockLost as lost:
        return rejected_with(AmqpError(LOCK_LOST_CONDITION, str(lost)))
    return rejected_with(AmqpError("amqp:not-implemented", f"expected a terminal outcome, found code {code!r}"))


def _dead_letter_reason(fields: list[codec.Value]) -> tuple[str | None, str | None]:
    error = fields[0] if fields else None
    info = error[2] if isinstance(error, list) and len(error) > 2 else None  # noqa: PLR2004
    if not isinstance(info, dict):
        return None, None
    return text_or_none(info.get("DeadLetterReason")), text_or_none(info.get("DeadLetterErrorDescription"))


def text_or_none(value: codec.Value) -> str | None:
    return value if isinstance(value, str) else None


class SendAnswers:
    """Answers to sends, joined into ranges: one frame for many deliveries of the same fate."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, bytes]] = []

    def add(self, delivery_id: int, state: bytes) -> None:
        if self._ranges:
            first, last, known = self._ranges[-1]
            if delivery_id == last + 1 and known == state:
                self._ranges[-1] = (first, delivery_id, state)
                return
        self._ranges.append((delivery_id, delivery_id, state))

    def take_frames(self, channel: int) -> list[bytes]:
        ranges, self._ranges = self._ranges, []
        return [disposition_frame(channel, *each, is_receiver=True) for each in ranges]
