"""What a receiver does with a message it holds: from a disposition on the link, or by `$management`."""

from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL, DecodeError
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.message import RawPairs, property_changes
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
    code_of,
    disposition_frame,
    rejected_with,
)
from coremachine.local.broker.stored import AlreadyDead, LockLost, MessageNotFound, SessionLockLost, SessionRequired

LOCK_LOST_CONDITION = "com.microsoft:message-lock-lost"
SESSION_LOST_CONDITION = "com.microsoft:session-lock-lost"
_REASON, _DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"
_ACCEPTED_PREFIX = b"\x00\x53\x24"

QueueProblem = LockLost | SessionLockLost | MessageNotFound | AlreadyDead | SessionRequired
QUEUE_PROBLEMS = (LockLost, SessionLockLost, MessageNotFound, AlreadyDead, SessionRequired)
_CONDITIONS: dict[type, str] = {
    LockLost: LOCK_LOST_CONDITION,
    SessionLockLost: SESSION_LOST_CONDITION,
    MessageNotFound: "com.microsoft:message-not-found",
    AlreadyDead: "amqp:not-allowed",
    SessionRequired: "amqp:not-allowed",
}


def as_amqp_error(problem: QueueProblem) -> AmqpError:
    return AmqpError(_CONDITIONS[type(problem)], str(problem))


def apply_outcome(entity: Entity, token: UUID, state: bytes) -> bytes:
    """Settle a lock with the outcome of a disposition.

    Returns:
        The state to answer: the same outcome, or rejected with the reason why it was not applied.
    """
    try:
        if state.startswith(_ACCEPTED_PREFIX):
            entity.queue.complete(token)
            return OUTCOME_ACCEPTED
        return _apply(entity, token, state)
    except QUEUE_PROBLEMS as problem:
        return rejected_with(as_amqp_error(problem))
    except DecodeError as exc:
        return rejected_with(AmqpError("amqp:decode-error", str(exc)))
    except AmqpError as error:
        return rejected_with(error)


def _apply(entity: Entity, token: UUID, state: bytes) -> bytes:
    if state[:1] != b"\x00":
        raise DecodeError("an outcome", f"0x{state[:1].hex()}", 0)
    descriptor, position = codec.decode(state, 1)
    code, fields = code_of(descriptor), codec.split_compound(state, position)
    if code == ACCEPTED:
        entity.queue.complete(token)
        return OUTCOME_ACCEPTED
    if code == RELEASED:
        entity.queue.release(token)
        return OUTCOME_RELEASED
    if code == MODIFIED:
        is_deferral = len(fields) > 1 and codec.decode(fields[1])[0] is True
        changes = property_changes(fields[2] if len(fields) > 2 else NULL)  # noqa: PLR2004
        entity.queue.defer(token, changes) if is_deferral else entity.queue.abandon(token, changes)
        return OUTCOME_MODIFIED
    if code == REJECTED:
        entity.queue.dead_letter(token, *_dead_letter_reason(fields))
        return OUTCOME_REJECTED
    raise AmqpError("amqp:not-implemented", f"expected a terminal outcome, found {repr(descriptor)[:100]}")


def _dead_letter_reason(fields: list[bytes]) -> tuple[str | None, str | None, RawPairs]:
    """Reason and description out of the error's info, whose other entries are application properties to set."""
    error = fields[0] if fields else NULL
    if error == NULL:
        return None, None, []
    parts = codec.split_compound(error, codec.skip(error, 1))
    if len(parts) < 3 or parts[2] == NULL:  # noqa: PLR2004
        return None, None, []
    changes = {str(codec.decode(key)[0]): (key, value) for key, value in property_changes(parts[2])}
    texts = [text_or_none(codec.decode(changes.pop(name, (NULL, NULL))[1])[0]) for name in (_REASON, _DESCRIPTION)]
    return texts[0], texts[1], list(changes.values())


def text_or_none(value: codec.Value) -> str | None:
    return value if isinstance(value, str) else None


class SettlementAnswers:
    """Answers to deliveries, joined into ranges: one frame for many of the same fate."""

    def __init__(self, *, is_receiver: bool) -> None:
        self._is_receiver = is_receiver
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
        return [disposition_frame(channel, *each, is_receiver=self._is_receiver) for each in ranges]
