"""Service Bus' ATOM administration protocol: queues, topics, subscriptions, rules and the namespace.

    GET, PUT, DELETE /{queue or topic}
    GET, PUT, DELETE /{topic}/Subscriptions/{name}[/Rules/{name}]
    GET              /$Resources/queues, /$Resources/topics, /{topic}/Subscriptions[/{name}/Rules], /$namespaceinfo

A PUT with `If-Match` changes what exists, one without makes something new.
"""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import NamedTuple, TypeVar
from xml.etree import ElementTree as ET

from coremachine.local.broker import atom_write as write
from coremachine.local.broker.atom_read import SERVICE, check_name, find_description, read_rule, read_settings
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.namespace import Namespace, path_of
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.topic import Subscription, Topic

NAMESPACE_NAME = "sbemulatorns"
_RULE_PATH = re.compile(r"(?P<subscription>.+/subscriptions/[^/]+)/rules(?:/(?P<rule>[^/]+))?", re.IGNORECASE)
_SUBSCRIPTIONS_PATH = re.compile(r"(?P<topic>.+)/subscriptions(?:/(?P<name>[^/]+))?", re.IGNORECASE)
_MAX_PAGE = 100

Answer = tuple[HTTPStatus, bytes]
T = TypeVar("T")


class AtomRequest(NamedTuple):
    """What a client asks for."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    is_update: bool


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        self.status = status
        super().__init__(text)


def answer_atom(namespace: Namespace, request: AtomRequest) -> Answer:
    """Status and XML for a request."""
    try:
        return _Atom(namespace, request).answer()
    except _Refused as exc:
        return exc.status, write.error(exc.status, str(exc))
    except (ET.ParseError, ValueError) as exc:
        return HTTPStatus.BAD_REQUEST, write.error(400, str(exc))


class _Atom:
    """One request."""

    def __init__(self, namespace: Namespace, request: AtomRequest) -> None:
        self._namespace = namespace
        self._request = request
        self._path = request.path.strip("/")

    def answer(self) -> Answer:
        if self._request.method not in {"GET", "PUT", "DELETE"}:
            text = f"expected GET, PUT or DELETE, found {self._request.method[:20]}"
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, text)
        lists: dict[str, Callable[[], Answer]] = {
            "$resources/queues": lambda: self._page("Queues", self._namespace.queues, write.queue_entry),
            "$resources/topics": lambda: self._page("Topics", self._namespace.topics, write.topic_entry),
            "$namespaceinfo": self._namespace_info,
        }
        listing = lists.get(self._path.lower())
        if listing is not None:
            return listing()
        if match := _RULE_PATH.fullmatch(self._path):
            return self._rules(match["subscription"], match["rule"])
        if match := _SUBSCRIPTIONS_PATH.fullmatch(self._path):
            return self._subscriptions(match["topic"], match["name"])
        return self._entity()

    def _namespace_info(self) -> Answer:
        return HTTPStatus.OK, write.document(write.namespace_entry(NAMESPACE_NAME, self._namespace.started_at))

    def _page(self, title: str, found: Sequence[T], entry: Callable[[T], str]) -> Answer:
        skip, top = self._number("$skip", 0), min(self._number("$top", _MAX_PAGE), _MAX_PAGE)
        page = found[skip : skip + top]
        has_more = skip + top < len(found)
        link = f"https://localhost/{self._path}?$skip={skip + top}&$top={top}" if has_more else None
        return HTTPStatus.OK, write.feed(title, [entry(each) for each in page], link)

    def _number(self, key: str, default: int) -> int:
        text = self._request.query.get(key, str(default))
        if not re.fullmatch("[0-9]{1,9}", text):
            raise ValueError(f"expected a number of at most 9 digits in the query's {key}, found {text[:50]!r}")
        return int(text)

    def _entity(self) -> Answer:
        found = self._namespace.find(self._path)
        if self._request.method == "GET":
            # Service Bus answers a missing entity with an empty feed, and its clients rely on it.
            return HTTPStatus.OK, write.feed("", []) if found is None else write.document(_entry_of(found))
        if self._request.method == "DELETE":
            self._require(found, "queue or topic", self._path)
            self._namespace.remove(self._path)
            return HTTPStatus.OK, b""
        kind, description = find_description(self._request.body, "QueueDescription", "TopicDescription")
        if self._request.is_update:
            entity = self._require(found, "queue or topic", self._path)
            self._change(entity, read_settings(entity.name, description, entity.queue.settings))
            return HTTPStatus.OK, write.document(_entry_of(entity))
        self._require_free(found)
        check_name(kind, self._path)
        settings = self._checked(read_settings(self._path, description, None))
        is_topic = kind == "TopicDescription"
        made = self._namespace.add_topic(settings) if is_topic else self._namespace.add_queue(settings)
        return HTTPStatus.CREATED, write.document(_entry_of(made))

    def _subscriptions(self, topic_path: str, name: str | None) -> Answer:
        topic = self._namespace.find(topic_path)
        if not isinstance(topic, Topic):
            return self._missing(f"expected an existing topic, found no '{topic_path}'")
        if name is None:
            return self._page("Subscriptions", topic.subscriptions, write.subscription_entry)
        found = topic.find(name)
        if self._request.method == "GET":
            entry = None if found is None else write.subscription_entry(found)
            return HTTPStatus.OK, write.feed("", []) if entry is None else write.document(entry)
        if self._request.method == "DELETE":
            self._namespace.remove(self._require(found, "subscription", name).entity.name)
            return HTTPStatus.OK, b""
        kind, description = find_description(self._request.body, "SubscriptionDescription")
        if self._request.is_update:
            found = self._require(found, "subscription", name)
            known = found.entity.queue.settings
            self._change(found.entity, read_settings(known.name, description, known))
            return HTTPStatus.OK, write.document(write.subscription_entry(found))
        self._require_free(found)
        check_name(kind, name)
        settings = self._checked(read_settings(name, description, None))
        default = description.find(f"{{{SERVICE}}}DefaultRuleDescription")
        rules = None if default is None else [read_rule(_rule_name(default), default)]
        made = self._namespace.add_subscription(topic, settings, rules)
        return HTTPStatus.CREATED, write.document(write.subscription_entry(made))

    def _rules(self, subscription_path: str, name: str | None) -> Answer:
        found = self._namespace.find_subscription(subscription_path)
        if found is None:
            return self._missing(f"expected an existing subscription, found no '{subscription_path}'")
        subscription = found[1]
        if name is None:
            return self._page("Rules", list(subscription.rules), lambda rule: write.rule_entry(subscription, rule))
        rule = subscription.rules.find(name)
        if self._request.method == "GET":
            entry = None if rule is None else write.rule_entry(subscription, rule)
            return HTTPStatus.OK, write.feed("", []) if entry is None else write.document(entry)
        if self._request.method == "DELETE":
            self._require(rule, "rule", name)
            subscription.rules.remove(name)
            return HTTPStatus.OK, b""
        return self._put_rule(subscription, name, exists=rule is not None)

    def _put_rule(self, subscription: Subscription, name: str, *, exists: bool) -> Answer:
        kind, description = find_description(self._request.body, "RuleDescription")
        if self._request.is_update and not exists:
            self._require(None, "rule", name)
        if not self._request.is_update:
            self._require_free(True if exists else None)
            check_name(kind, name)
        rule = read_rule(name, description)
        subscription.rules.replace(rule)
        status = HTTPStatus.OK if self._request.is_update else HTTPStatus.CREATED
        return status, write.document(write.rule_entry(subscription, rule))

    def _change(self, entity: Entity, settings: QueueSettings) -> None:
        self._namespace.change(entity, self._checked(settings))

    def _checked(self, settings: QueueSettings) -> QueueSettings:
        """Settings whose targets of forwarding exist."""
        targets = {"ForwardTo": settings.forward_to, "ForwardDeadLetteredMessagesTo": settings.forward_dead_letters_to}
        for key, target in targets.items():
            if target is not None and self._namespace.find(path_of(target)) is None:
                raise ValueError(f"{key}: expected an existing queue or topic, found no '{target[:300]}'")
        return settings

    def _missing(self, text: str) -> Answer:
        """Readers get an empty feed, as for any missing entity."""
        if self._request.method == "GET":
            return HTTPStatus.OK, write.feed("", [])
        raise _Refused(HTTPStatus.NOT_FOUND, text)

    def _require(self, found: T | None, kind: str, name: str) -> T:
        if found is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"expected an existing {kind}, found no '{name[:300]}'")
        return found

    def _require_free(self, found: object | None) -> None:
        if found is not None:
            text = f"expected a new name, found that '{self._path[:300]}' exists already"
            raise _Refused(HTTPStatus.CONFLICT, text)


def _entry_of(entity: Entity) -> str:
    return write.topic_entry(entity) if isinstance(entity, Topic) else write.queue_entry(entity)


def _rule_name(description: ET.Element) -> str:
    return description.findtext(f"{{{SERVICE}}}Name") or "$Default"
