"""`<entity>/$management`: renewals, scheduling, peeking, deferred messages, sessions, settling without a link."""

from collections.abc import Callable
from itertools import islice
from uuid import UUID

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL, DecodeError
from coremachine.local.broker.entity import Entity, SessionEntity
from coremachine.local.broker.limits import MAX_MESSAGE_SIZE
from coremachine.local.broker.links import contents_of
from coremachine.local.broker.message import (
    Request,
    decode_request,
    encode_delivery,
    encode_response,
    lock_annotations,
    map_pairs,
    property_changes,
)
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.request_body import ARGUMENT_ERROR, Body, item, list_item, map_answer, optional
from coremachine.local.broker.rule_management import RuleManagement
from coremachine.local.broker.session_queue import SessionQueue
from coremachine.local.broker.settlement import (
    LOCK_LOST_CONDITION,
    QUEUE_PROBLEMS,
    SESSION_LOST_CONDITION,
    as_amqp_error,
)
from coremachine.local.broker.stored import LockLost, SessionLockLost
from coremachine.local.broker.topic import Topic

_PREFIX = "com.microsoft:"
_MAX_PEEK_BYTES = 512 * 1024
_MAX_DELETE = 4000
_NOW_OR_LATER = 2**62  # milliseconds
_OK, _NO_CONTENT = 200, 204
_STATUS_CODES = {
    ARGUMENT_ERROR: 400,
    "amqp:decode-error": 400,
    "amqp:not-allowed": 400,
    "amqp:link:message-size-exceeded": 400,
    LOCK_LOST_CONDITION: 410,
    SESSION_LOST_CONDITION: 410,
    "amqp:not-found": 404,
    "com.microsoft:message-not-found": 404,
    "com.microsoft:entity-already-exists": 409,
    "com.microsoft:server-busy": 503,
    "amqp:not-implemented": 501,
}

Answer = tuple[int, bytes]


