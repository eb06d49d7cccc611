"""The namespace: all entities by name, and what goes from one to another."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import NoReturn, Protocol

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.entity import CallLater, Entity, SessionEntity, call_later
from coremachine.local.broker.faults import Faults
from coremachine.local.broker.message import Content
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.rules import Rule, RuleBook
from coremachine.local.broker.session_queue import SessionQueue
from coremachine.local.broker.stored import DEAD_LETTER_SUFFIX, Message, QueueSettings, SessionRequired
from coremachine.local.broker.topic import SUBSCRIPTIONS, Subscription, Topic

CBS_NODE = "$cbs"
MANAGEMENT_SUFFIX = "/$management"
MAX_HOPS = 4

_AUTHORITY = re.compile(r"^[a-z]+://[^/]*/", re.IGNORECASE)
_SUBSCRIPTION = re.compile(rf"^(?P<topic>.+)/{SUBSCRIPTIONS}/(?P<name>[^/]+)$", re.IGNORECASE)


class Keeper(Protocol):
    """What durable mode wants to know; see `durable.Keeper`."""

    def added(self, kind: str, entity: Entity, topic: str | None = None, rules: RuleBook | None = None) -> None: ...

    def changed(self, entity: Entity) -> None: ...

    def removed(self, entity: Entity) -> None: ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


class Namespace:
    """Queues, topics and subscriptions by name, without regard to case.

    Args:
        keeper: In durable mode.
    """

    def __init__(
        self,
        queues: Iterable[QueueSettings],
        clock: Callable[[], float],
        later: CallLater = call_later,
        keeper: Keeper | None = None,
    ) -> None:
        self.clock = clock
        self.started_at = clock()
        self._call_later = later
        self._keeper = keeper
        self._entities: dict[str, Entity] = {}
        self.faults = Faults(clock)
        for settings in queues:
            self.add_queue(settings)

    @classmethod
    def of(
        cls,
        config: BrokerConfig,
        clock: Callable[[], float],
        later: CallLater = call_later,
        keeper: Keeper | None = None,
    ) -> "Namespace":
        """All entities of a configuration."""
        namespace = cls(config.queues, clock, later, keeper)
        for each in config.topics:
            topic = namespace.add_topic(each.settings)
            for subscription in each.subscriptions:
                rules = None if subscription.rules is None else list(subscription.rules)
                namespace.add_subscription(topic, subscription.settings, rules)
        return namespace

    def add_queue(self, settings: QueueSettings) -> Entity:
        """Add a queue; one of the same name is an error of the caller."""
        entity = self._make_queue(settings)
        self._add(entity)
        if self._keeper is not None:
            self._keeper.added("queue", entity)
        return entity

    def add_topic(self, settings: QueueSettings) -> Topic:
        """Add a topic; an entity of the same name is an error of the caller."""
        topic = Topic(settings.name, Queue(settings, self.clock), self.clock, self._call_later)
        self._add(topic)
        if self._keeper is not None:
            self._keeper.added("topic", topic)
        return topic

    def add_subscription(self, topic: Topic, settings: QueueSettings, rules: list[Rule] | None = None) -> Subscription:
        """Add a subscription to a topic; without rules it takes every message."""
        if topic.find(settings.name) is not None:
            raise ValueError(f"expected a new subscription name, found that '{settings.name}' exists already")
        path = f"{topic.name}/{SUBSCRIPTIONS}/{settings.name}"
        entity = self._make_queue(replace(settings, name=path))
        subscription = Subscription(settings.name, entity, RuleBook(rules))
        topic.add(subscription)
        if self._keeper is not None:
            self._keeper.added("subscription", entity, topic.name, subscription.rules)
        return subscription

    def remove(self, path: str) -> None:
        """Delete a queue, topic or subscription: links are detached, messages are gone."""
        entity = self.get(path)
        subscription = self.find_subscription(path)
        self._forget(entity)
        if subscription is not None:
            topic, found = subscription
            topic.remove_subscription(found.name, _not_found(path))
        else:
            del self._entities[path.strip("/").lower()]
            entity.remove(_not_found(path))

    def change(self, entity: Entity, settings: QueueSettings) -> None:
        """Other settings for an entity, from now on."""
        entity.updated_at = self.clock()
        entity.queue.settings = settings
        if entity.queue.dead_letters is not None:
            entity.queue.dead_letters.settings = settings
        self._connect(entity)
        if self._keeper is not None:
            self._keeper.changed(entity)

    def commit(self) -> None:
        """In durable mode, return when all that happened is on the disk: before anything is said to a client.

        Raises:
            DurableError: It cannot be written; nothing may be said.
        """
        if self._keeper is not None:
            self._keeper.commit()

    @property
    def queues(self) -> list[Entity]:
        return [each for each in self._entities.values() if not isinstance(each, Topic)]

    @property
    def topics(self) -> list[Topic]:
        return [each for each in self._entities.values() if isinstance(each, Topic)]

    @property
    def entities(self) -> list[Entity]:
        """All that messages are received from, without dead letters."""
        return [*self.queues, *(each.entity for topic in self.topics for each in topic.subscriptions)]

    def find(self, path: str) -> Entity | None:
        """The entity at a path such as `orders`, `orders/$DeadLetterQueue` or `news/Subscriptions/all`."""
        key = path.strip("/").lower()
        suffix = "/" + DEAD_LETTER_SUFFIX.lower()
        bare = key.removesuffix(suffix)
        subscription = self.find_subscription(bare)
        entity = subscription[1].entity if subscription else self._entities.get(bare)
        if entity is None or bare == key:
            return entity
        return None if isinstance(entity, Topic) else entity.dead_letters

    def find_subscription(self, path: str) -> tuple[Topic, Subscription] | None:
        """A subscription and its topic by the path `topic/Subscriptions/name`."""
        match = _SUBSCRIPTION.match(path.strip("/"))
        topic = self._entities.get(match["topic"].lower()) if match else None
        if match is None or not isinstance(topic, Topic):
            return None
        found = topic.find(match["name"])
        return None if found is None else (topic, found)

    def get(self, path: str) -> Entity:
        """As `find`, but refuses what does not exist.

        Raises:
            AmqpError: amqp:not-found.
        """
        entity = self.find(path)
        return self.refuse_unknown(path) if entity is None else entity

    def refuse_unknown(self, path: str) -> NoReturn:
        known = ", ".join(sorted(each.name for each in [*self.topics, *self.entities])) or "none"
        raise AmqpError("amqp:not-found", f"{_not_found(path).description} Known are: {known[:1000]}.")

    def clock_turned(self) -> None:
        for entity in list(self._entities.values()):
            entity.clock_turned()

    def close(self) -> None:
        for entity in list(self._entities.values()):
            entity.close()
        if self._keeper is not None:
            self._keeper.close()

    def _forget(self, entity: Entity) -> None:
        if self._keeper is not None:
            for each in entity.subscriptions if isinstance(entity, Topic) else []:
                self._keeper.removed(each.entity)
            self._keeper.removed(entity)

    def _add(self, entity: Entity) -> None:
        key = entity.name.lower()
        if key in self._entities:
            raise ValueError(f"expected a new name, found that {entity.name!r} exists already")
        self._entities[key] = entity

    def _make_queue(self, settings: QueueSettings) -> Entity:
        if settings.requires_session:
            sessions = SessionQueue(settings, self.clock)
            entity: Entity = SessionEntity(settings.name, sessions, self.clock, self._call_later)
        else:
            entity = Entity(settings.name, Queue(settings, self.clock), self.clock, self._call_later)
        self._connect(entity)
        return entity

    def _connect(self, entity: Entity) -> None:
        """Let an entity forward what its settings say; a topic forwards to its subscriptions always."""
        settings, queue = entity.queue.settings, entity.queue
        if isinstance(entity, Topic):
            return
        queue.forward = partial(self._forward, entity, settings.forward_to) if settings.forward_to else None
        if queue.dead_letters is not None and entity.dead_letters is not None:
            target = settings.forward_dead_letters_to
            queue.dead_letters.forward = partial(self._forward, entity.dead_letters, target) if target else None

    def _forward(self, source: Entity, target_path: str, message: Message) -> bool:
        content = replace(message.content, hops=message.content.hops + 1)
        target = self.find(path_of(target_path))
        if content.hops > MAX_HOPS:
            problem = ("MaxTransferHopCountExceeded", f"The message was forwarded more than {MAX_HOPS} times.")
        elif target is None:
            problem = ("TransferDestinationMissing", _not_found(target_path).description)
        else:
            return self._hand_over(source, target, content, message)
        return self._bury(source, message, *problem)

    def _hand_over(self, source: Entity, target: Entity, content: Content, message: Message) -> bool:
        try:
            target.queue.send(content, forwarded=message)
        except SessionRequired as exc:
            return self._bury(source, message, "SessionIdIsMissing", str(exc))
        target.pump_later()
        return True

    def _bury(self, source: Entity, message: Message, reason: str, description: str) -> bool:
        """Keep what cannot be forwarded among the source's dead letters; a dead letter itself stays where it is."""
        if source.queue.dead_letters is None:
            return False
        source.queue.dead_letters.bury(message, source.name, reason, description)
        return True


def _not_found(path: str) -> AmqpError:
    return AmqpError("amqp:not-found", f"The messaging entity '{path}' could not be found.")


def path_of(address: object) -> str:
    """The entity path in a link address: `amqps://host:5672/orders` is `orders`."""
    if not isinstance(address, str):
        raise AmqpError("amqp:not-allowed", f"expected a link address of type string, found {repr(address)[:100]}")
    return _AUTHORITY.sub("", address).strip("/")
