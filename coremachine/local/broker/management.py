"""`<entity>/$management`: renewals, scheduling, peeking, deferred messages, and settling without a link."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.entity import Entity, Faults
from coremachine.local.broker.message import decode_request, encode_delivery, encode_response, parse_message
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import LockLost, MessageNotFound
from coremachine.local.broker.settlement import LOCK_LOST_CONDITION, text_or_none

_PREFIX = "com.microsoft:"
_ARGUMENT_ERROR = "com.microsoft:argument-error"
_MAX_PEEK_BYTES = 512 * 1024
_OK, _NO_CONTENT = 200, 204
_STATUS_CODES = {
    _ARGUMENT_ERROR: 400,
    LOCK_LOST_CONDITION: 410,
    "com.microsoft:message-not-found": 404,
    "com.microsoft:server-busy": 503,
    "amqp:not-implemented": 501,
}

Body = dict[str, codec.Value]
Answer = tuple[int, bytes]
T = TypeVar("T")


class Management:
    """Answers the management requests of one entity."""

    def __init__(self, entity: Entity, faults: Faults) -> None:
        self._entity = entity
        self._queue = entity.queue
        self._faults = faults
        self._operations: dict[str, Callable[[Body], Answer]] = {
            "renew-lock": self._renew_lock,
            "schedule-message": self._schedule_message,
            "cancel-scheduled-message": self._cancel_scheduled_message,
            "peek-message": self._peek_message,
            "receive-by-sequence-number": self._receive_by_sequence_number,
            "update-disposition": self._update_disposition,
        }

    def answer(self, request: bytes) -> bytes:
        """The encoded answer to an encoded request; errors become status codes."""
        properties, message_id, value = decode_request(request)
        try:
            status, body = self._run(properties.get("operation"), value)
            condition, description = None, "OK"
        except (AmqpError, LockLost, MessageNotFound) as exc:
            error = _as_amqp_error(exc)
            status, body = _STATUS_CODES.get(error.condition, 500), codec.NULL
            condition, description = error.condition, error.description
        finally:
            self._entity.pump()
        answer = [
            (codec.string("statusCode"), codec.int32(status)),
            (codec.string("statusDescription"), codec.string(description)),
        ]
        if condition is not None:
            answer.append((codec.string("errorCondition"), codec.symbol(condition)))
        return encode_response(message_id, answer, body)

    def _run(self, operation: codec.Value, value: codec.Value) -> Answer:
        handler = self._operations.get(str(operation).removeprefix(_PREFIX))
        if handler is None:
            raise AmqpError("amqp:not-implemented", f"expected a queue's management operation, found {operation!r}")
        if not isinstance(value, dict):
            raise AmqpError(_ARGUMENT_ERROR, f"expected a map as the request's body, found {type(value).__name__}")
        return handler(value)

    def _renew_lock(self, body: Body) -> Answer:
        tokens = _lock_tokens(body)
        self._require_held(tokens)
        expirations = [codec.timestamp(self._queue.renew(token)) for token in tokens]
        return _OK, _map(expirations=codec.array_of(expirations, 0x83))

    def _schedule_message(self, body: Body) -> Answer:
        self._faults.check_send()
        if self._entity.dead_letters is None:
            raise AmqpError("amqp:not-allowed", "expected a queue to schedule for, found a dead-letter queue")
        contents = [parse_message(_item(each, "message", bytes)) for each in _list(body, "messages", dict)]
        for content in contents:
            if content.scheduled_at is None:
                raise AmqpError(_ARGUMENT_ERROR, "expected x-opt-scheduled-enqueue-time on the message, found none")
        return _OK, _map(**{"sequence-numbers": codec.long_array([self._queue.send(each) for each in contents])})

    def _cancel_scheduled_message(self, body: Body) -> Answer:
        self._queue.cancel_scheduled(_list(body, "sequence-numbers", int))
        return _OK, codec.map_of(())

    def _peek_message(self, body: Body) -> Answer:
        start, limit = _item(body, "from-sequence-number", int), _item(body, "message-count", int)
        messages: list[bytes] = []
        size = 0
        for message in self._queue.peek(start, limit):
            encoded = encode_delivery(message.content, message.broker_properties())
            size += len(encoded)
            if messages and size > _MAX_PEEK_BYTES:
                break
            messages.append(_map(message=codec.binary(encoded)))
        if not messages:
            return _NO_CONTENT, codec.map_of(())
        return _OK, _map(messages=codec.list_of(messages))

    def _receive_by_sequence_number(self, body: Body) -> Answer:
        numbers = _list(body, "sequence-numbers", int)
        receives_and_deletes = body.get("receiver-settle-mode") == 0
        messages: list[bytes] = []
        if receives_and_deletes:
            for message in self._queue.take_deferred(numbers):
                encoded = encode_delivery(message.content, message.broker_properties())
                messages.append(_map(message=codec.binary(encoded)))
        else:
            for lock in self._queue.lock_deferred(numbers):
                encoded = encode_delivery(lock.message.content, lock.message.broker_properties(lock.locked_until))
                messages.append(_map(message=codec.binary(encoded), **{"lock-token": codec.uuid(lock.token)}))
        return _OK, _map(messages=codec.list_of(messages))

    def _update_disposition(self, body: Body) -> Answer:
        tokens = _lock_tokens(body)
        status = body.get("disposition-status")
        reason, description = body.get("deadletter-reason"), body.get("deadletter-description")
        settle: dict[codec.Value, Callable[[UUID], None]] = {
            "completed": self._queue.complete,
            "abandoned": self._queue.abandon,
            "defered": self._queue.defer,
            "suspended": lambda token: self._queue.dead_letter(token, text_or_none(reason), text_or_none(description)),
        }
        if status not in settle:
            known = ", ".join(map(str, settle))
            raise AmqpError(_ARGUMENT_ERROR, f"expected a disposition-status among {known}, found {status!r}")
        self._require_held(tokens)
        for token in tokens:
            settle[status](token)
        return _OK, codec.map_of(())

    def _require_held(self, tokens: list[UUID]) -> None:
        """All or nothing: with one lock lost, none is touched."""
        for token in tokens:
            if not self._queue.holds(token):
                raise LockLost(token)


def _as_amqp_error(exc: AmqpError | LockLost | MessageNotFound) -> AmqpError:
    if isinstance(exc, LockLost):
        return AmqpError(LOCK_LOST_CONDITION, str(exc))
    if isinstance(exc, MessageNotFound):
        return AmqpError("com.microsoft:message-not-found", str(exc))
    return exc


def _map(**values: bytes) -> bytes:
    return codec.map_of([(codec.string(key), value) for key, value in values.items()])


def _item(body: Body, key: str, kind: type[T]) -> T:
    value = body.get(key)
    if not isinstance(value, kind):
        raise AmqpError(_ARGUMENT_ERROR, f"expected {kind.__name__} in '{key}', found {value!r}")
    return value


def _list(body: Body, key: str, kind: type[T]) -> list[T]:
    values = _item(body, key, list)
    for value in values:
        if not isinstance(value, kind):
            raise AmqpError(_ARGUMENT_ERROR, f"expected only {kind.__name__} in '{key}', found {value!r}")
    return values


def _lock_tokens(body: Body) -> list[UUID]:
    return _list(body, "lock-tokens", UUID)
