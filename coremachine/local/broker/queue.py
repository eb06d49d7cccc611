"""What a queue does with its messages. No I/O and no clock of its own.

A message is in exactly one place: ready, locked, deferred or scheduled. The caller calls `tick()` at `next_due` at the
latest; methods that depend on time call it themselves.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from uuid import UUID, uuid4

from coremachine.local.broker.changes import QueueChanges
from coremachine.local.broker.limits import EXPIRED_PER_TICK
from coremachine.local.broker.message import Content, RawPairs
from coremachine.local.broker.ready import ReadyList
from coremachine.local.broker.seen_ids import SeenIds
from coremachine.local.broker.stored import (
    EXPIRED_REASON,
    MAX_DELIVERIES_REASON,
    AlreadyDead,
    Lock,
    LockLost,
    Message,
    MessageNotFound,
    Place,
    QueueCounts,
    QueueSettings,
)
from coremachine.local.broker.timers import DueHeap

# A queue that forwards hands each message that would become ready to this; False keeps it here.
Forward = Callable[[Message], bool]


class Queue:
    """A queue and, unless it is one itself, its dead-letter queue.

    Args:
        settings: How it behaves.
        clock: Seconds since the Unix epoch.
        is_dead_letter: A dead-letter queue has no expiry, no delivery limit and no duplicate detection.
    """

    def __init__(self, settings: QueueSettings, clock: Callable[[], float], *, is_dead_letter: bool = False) -> None:
        self.settings = settings
        self.forward: Forward | None = None
        # In durable mode alone.
        self.changes: QueueChanges | None = None
        self._clock = clock
        self._last_number = 0
        # In the order of sequence numbers, because a message that gets a new number is inserted anew.
        self._messages: dict[int, Message] = {}
        self._ready = ReadyList()
        self._locks: dict[UUID, Lock] = {}
        self._places = [0] * len(Place)
        self._seen_ids = SeenIds()
        self._message_times: DueHeap[int] = DueHeap(self._is_message_due)
        self._lock_ends: DueHeap[UUID] = DueHeap(self._is_lock_end)
        self.dead_letters = None if is_dead_letter else Queue(settings, clock, is_dead_letter=True)

    def check(self, content: Content) -> None:
        """Raise what `send` would refuse a message with, so that a batch is taken as a whole or not at all."""

    def restore(self, messages: Iterable[Message], last_number: int, seen_ids: Iterable[tuple[object, float]]) -> None:
        """Take what an empty queue held before: messages by number, and ids with until when they are remembered."""
        self._last_number = last_number
        self._seen_ids.restore(seen_ids)
        for message in messages:
            self._messages[message.sequence_number] = message
            self._places[message.place] += 1
            if message.place is Place.SCHEDULED:
                self._message_times.add(message.content.scheduled_at or 0.0, message.sequence_number)
                continue
            if message.expires_at is not None:
                self._message_times.add(message.expires_at, message.sequence_number)
            if message.place is Place.READY:
                self._ready_of(message).append(message)

    @property
    def last_number(self) -> int:
        """The highest sequence number that was given away."""
        return self._last_number

    def send(self, content: Content, *, forwarded: Message | None = None) -> int:
        """Accept a message, at once or at its scheduled time. A duplicate is accepted and dropped.

        Args:
            content: What was sent.
            forwarded: The message of another entity that this one is made of: it keeps where it comes from.

        Returns:
            Its sequence number; a scheduled message gets a new one when it becomes active.
        """
        self.check(content)
        self.tick()
        number = self._next_number()
        now = self._clock()
        if self._is_duplicate(content, now):
            return number
        if content.scheduled_at is not None and content.scheduled_at > now:
            message = self._store(content, number, Place.SCHEDULED)
            self._message_times.add(content.scheduled_at, number)
        else:
            message = self._store(content, number, Place.READY)
            if forwarded is not None:
                message.original_sequence_number = forwarded.sequence_number
                message.dead_letter_source = forwarded.dead_letter_source
            self._enqueue(message)
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
        message = self._pop_ready()
        return self._lock(message) if message else None

    def take_next(self) -> Message | None:
        """Remove the oldest ready message and hand it out, or None."""
        message = self._pop_ready()
        if message is not None:
            self._remove(message, popped=True)
        return message

    def lock_deferred(self, numbers: Iterable[int]) -> list[Lock]:
        """Lock deferred messages; raises MessageNotFound when one is none or is locked, and then locks none."""
        self.tick()
        return [self._lock(message) for message in self._deferred(numbers)]

    def take_deferred(self, numbers: Iterable[int]) -> list[Message]:
        """Remove deferred messages and hand them out; raises as `lock_deferred` does."""
        self.tick()
        messages = self._deferred(numbers)
        for message in messages:
            self._remove(message)
        return messages

    def peek(self, from_number: int, session_id: str | None = None) -> Iterator[Message]:
        """Messages from a sequence number on, wherever they are; nothing changes."""
        self.tick()
        numbers: Iterable[int] = range(max(1, from_number), self._last_number + 1)
        if self._last_number - from_number > 2 * len(self._messages):
            # They are few and far between.
            numbers = [number for number in self._messages if number >= from_number]
        for number in numbers:
            message = self._messages.get(number)
            if message is not None and session_id in {None, message.content.session_id}:
                yield message

    # What settles a message raises LockLost when its lock is no longer held.

    def complete(self, token: UUID) -> None:
        self._remove(self._unlock(token))

    def abandon(self, token: UUID, changes: RawPairs | None = None) -> None:
        """Give a message back after a failed delivery, with changed application properties."""
        self._delivery_failed(self._modify(self._unlock(token), changes))

    def release(self, token: UUID) -> None:
        """Give a message back that was never looked at: the delivery does not count."""
        self._give_back(self._unlock(token))

    def defer(self, token: UUID, changes: RawPairs | None = None) -> None:
        """Set a message aside; only its sequence number brings it back."""
        message = self._modify(self._unlock(token), changes)
        message.delivery_count += 1
        message.deferred = True
        self._move(message, Place.DEFERRED)

    def dead_letter(
        self, token: UUID, reason: str | None, description: str | None, changes: RawPairs | None = None
    ) -> None:
        """Move a message to the dead letters.

        Raises:
            AlreadyDead: It is one, and stays locked.
        """
        if self._is_dead_letter and self.holds(token):
            raise AlreadyDead(token)
        self._dead_letter(self._modify(self._unlock(token), changes), reason, description)

    def renew(self, token: UUID) -> float:
        """Hold a lock for another lock duration; returns until when."""
        self.tick()
        lock = self._locks.get(token)
        if lock is None:
            raise self._lost(token)
        lock.locked_until = self._clock() + self.settings.lock_duration_seconds
        self._lock_ends.add(lock.locked_until, token)
        return lock.locked_until

    def holds(self, token: UUID) -> bool:
        self.tick()
        return token in self._locks

    @property
    def earliest(self) -> float:
        """Nothing falls due before; cheaper than `next_due`."""
        return min(self._message_times.earliest, self._lock_ends.earliest)

    @property
    def next_due(self) -> float | None:
        first, second = self._message_times.next_due, self._lock_ends.next_due
        if first is None or second is None:
            return second if first is None else first
        return min(first, second)

    def tick(self) -> None:
        """Do what has fallen due: end locks, expire, activate."""
        now = self._clock()
        if self._lock_ends.has_due(now):
            while (token := self._lock_ends.take_due(now)) is not None:
                self._lock_expired(token)
        if self._message_times.has_due(now):
            self._work_off_messages(now)

    def expire_locks(self) -> int:
        """End every lock now, as if its time were over; returns how many there were."""
        tokens = list(self._locks)
        for token in tokens:
            self._lock_expired(token)
        return len(tokens)

    def purge(self) -> int:
        """Forget every message, locked ones too; returns how many there were."""
        gone = len(self._messages)
        for message in self._messages.values():
            message.place = Place.GONE
        self._messages.clear()
        self._locks.clear()
        self._places = [0] * len(Place)
        self._seen_ids.clear()
        self._message_times.clear()
        self._lock_ends.clear()
        self._clear_ready()
        if self.changes is not None:
            self.changes.purged()
        return gone

    def reset(self) -> None:
        """Be as new: without messages and locks."""
        self.purge()

    def delete_oldest(self, limit: int, before: float) -> int:
        """Delete ready messages, oldest first, that came before a time; returns how many."""
        self.tick()
        ready = (each for each in self._messages.values() if each.place is Place.READY and each.enqueued_at <= before)
        found = list(islice(ready, limit))
        for message in found:
            self._remove(message)
        return len(found)

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

    def bury(self, message: Message, source: str, reason: str | None, description: str | None) -> None:
        """Take a message that has left another queue; only for dead-letter queues."""
        dead = self._store(message.content.dead_lettered(reason, description), self._next_number(), Place.READY)
        dead.delivery_count = message.delivery_count
        dead.dead_letter_source = source
        dead.original_sequence_number = message.sequence_number
        self._enqueue(dead)

    def _next_number(self) -> int:
        self._last_number += 1
        if self.changes is not None:
            self.changes.number_given()
        return self._last_number

    @property
    def _is_dead_letter(self) -> bool:
        return self.dead_letters is None

    def _is_message_due(self, due: float, number: int) -> bool:
        message = self._messages.get(number)
        if message is None:
            return False
        if message.place is Place.SCHEDULED:
            return message.content.scheduled_at == due
        return message.place is not Place.DEFERRED and message.expires_at == due

    def _is_lock_end(self, due: float, token: UUID) -> bool:
        lock = self._locks.get(token)
        return lock is not None and lock.locked_until == due

    def _work_off_messages(self, now: float) -> None:
        for _ in range(EXPIRED_PER_TICK):
            number = self._message_times.take_due(now)
            if number is None:
                return
            message = self._messages[number]
            if message.place is Place.SCHEDULED:
                self._remove(message)
                self._enqueue(self._store(message.content, self._next_number(), Place.READY))
            elif message.place is Place.READY:
                self._expire(message)

    def _is_duplicate(self, content: Content, now: float) -> bool:
        window = None if self._is_dead_letter or content.message_id is None else self.settings.duplicate_window_seconds
        if window is None:
            return False
        is_repeated = self._seen_ids.is_repeated(content.message_id, now, window)
        if not is_repeated and self.changes is not None:
            self.changes.id_seen(content.message_id, now + window)
        return is_repeated

    def _store(self, content: Content, number: int, place: Place) -> Message:
        message = Message(content, number, self._clock(), place)
        self._messages[number] = message
        self._places[place] += 1
        if self.changes is not None:
            self.changes.stored(message)
        return message

    def _enqueue(self, message: Message) -> None:
        """Make a newly stored, ready message available."""
        if self.forward is not None and self.forward(message):
            self._remove(message, popped=True)
            return
        message.ttl_seconds = None if self._is_dead_letter else self.settings.ttl_of(message.content)
        expires_at = message.expires_at
        if expires_at is not None:
            self._message_times.add(expires_at, message.sequence_number)
        self._ready_of(message).append(message)

    def _ready_of(self, _message: Message) -> ReadyList:
        return self._ready

    def _clear_ready(self) -> None:
        self._ready.clear()

    def _pop_ready(self) -> Message | None:
        """The ready message with the lowest number."""
        self.tick()
        return self._pop_unexpired(self._ready)

    def _pop_unexpired(self, ready: ReadyList) -> Message | None:
        """One tick does not work off everything when very much expires at once."""
        while (message := ready.pop()) is not None:
            expires_at = message.expires_at
            if expires_at is None or expires_at > self._clock():
                return message
            self._expire(message)
        return None

    def _deferred(self, numbers: Iterable[int]) -> list[Message]:
        return [self._find(number, Place.DEFERRED) for number in dict.fromkeys(numbers)]

    def _find(self, number: int, place: Place) -> Message:
        message = self._messages.get(number)
        if message is None or message.place is not place:
            raise MessageNotFound(number, place.name.lower())
        return message

    def _modify(self, message: Message, changes: RawPairs | None) -> Message:
        if changes:
            message.content = message.content.modified(changes)
            if self.changes is not None:
                self.changes.rewritten(message)
        return message

    def _move(self, message: Message, place: Place) -> None:
        self._places[message.place] -= 1
        self._places[place] += 1
        message.place = place
        if self.changes is not None and place is not Place.LOCKED:
            self.changes.moved(message)

    def _remove(self, message: Message, *, popped: bool = False) -> None:
        was_ready = message.place is Place.READY
        self._places[message.place] -= 1
        message.place = Place.GONE
        del self._messages[message.sequence_number]
        if self.changes is not None:
            self.changes.removed(message)
        if was_ready and not popped:
            self._ready_of(message).moved_on()

    def _lock(self, message: Message) -> Lock:
        lock = Lock(uuid4(), message, self._clock() + self.settings.lock_duration_seconds)
        self._locks[lock.token] = lock
        self._lock_ends.add(lock.locked_until, lock.token)
        self._move(message, Place.LOCKED)
        return lock

    def _unlock(self, token: UUID) -> Message:
        self.tick()
        lock = self._locks.pop(token, None)
        if lock is None:
            raise self._lost(token)
        return lock.message

    def _lost(self, token: UUID) -> Exception:
        return LockLost(token)

    def _lock_expired(self, token: UUID) -> None:
        self._delivery_failed(self._locks.pop(token).message)

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
        expires_at = message.expires_at
        if expires_at is not None and expires_at <= self._clock():
            # Its time ran out while it was locked.
            self._expire(message)
            return
        self._ready_of(message).give_back(message)

    def _expire(self, message: Message) -> None:
        if self.settings.dead_letter_on_expiration:
            self._dead_letter(message, EXPIRED_REASON, "The message expired and was dead lettered.")
        else:
            self._remove(message)

    def _dead_letter(self, message: Message, reason: str | None, description: str | None) -> None:
        self._remove(message)
        if self.dead_letters is not None:
            self.dead_letters.bury(message, self.settings.name, reason, description)
