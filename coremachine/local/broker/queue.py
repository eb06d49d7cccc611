"""What a queue does with its messages. No I/O and no clock of its own: time comes in by the constructor.

A message is in exactly one place: ready, locked, deferred or scheduled. The caller of these methods calls `tick()` at
`next_due` at the latest; methods that depend on time call it themselves.
"""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import count
from uuid import UUID, uuid4

from coremachine.local.broker.message import BrokerProperties, Content, MessageState
from coremachine.local.broker.timers import Timer, TimerHeap

MAX_DELIVERIES_REASON = "MaxDeliveryCountExceeded"
EXPIRED_REASON = "TTLExpiredException"
DEAD_LETTER_SUFFIX = "$DeadLetterQueue"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How a queue behaves; durations in seconds, None for without limit."""

    name: str
    lock_duration_seconds: float = 60.0
    max_delivery_count: int | None = 10
    default_ttl_seconds: float | None = 3600.0
    dead_letter_on_expiration: bool = False
    duplicate_window_seconds: float | None = None


class LockLost(Exception):
    """The lock ran out, or its message was settled already."""

    def __init__(self, token: UUID) -> None:
        self.token = token
        super().__init__(
            f"expected a lock that is still held, found that {token} has expired or was settled; receive it again"
        )


class MessageNotFound(Exception):
    """No message of that sequence number is where it was looked for."""

    def __init__(self, sequence_number: int, place: str) -> None:
        self.sequence_number, self.place = sequence_number, place
        super().__init__(f"expected a {place} message with sequence number {sequence_number}, found none")


class Place(Enum):
    """Where a message is."""

    READY = auto()
    LOCKED = auto()
    DEFERRED = auto()
    SCHEDULED = auto()
    GONE = auto()


@dataclass(slots=True, eq=False)
class Message:
    """A stored message."""

    content: Content
    sequence_number: int
    enqueued_at: float
    place: Place
    ttl_seconds: float | None = None
    delivery_count: int = 0
    deferred: bool = False
    dead_letter_source: str | None = None
    original_sequence_number: int | None = None
    timer: Timer | None = None

    @property
    def expires_at(self) -> float | None:
        return None if self.ttl_seconds is None else self.enqueued_at + self.ttl_seconds

    def broker_properties(self, locked_until: float | None = None) -> BrokerProperties:
        state = MessageState.DEFERRED if self.deferred else MessageState.ACTIVE
        return BrokerProperties(
            sequence_number=self.sequence_number,
            enqueued_at=self.enqueued_at,
            delivery_count=self.delivery_count,
            state=MessageState.SCHEDULED if self.place is Place.SCHEDULED else state,
            ttl_seconds=self.ttl_seconds,
            locked_until=locked_until,
            dead_letter_source=self.dead_letter_source,
            original_sequence_number=self.original_sequence_number,
        )


@dataclass(slots=True, eq=False)
class Lock:
    """A receiver's right to a message until `locked_until`, held under a random token."""

    token: UUID
    message: Message
    locked_until: float
    timer: Timer


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many messages are where."""

    active: int
    locked: int
    scheduled: int
    deferred: int
    dead_letter: int


class Queue:
    """A queue and, unless it is one itself, its dead-letter queue.

    Args:
        settings: How it behaves.
        clock: Seconds since the Unix epoch.
        is_dead_letter: A dead-letter queue has no expiry, no delivery limit and no duplicate detection.
    """

    def __init__(self, settings: QueueSettings, clock: Callable[[], float], *, is_dead_letter: bool = False) -> None:
        self.settings = settings
        self._clock = clock
        self._numbers = count(1)
        # In the order of sequence numbers, because a message that gets a new number is inserted anew.
        self._messages: dict[int, Message] = {}
        self._fresh: deque[Message] = deque()
        self._returned: list[tuple[int, Message]] = []
        self._locks: dict[UUID, Lock] = {}
        self._places: Counter[Place] = Counter()
        self._seen_ids: OrderedDict[object, float] = OrderedDict()
        self._timers = TimerHeap()
        self.dead_letters = None if is_dead_letter else Queue(settings, clock, is_dead_letter=True)

    def send(self, content: Content) -> int:
        """Accept a message, at once or at its scheduled time. A duplicate is accepted and dropped.

        Returns:
            Its sequence number; a scheduled message gets a new one when it becomes active.
        """
        self.tick()
        number = next(self._numbers)
        now = self._clock()
        if self._is_duplicate(content, now):
            return number
        if content.scheduled_at is not None and content.scheduled_at > now:
            message = self._store(content, number, Place.SCHEDULED)
            message.timer = self._timers.add(content.scheduled_at, partial(self._activate, message))
        else:
            self._enqueue(self._store(content, number, Place.READY))
        return number

    def cancel_scheduled(self, numbers: Iterable[int]) -> None:
        """Forget scheduled messages: all of them or, when one is not scheduled, none.

        Raises:
            MessageNotFound: One is active by now, was cancelled, or never was.
        """
        self.tick()
        for message in [self._find(number, Place.SCHEDULED) for number in dict.fromkeys(numbers)]:
            self._remove(message)

    @property
    def has_ready(self) -> bool:
        return self._places[Place.READY] > 0

    def lock_next(self) -> Lock | None:
        """Lock the oldest ready message, or None."""
        self.tick()
        message = self._pop_ready()
        return self._lock(message) if message else None

    def take_next(self) -> Message | None:
        """Remove the oldest ready message and hand it out, or None."""
        self.tick()
        message = self._pop_ready()
        if message:
            self._remove(message)
        return message

    def lock_deferred(self, numbers: Iterable[int]) -> list[Lock]:
        """Lock deferred messages.

        Raises:
            MessageNotFound: One of them is not deferred, or is locked; then none is locked.
        """
        self.tick()
        return [self._lock(message) for message in self._deferred(numbers)]

    def take_deferred(self, numbers: Iterable[int]) -> list[Message]:
        """Remove deferred messages and hand them out; raises as `lock_deferred` does."""
        self.tick()
        messages = self._deferred(numbers)
        for message in messages:
            self._remove(message)
        return messages

    def peek(self, from_number: int, limit: int) -> Iterator[Message]:
        """Messages from a sequence number on, wherever they are; nothing changes."""
        self.tick()
        found = (message for number, message in self._messages.items() if number >= from_number)
        return (message for message, _ in zip(found, range(limit), strict=False))

    # What settles a message raises LockLost when its lock is no longer held.

    def complete(self, token: UUID) -> None:
        self._remove(self._unlock(token))

    def abandon(self, token: UUID) -> None:
        """Give a message back after a failed delivery."""
        self._delivery_failed(self._unlock(token))

    def release(self, token: UUID) -> None:
        """Give a message back that was never looked at: the delivery does not count."""
        self._give_back(self._unlock(token))

    def defer(self, token: UUID) -> None:
        """Set a message aside; only its sequence number brings it back."""
        message = self._unlock(token)
        message.delivery_count += 1
        message.deferred = True
        self._move(message, Place.DEFERRED)

    def dead_letter(self, token: UUID, reason: str | None, description: str | None) -> None:
        self._dead_letter(self._unlock(token), reason, description)

    def renew(self, token: UUID) -> float:
        """Hold a lock for another lock duration; returns until when."""
        self.tick()
        lock = self._locks.get(token)
        if lock is None:
            raise LockLost(token)
        self._timers.cancel(lock.timer)
        lock.locked_until, lock.timer = self._lock_timer(token)
        return lock.locked_until

    def holds(self, token: UUID) -> bool:
        self.tick()
        return token in self._locks

    @property
    def next_due(self) -> float | None:
        return self._timers.next_due

    def tick(self) -> None:
        """Do what has fallen due: end locks, expire, activate."""
        self._timers.run_due(self._clock())

    def expire_locks(self) -> int:
        """End every lock now, as if its time were over; returns how many there were."""
        tokens = list(self._locks)
        for token in tokens:
            self._lock_expired(token)
        return len(tokens)

    def purge(self) -> int:
        """Forget every message, locked ones too; returns how many there were."""
        gone = len(self._messages)
        for lock in self._locks.values():
            self._timers.cancel(lock.timer)
        self._locks.clear()
        for message in list(self._messages.values()):
            self._remove(message)
        self._fresh.clear()
        self._returned.clear()
        self._seen_ids.clear()
        return gone

    def counts(self) -> QueueCounts:
        self.tick()
        places = self._places
        dead = len(self.dead_letters._messages) if self.dead_letters is not None else 0  # noqa: SLF001
        return QueueCounts(
            active=places[Place.READY],
            locked=places[Place.LOCKED],
            scheduled=places[Place.SCHEDULED],
            deferred=places[Place.DEFERRED],
            dead_letter=dead,
        )

    @property
    def _is_dead_letter(self) -> bool:
        return self.dead_letters is None

    def _is_duplicate(self, content: Content, now: float) -> bool:
        window = self.settings.duplicate_window_seconds
        if window is None or self._is_dead_letter or content.message_id is None:
            return False
        while self._seen_ids and next(iter(self._seen_ids.values())) <= now:
            self._seen_ids.popitem(last=False)
        if content.message_id in self._seen_ids:
            return True
        self._seen_ids[content.message_id] = now + window
        return False

    def _store(self, content: Content, number: int, place: Place) -> Message:
        message = Message(content, number, self._clock(), place)
        self._messages[number] = message
        self._places[place] += 1
        return message

    def _enqueue(self, message: Message) -> None:
        """Make a newly stored, ready message available."""
        message.ttl_seconds = self._effective_ttl(message.content)
        if message.expires_at is not None:
            message.timer = self._timers.add(message.expires_at, partial(self._expire_if_ready, message))
        self._fresh.append(message)

    def _effective_ttl(self, content: Content) -> float | None:
        if self._is_dead_letter:
            return None
        limits = [ttl for ttl in (content.ttl_seconds, self.settings.default_ttl_seconds) if ttl is not None]
        return min(limits, default=None)

    def _activate(self, message: Message) -> None:
        self._remove(message)
        self._enqueue(self._store(message.content, next(self._numbers), Place.READY))

    def _pop_ready(self) -> Message | None:
        """The ready message with the lowest number; entries of messages that moved on are dropped on the way."""
        while self._returned and self._returned[0][1].place is not Place.READY:
            heapq.heappop(self._returned)
        while self._fresh and self._fresh[0].place is not Place.READY:
            self._fresh.popleft()
        if self._returned and (not self._fresh or self._returned[0][0] < self._fresh[0].sequence_number):
            return heapq.heappop(self._returned)[1]
        return self._fresh.popleft() if self._fresh else None

    def _deferred(self, numbers: Iterable[int]) -> list[Message]:
        return [self._find(number, Place.DEFERRED) for number in dict.fromkeys(numbers)]

    def _find(self, number: int, place: Place) -> Message:
        message = self._messages.get(number)
        if message is None or message.place is not place:
            raise MessageNotFound(number, place.name.lower())
        return message

    def _move(self, message: Message, place: Place) -> None:
        self._places[message.place] -= 1
        self._places[place] += 1
        message.place = place

    def _remove(self, message: Message) -> None:
        self._timers.cancel(message.timer)
        self._places[message.place] -= 1
        message.place = Place.GONE
        del self._messages[message.sequence_number]

    def _lock_timer(self, token: UUID) -> tuple[float, Timer]:
        locked_until = self._clock() + self.settings.lock_duration_seconds
        return locked_until, self._timers.add(locked_until, partial(self._lock_expired, token))

    def _lock(self, message: Message) -> Lock:
        token = uuid4()
        lock = Lock(token, message, *self._lock_timer(token))
        self._locks[token] = lock
        self._move(message, Place.LOCKED)
        return lock

    def _unlock(self, token: UUID) -> Message:
        self.tick()
        lock = self._locks.pop(token, None)
        if lock is None:
            raise LockLost(token)
        self._timers.cancel(lock.timer)
        return lock.message

    def _lock_expired(self, token: UUID) -> None:
        lock = self._locks.pop(token)
        self._timers.cancel(lock.timer)
        self._delivery_failed(lock.message)

    def _delivery_failed(self, message: Message) -> None:
        message.delivery_count += 1
        limit = self.settings.max_delivery_count
        if limit is not None and not self._is_dead_letter and message.delivery_count >= limit:
            text = f"Message could not be consumed after {message.delivery_count} delivery attempts."
            self._dead_letter(message, MAX_DELIVERIES_REASON, text)
        else:
            self._give_back(message)

    def _give_back(self, message: Message) -> None:
        if message.deferred:
            self._move(message, Place.DEFERRED)
            return
        self._move(message, Place.READY)
        heapq.heappush(self._returned, (message.sequence_number, message))
        # Its time may have run out while it was locked.
        self._expire_if_ready(message)

    def _expire_if_ready(self, message: Message) -> None:
        """A locked message is left alone until it comes back; a deferred one for good."""
        expires_at = message.expires_at
        if message.place is not Place.READY or expires_at is None or expires_at > self._clock():
            return
        if self.settings.dead_letter_on_expiration:
            self._dead_letter(message, EXPIRED_REASON, "The message expired and was dead lettered.")
        else:
            self._remove(message)

    def _dead_letter(self, message: Message, reason: str | None, description: str | None) -> None:
        if self.dead_letters is None:
            # There is nowhere further down: it stays here.
            self._give_back(message)
            return
        self._remove(message)
        self.dead_letters._bury(message, self.settings.name, reason, description)  # noqa: SLF001

    def _bury(self, message: Message, source: str, reason: str | None, description: str | None) -> None:
        dead = self._store(message.content.dead_lettered(reason, description), next(self._numbers), Place.READY)
        dead.delivery_count = message.delivery_count
        dead.dead_letter_source = source
        dead.original_sequence_number = message.sequence_number
        self._enqueue(dead)
