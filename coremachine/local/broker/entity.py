"""A queue at work in an event loop: its links, its consumers and its timer."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Protocol

from coremachine.local.broker.limits import DELIVERIES_PER_TURN
from coremachine.local.broker.message import Content
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.session_queue import SessionQueue
from coremachine.local.broker.stored import DEAD_LETTER_SUFFIX, Lock, Message


class Alarm(Protocol):
    """A call that will be made; asyncio.TimerHandle is one."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Alarm]


def call_later(delay: float, action: Callable[[], None]) -> Alarm:
    return asyncio.get_running_loop().call_later(delay, action)


class EntityLink(Protocol):
    """A link of a client to an entity."""

    def force_detach(self, error: AmqpError) -> None:
        """The entity or its lock is gone."""


class Consumer(EntityLink, Protocol):
    """A receiver of an entity's messages."""

    @property
    def takes_and_deletes(self) -> bool:
        """Receive-and-delete instead of peek-lock."""

    @property
    def session_id(self) -> str | None:
        """The session that it holds."""

    @property
    def wants_message(self) -> bool:
        """Whether a message could be delivered now."""

    def deliver_locked(self, lock: Lock) -> None: ...

    def deliver_taken(self, message: Message) -> None: ...


class Entity:
    """A queue or dead-letter queue that hands its messages to consumers in turn.

    Call `pump()` after every change to `queue`; a consumer that may take a message calls `wants()` before.
    """

    def __init__(self, name: str, queue: Queue, clock: Callable[[], float], later: CallLater = call_later) -> None:
        self.name = name
        self.queue = queue
        self.created_at = self.updated_at = clock()
        self._clock = clock
        self._call_later = later
        self._links: dict[EntityLink, None] = {}
        # Only those that can take a message; the first is next.
        self._hungry: OrderedDict[Consumer, None] = OrderedDict()
        self._alarm: Alarm | None = None
        self._alarm_due = 0.0
        self._next_turn: Alarm | None = None
        self.dead_letters: Entity | None = None
        if queue.dead_letters is not None:
            self.dead_letters = Entity(f"{name}/{DEAD_LETTER_SUFFIX}", queue.dead_letters, clock, later)

    def send(self, contents: Iterable[Content]) -> list[int]:
        """Take messages, all or none; returns their sequence numbers."""
        if not self.queue.settings.can_send:
            raise disabled(self.name)
        identified = [content.identified() for content in contents]
        for content in identified:
            self.queue.check(content)
        numbers = [self.queue.send(content) for content in identified]
        self.pump()
        return numbers

    def attach(self, link: EntityLink) -> None:
        self._links[link] = None

    def detach(self, link: EntityLink) -> None:
        """Forget a link. Its locks run out by themselves, as the service's do."""
        self._links.pop(link, None)
        self._hungry.pop(link, None)  # type: ignore[call-overload]

    def wants(self, consumer: Consumer) -> None:
        """A consumer may be able to take a message."""
        if consumer.wants_message:
            self._hungry.setdefault(consumer)

    def pump(self) -> None:
        """Deliver what can be delivered in one turn and set the alarm for what falls due next."""
        self.queue.tick()
        if not self._deliver():
            self.pump_later()
        self._set_alarm()
        if self.dead_letters is not None and self.dead_letters.queue.has_ready:
            self.dead_letters.pump()

    def pump_later(self) -> None:
        """Pump when other clients have had their turn."""
        if self._next_turn is None:
            self._next_turn = self._call_later(0.0, self._take_turn)

    def clock_turned(self) -> None:
        """The clock jumped: what was set by the old time is set anew."""
        self._cancel_alarm()
        self.pump()
        if self.dead_letters is not None:
            self.dead_letters.clock_turned()

    def close(self) -> None:
        self._cancel_alarm()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        if self.dead_letters is not None:
            self.dead_letters.close()

    def remove(self, error: AmqpError) -> None:
        """The entity is deleted: its messages are gone, its links are detached."""
        if self.dead_letters is not None:
            self.dead_letters.remove(error)
        self.detach_links(error)
        self.queue.purge()
        self.close()

    def detach_links(self, error: AmqpError) -> int:
        """Detach every link with an error; returns how many there were."""
        links = list(self._links)
        for link in links:
            link.force_detach(error)
        return len(links)

    def _deliver(self) -> bool:
        """Hand out messages; False if the turn was over before all was done."""
        queue = self.queue
        for _ in range(DELIVERIES_PER_TURN):
            if not queue.has_ready:
                return True
            consumer = self._next_consumer()
            if consumer is None:
                return True
            if consumer.takes_and_deletes:
                message = queue.take_next()
                if message is not None:
                    consumer.deliver_taken(message)
            else:
                lock = queue.lock_next()
                if lock is not None:
                    consumer.deliver_locked(lock)
        return not queue.has_ready

    def _next_consumer(self) -> Consumer | None:
        while self._hungry:
            consumer, _ = self._hungry.popitem(last=False)
            if consumer.wants_message:
                # To the end: consumers take turns.
                self._hungry[consumer] = None
                return consumer
        return None

    def _take_turn(self) -> None:
        self._next_turn = None
        self.pump()

    def _set_alarm(self) -> None:
        # An alarm that is too early only costs one look.
        if self._alarm is not None and self._alarm_due <= self.queue.earliest:
            return
        due = self.queue.next_due
        if due is None or (self._alarm is not None and self._alarm_due <= due):
            return
        self._cancel_alarm()
        self._alarm_due = due
        self._alarm = self._call_later(max(0.0, due - self._clock()), self._ring)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self.pump()