class Management:
    """Answers the management requests of one entity.

    Args:
        path: Of the entity. It is looked up for each request, since the entity may be deleted and made again.
    """

    def __init__(self, namespace: Namespace, path: str) -> None:
        self._namespace = namespace
        self._path = path
        self._operations: dict[str, Callable[[Entity, Request, Body], Answer]] = {
            "renew-lock": self._renew_lock,
            "schedule-message": self._schedule_message,
            "cancel-scheduled-message": self._cancel_scheduled_message,
            "peek-message": self._peek_message,
            "receive-by-sequence-number": self._receive_by_sequence_number,
            "update-disposition": self._update_disposition,
            "renew-session-lock": self._renew_session_lock,
            "get-session-state": self._get_session_state,
            "set-session-state": self._set_session_state,
            "get-message-sessions": self._get_message_sessions,
            "batch-delete-messages": self._batch_delete,
            "add-rule": self._of_rules,
            "remove-rule": self._of_rules,
            "enumerate-rules": self._of_rules,
        }

    def answer(self, data: bytes) -> tuple[object, bytes]:
        """The request's reply-to and the encoded answer; errors become status codes."""
        request = decode_request(data)
        condition: str | None = None
        description = "OK"
        try:
            entity = self._namespace.get(self._path)
            try:
                status, body = self._run(entity, request)
            finally:
                entity.pump()
        except DecodeError as exc:
            error: AmqpError | None = AmqpError("amqp:decode-error", str(exc))
        except AmqpError as exc:
            error = exc
        except QUEUE_PROBLEMS as problem:
            error = as_amqp_error(problem)
        else:
            error = None
        if error is not None:
            status, body = _STATUS_CODES.get(error.condition, 500), NULL
            condition, description = error.condition, error.description
        answer = [
            (codec.string("statusCode"), codec.int32(status)),
            (codec.string("statusDescription"), codec.string(description)),
        ]
        if condition is not None:
            answer.append((codec.string("errorCondition"), codec.symbol(condition)))
        return request.reply_to, encode_response(request.message_id, answer, body)

    def _run(self, entity: Entity, request: Request) -> Answer:
        operation = request.application_properties.get("operation")
        handler = self._operations.get(str(operation).removeprefix(_PREFIX))
        if handler is None:
            text = f"expected a management operation of an entity, found {repr(operation)[:100]}"
            raise AmqpError("amqp:not-implemented", text)
        if not isinstance(request.value, dict):
            found = type(request.value).__name__
            raise AmqpError(ARGUMENT_ERROR, f"expected a map as the request's body, found {found}")
        return handler(entity, request, request.value)

    def _renew_lock(self, entity: Entity, _request: Request, body: Body) -> Answer:
        tokens = _lock_tokens(body)
        _require_held(entity, tokens)
        expirations = [codec.timestamp(entity.queue.renew(token)) for token in tokens]
        return _OK, map_answer(expirations=codec.array_of(expirations, 0x83))

    def _schedule_message(self, entity: Entity, _request: Request, body: Body) -> Answer:
        self._namespace.faults.check_send()
        is_subscription = self._namespace.find_subscription(self._path) is not None
        if entity.dead_letters is None or is_subscription:
            raise AmqpError("amqp:not-allowed", f"expected a queue or topic to schedule for, found '{self._path}'")
        contents = contents_of([item(each, "message", bytes) for each in list_item(body, "messages", dict)])
        for content in contents:
            if content.scheduled_at is None:
                raise AmqpError(ARGUMENT_ERROR, "expected x-opt-scheduled-enqueue-time on the message, found none")
        return _OK, map_answer(**{"sequence-numbers": codec.long_array(entity.send(contents))})

    def _cancel_scheduled_message(self, entity: Entity, _request: Request, body: Body) -> Answer:
        entity.queue.cancel_scheduled(list_item(body, "sequence-numbers", int))
        return _OK, codec.map_of(())

    def _peek_message(self, entity: Entity, _request: Request, body: Body) -> Answer:
        start, limit = item(body, "from-sequence-number", int), item(body, "message-count", int)
        if limit < 1:
            raise AmqpError(ARGUMENT_ERROR, f"expected a message-count of at least 1, found {limit}")
        messages: list[bytes] = []
        size = 0
        for message in islice(entity.queue.peek(start, optional(body, "session-id", str)), limit):
            encoded = encode_delivery(message.content, message.broker_properties())
            size += len(encoded)
            if messages and size > _MAX_PEEK_BYTES:
                break
            messages.append(map_answer(message=codec.binary(encoded)))
        if not messages:
            return _NO_CONTENT, codec.map_of(())
        return _OK, map_answer(messages=codec.list_of(messages))

    def _receive_by_sequence_number(self, entity: Entity, _request: Request, body: Body) -> Answer:
        numbers = list_item(body, "sequence-numbers", int)
        messages: list[bytes] = []
        if body.get("receiver-settle-mode") == 0:
            for message in entity.queue.take_deferred(numbers):
                encoded = encode_delivery(message.content, message.broker_properties())
                messages.append(map_answer(message=codec.binary(encoded)))
        else:
            for lock in entity.queue.lock_deferred(numbers):
                added = lock.message.broker_properties(lock.locked_until)
                encoded = encode_delivery(lock.message.content, added, lock_annotations(lock.token))
                messages.append(map_answer(message=codec.binary(encoded), **{"lock-token": codec.uuid(lock.token)}))
        return _OK, map_answer(messages=codec.list_of(messages))

    def _update_disposition(self, entity: Entity, request: Request, body: Body) -> Answer:
        status = body.get("disposition-status")
        tokens = _lock_tokens(body)
        reason, description = optional(body, "deadletter-reason", str), optional(body, "deadletter-description", str)
        changes = property_changes(_raw_item(request, "properties-to-modify"))
        queue = entity.queue
        settle: dict[object, Callable[[UUID], None]] = {
            "completed": queue.complete,
            "abandoned": lambda token: queue.abandon(token, changes),
            "defered": lambda token: queue.defer(token, changes),
            "suspended": lambda token: queue.dead_letter(token, reason, description, changes),
            "unlocked": queue.release,
        }
        if not isinstance(status, str) or status not in settle:
            known = ", ".join(map(str, settle))
            raise AmqpError(ARGUMENT_ERROR, f"expected a disposition-status among {known}, found {repr(status)[:100]}")
        _require_held(entity, tokens)
        for token in tokens:
            settle[status](token)
        return _OK, codec.map_of(())

    def _renew_session_lock(self, entity: Entity, _request: Request, body: Body) -> Answer:
        until = _sessions_of(entity).renew_session(item(body, "session-id", str))
        return _OK, map_answer(expiration=codec.timestamp(until))

    def _get_session_state(self, entity: Entity, _request: Request, body: Body) -> Answer:
        state = _sessions_of(entity).state_of(item(body, "session-id", str))
        return _OK, map_answer(**{"session-state": NULL if state is None else codec.binary(state)})

    def _set_session_state(self, entity: Entity, _request: Request, body: Body) -> Answer:
        state = optional(body, "session-state", bytes)
        if state is not None and len(state) > MAX_MESSAGE_SIZE:
            text = f"expected a session state of at most {MAX_MESSAGE_SIZE} bytes, found {len(state)}"
            raise AmqpError("amqp:link:message-size-exceeded", text)
        _sessions_of(entity).set_state(item(body, "session-id", str), state)
        return _OK, codec.map_of(())

    def _get_message_sessions(self, entity: Entity, _request: Request, body: Body) -> Answer:
        updated, skip, top = (item(body, key, int) for key in ("last-updated-time", "skip", "top"))
        if skip < 0 or top < 1:
            raise AmqpError(ARGUMENT_ERROR, f"expected skip from 0 and top from 1, found {skip} and {top}")
        # The largest time asks for the sessions that have messages.
        after = None if updated / 1000 > self._namespace.clock() else updated / 1000
        found = _sessions_of(entity).session_ids(after)[skip : skip + top]
        if not found:
            return _NO_CONTENT, codec.map_of(())
        ids = codec.list_of(codec.string(name) for name in found)
        return _OK, map_answer(skip=codec.int32(skip + len(found)), **{"sessions-ids": ids})

    def _batch_delete(self, entity: Entity, _request: Request, body: Body) -> Answer:
        limit = item(body, "message-count", int)
        if not 1 <= limit <= _MAX_DELETE:
            raise AmqpError(ARGUMENT_ERROR, f"expected a message-count of 1 to {_MAX_DELETE}, found {limit}")
        before = optional(body, "enqueued-time-utc", int)
        moment = (_NOW_OR_LATER if before is None else before) / 1000
        deleted = entity.queue.delete_oldest(limit, moment)
        return (_OK if deleted else _NO_CONTENT), map_answer(**{"message-count": codec.int32(deleted)})

    def _of_rules(self, _entity: Entity, request: Request, body: Body) -> Answer:
        found = self._namespace.find_subscription(self._path)
        if found is None:
            raise AmqpError("amqp:not-allowed", f"expected a subscription, which has rules, found '{self._path}'")
        operation = str(request.application_properties.get("operation")).removeprefix(_PREFIX)
        return RuleManagement(found[1].rules).run(operation, body)


def _sessions_of(entity: Entity) -> SessionQueue:
    if not isinstance(entity, SessionEntity):
        raise AmqpError("amqp:not-allowed", f"expected an entity that requires sessions, found '{entity.name}'")
    return entity.sessions


def _require_held(entity: Entity, tokens: list[UUID]) -> None:
    """All or nothing: with one lock lost, none is touched."""
    if isinstance(entity, Topic):
        raise AmqpError("amqp:not-allowed", f"expected a queue or subscription, found topic '{entity.name}'")
    for token in tokens:
        if not entity.queue.holds(token):
            raise SessionLockLost(f"lock {token}") if isinstance(entity, SessionEntity) else LockLost(token)


def _raw_item(request: Request, key: str) -> bytes:
    """An entry of the body as raw bytes, so that its types survive."""
    for raw_key, raw_value in map_pairs(request.raw_value):
        if codec.decode(raw_key)[0] == key:
            return raw_value
    return NULL


def _lock_tokens(body: Body) -> list[UUID]:
    return list_item(body, "lock-tokens", UUID)
