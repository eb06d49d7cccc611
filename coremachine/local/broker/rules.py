"""Rules of a subscription: which messages it takes, and what an action changes in them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from coremachine.local.broker import codec
from coremachine.local.broker.message import Content
from coremachine.local.broker.message_view import MessageView
from coremachine.local.broker.sql_action import SqlAction
from coremachine.local.broker.sql_expression import are_comparable
from coremachine.local.broker.sql_filter import SqlFilter

DEFAULT_RULE = "$Default"
_RULE_NAME_PROPERTY = "RuleName"


class Filter(Protocol):
    """What decides whether a message is taken."""

    def matches(self, message: MessageView) -> bool: ...


@dataclass(frozen=True, slots=True)
class TrueFilter:
    """Takes every message."""

    def matches(self, _message: MessageView) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class FalseFilter:
    """Takes no message."""

    def matches(self, _message: MessageView) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class CorrelationFilter:
    """Takes messages whose properties have exactly these values.

    Attributes:
        system: By the names of `message_view.SYSTEM_PROPERTIES`.
        properties: Application properties.
    """

    system: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, codec.Value] = field(default_factory=dict)

    def matches(self, message: MessageView) -> bool:
        if any(message.system(name) != value for name, value in self.system.items()):
            return False
        found = message.properties
        return all(name in found and _is_equal(found[name], value) for name, value in self.properties.items())


def _is_equal(found: codec.Value, wanted: codec.Value) -> bool:
    # Not by == alone: for Python, true is 1.
    return are_comparable(found, wanted) and found == wanted


@dataclass(frozen=True, slots=True)
class Rule:
    """A filter and what is changed in the messages that it takes."""

    name: str
    filter: Filter | SqlFilter = field(default_factory=TrueFilter)
    action: SqlAction | None = None


class RuleBook:
    """The rules of one subscription, by name without regard to case."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self._rules: dict[str, Rule] = {}
        self.on_change: Callable[[], None] | None = None
        for rule in [Rule(DEFAULT_RULE)] if rules is None else rules:
            self.add(rule)

    def __iter__(self) -> Iterator[Rule]:
        return iter(list(self._rules.values()))

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, name: str) -> Rule | None:
        return self._rules.get(name.lower())

    def add(self, rule: Rule) -> None:
        """Add a rule.

        Raises:
            ValueError: There is one of this name.
        """
        if self.find(rule.name) is not None:
            raise ValueError(f"expected a new rule name, found that '{rule.name}' exists already")
        self.replace(rule)

    def replace(self, rule: Rule) -> None:
        self._rules[rule.name.lower()] = rule
        self._changed()

    def remove(self, name: str) -> bool:
        """Remove a rule; False if there is none of this name."""
        is_removed = self._rules.pop(name.lower(), None) is not None
        self._changed()
        return is_removed

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def copies_of(self, content: Content) -> list[Content]:
        """What the subscription gets: a copy for each matching rule with an action, one for all others together."""
        view = MessageView(content)
        matching = [rule for rule in self._rules.values() if rule.filter.matches(view)]
        copies = [content] if any(rule.action is None for rule in matching) else []
        changed = [(rule.name, rule.action) for rule in matching if rule.action is not None]
        return copies + [action.applied(content, {_RULE_NAME_PROPERTY: name}) for name, action in changed]