def disabled(name: str) -> AmqpError:
    return AmqpError("com.microsoft:entity-disabled", f"Messaging entity '{name}' is currently disabled.")


class SessionWaiter(Protocol):
    """A receiver that waits for any free session."""

    def grant(self, session_id: str) -> None: ...


class SessionEntity(Entity):
    """A queue of sessions: each consumer has the messages of the session that it holds."""

    def __init__(
        self, name: str, queue: SessionQueue, clock: Callable[[], float], later: CallLater = call_later
    ) -> None:
        self.sessions = queue
        self._waiters: dict[SessionWaiter, None] = {}
        self._holders: dict[str, Consumer] = {}
        super().__init__(name, queue, clock, later)

    def holds(self, consumer: Consumer, session_id: str) -> None:
        """A consumer has a session from now on."""
        self._holders[session_id] = consumer

    def detach(self, link: EntityLink) -> None:
        super().detach(link)
        self._holders = {name: consumer for name, consumer in self._holders.items() if consumer is not link}

    def wait_for_session(self, waiter: SessionWaiter) -> None:
        self._waiters[waiter] = None
        self.pump()

    def stop_waiting(self, waiter: SessionWaiter) -> None:
        self._waiters.pop(waiter, None)

    def _deliver(self) -> bool:
        for woken in self.sessions.take_woken():
            if woken in self._holders:
                self.wants(self._holders[woken])
        while self._waiters and (free := self.sessions.next_free()) is not None:
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.grant(free)
        for _ in range(DELIVERIES_PER_TURN):
            consumer = self._next_consumer()
            if consumer is None or consumer.session_id is None:
                return True
            if not self._deliver_to(consumer, consumer.session_id):
                # It comes back when the session has a message again.
                self._hungry.pop(consumer, None)
        return not self._hungry

    def _deliver_to(self, consumer: Consumer, session_id: str) -> bool:
        if consumer.takes_and_deletes:
            message = self.sessions.take_next_of(session_id)
            if message is not None:
                consumer.deliver_taken(message)
            return message is not None
        lock = self.sessions.lock_next_of(session_id)
        if lock is not None:
            consumer.deliver_locked(lock)
        return lock is not None
