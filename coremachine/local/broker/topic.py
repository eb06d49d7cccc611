"""Topics and their subscriptions."""

from collections.abc import Callable
from dataclasses import replace

from coremachine.local.broker.entity import CallLater, Entity, call_later
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.queue import Queue
from coremachine.local.broker.rules import RuleBook
from coremachine.local.broker.stored import Message, SessionRequired

SUBSCRIPTIONS = "Subscriptions"


class Subscription:
    """A queue behind a topic, and the rules of what gets into it."""

    def __init__(self, name: str, entity: Entity, rules: RuleBook) -> None:
        self.name = name
        self.entity = entity
        self.rules = rules

    def take(self, message: Message) -> None:
        for copy in self.rules.copies_of(message.content):
            try:
                self.entity.queue.send(copy, forwarded=message)
            except SessionRequired as exc:
                dead_letters = self.entity.queue.dead_letters
                if dead_letters is not None:
                    kept = replace(message, content=copy)
                    dead_letters.bury(kept, self.entity.name, "SessionIdIsMissing", str(exc))
        self.entity.pump_later()


class Topic(Entity):
    """Keeps scheduled messages itself; every other message goes on to the subscriptions at once."""

    def __init__(self, name: str, queue: Queue, clock: Callable[[], float], later: CallLater = call_later) -> None:
        super().__init__(name, queue, clock, later)
        self._subscriptions: dict[str, Subscription] = {}
        queue.forward = self._distribute

    @property
    def subscriptions(self) -> list[Subscription]:
        return list(self._subscriptions.values())

    def add(self, subscription: Subscription) -> None:
        self._subscriptions[subscription.name.lower()] = subscription

    def find(self, name: str) -> Subscription | None:
        return self._subscriptions.get(name.lower())

    def remove_subscription(self, name: str, error: AmqpError) -> None:
        self._subscriptions.pop(name.lower()).entity.remove(error)

    def remove(self, error: AmqpError) -> None:
        for subscription in self.subscriptions:
            self.remove_subscription(subscription.name, error)
        super().remove(error)

    def clock_turned(self) -> None:
        super().clock_turned()
        for subscription in self.subscriptions:
            subscription.entity.clock_turned()

    def close(self) -> None:
        super().close()
        for subscription in self.subscriptions:
            subscription.entity.close()

    def _distribute(self, message: Message) -> bool:
        limit = self.queue.settings.default_ttl_seconds
        content = message.content
        if limit is not None and (content.ttl_seconds is None or content.ttl_seconds > limit):
            message = replace(message, content=replace(content, ttl_seconds=limit))
        for subscription in self.subscriptions:
            subscription.take(message)
        return True
