"""A queue at work in an event loop: its consumers, its timer, and the namespace all queues live in."""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import DEAD_LETTER_SUFFIX, Lock, Message, Queue, QueueSettings

CBS_NODE = "$cbs"
MANAGEMENT_SUFFIX = "/$management"

_AUTHORITY = re.compile(r"^[a-z]+://[^/]*/", re.IGNORECASE)


class Alarm(Protocol):
    """A call that will be made; asyncio.TimerHandle is one."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Alarm]


def call_later(delay: float, action: Callable[[], None]) -> Alarm:
    return asyncio.get_running_loop().call_later(delay, action)


class Consumer(Protocol):
    """A receiver of an entity's messages."""

    @property
    def takes_and_deletes(self) -> bool:
        """Receive-and-delete instead of peek-lock."""

    @property
    def wants_message(self) -> bool:
        """Whether a message could be delivered now."""

    def deliver_locked(self, lock: Lock) -> None: ...

    def deliver_taken(self, message: Message) -> None: ...


class Entity:
    """A queue or dead-letter queue that hands its messages to consumers in turn.

    Call `pump()` after every change to `queue` and whenever a consumer may want more.
    """

    def __init__(self, name: str, queue: Queue, clock: Callable[[], float], later: CallLater = call_later) -> None:
        self.name = name
        self.queue = queue
        self._clock = clock
        self._call_later = later
        self._consumers: deque[Consumer] = deque()
        self._alarm: Alarm | None = None
        self._alarm_due = 0.0
        self.dead_letters: Entity | None = None
        if queue.dead_letters is not None:
            self.dead_letters = Entity(f"{name}/{DEAD_LETTER_SUFFIX}", queue.dead_letters, clock, later)

    def attach(self, consumer: Consumer) -> None:
        self._consumers.append(consumer)

    def detach(self, consumer: Consumer) -> None:
        """Forget a consumer. Its locks run out by themselves, as the service's do."""
        self._consumers.remove(consumer)

    def pump(self) -> None:
        """Deliver what can be delivered and set the alarm for what falls due next."""
        self.queue.tick()
        while self.queue.has_ready and (consumer := self._next_consumer()) is not None:
            if consumer.takes_and_deletes:
                message = self.queue.take_next()
                if message is not None:
                    consumer.deliver_taken(message)
            else:
                lock = self.queue.lock_next()
                if lock is not None:
                    consumer.deliver_locked(lock)
        self._set_alarm()
        if self.dead_letters is not None:
            self.dead_letters.pump()

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.dead_letters is not None:
            self.dead_letters.close()

    def _next_consumer(self) -> Consumer | None:
        for _ in range(len(self._consumers)):
            consumer = self._consumers[0]
            self._consumers.rotate(-1)
            if consumer.wants_message:
                return consumer
        return None

    def _set_alarm(self) -> None:
        due = self.queue.next_due
        if due is None or (self._alarm is not None and self._alarm_due <= due):
            # An alarm that is too early only costs one look.
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_due = due
        delay = max(0.0, due - self._clock())
        self._alarm = self._call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.pump()


class Faults:
    """Faults that tests ask for."""

    def __init__(self) -> None:
        self.sends_to_reject = 0

    def check_send(self) -> None:
        """Refuse a send if some are still to be refused."""
        if self.sends_to_reject > 0:
            self.sends_to_reject -= 1
            raise AmqpError("com.microsoft:server-busy", "The request was rejected on demand of a test. Try again.")


class Namespace:
    """All entities by name, without regard to case."""

    def __init__(
        self, queues: Iterable[QueueSettings], clock: Callable[[], float], later: CallLater = call_later
    ) -> None:
        self._clock = clock
        self._call_later = later
        self._entities: dict[str, Entity] = {}
        self.faults = Faults()
        for settings in queues:
            self.add_queue(settings)

    def add_queue(self, settings: QueueSettings) -> Entity:
        """Add a queue; one of the same name is an error of the caller."""
        key = settings.name.lower()
        if key in self._entities:
            raise ValueError(f"expected a new queue name, found that {settings.name!r} exists already")
        entity = Entity(settings.name, Queue(settings, self._clock), self._clock, self._call_later)
        self._entities[key] = entity
        return entity

    def remove_queue(self, name: str) -> None:
        entity = self.get(name)
        del self._entities[name.lower()]
        entity.queue.purge()
        entity.close()

    @property
    def queues(self) -> list[Entity]:
        return list(self._entities.values())

    def find(self, path: str) -> Entity | None:
        """The entity at a path such as `orders` or `orders/$DeadLetterQueue`."""
        key = path.strip("/").lower()
        suffix = "/" + DEAD_LETTER_SUFFIX.lower()
        entity = self._entities.get(key.removesuffix(suffix))
        return entity.dead_letters if entity is not None and key.endswith(suffix) else entity

    def get(self, path: str) -> Entity:
        """As `find`, but refuses what does not exist.

        Raises:
            AmqpError: amqp:not-found.
        """
        entity = self.find(path)
        if entity is None:
            known = ", ".join(sorted(each.name for each in self.queues)) or "none"
            raise AmqpError("amqp:not-found", f"expected one of the configured entities ({known}), found '{path}'")
        return entity

    def close(self) -> None:
        for entity in self.queues:
            entity.close()


def path_of(address: object) -> str:
    """The entity path in a link address: `amqps://host:5672/orders` is `orders`."""
    if not isinstance(address, str):
        raise AmqpError("amqp:not-allowed", f"expected a link address of type string, found {address!r}")
    return _AUTHORITY.sub("", address).strip("/")
