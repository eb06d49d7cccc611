"""Entities and rules as the XML of Service Bus' administration protocol.

Clients look for the prefixes and default namespaces that the service writes, so that they are written by hand.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from coremachine.local.broker.atom_values import value_element
from coremachine.local.broker.durations import UNLIMITED, format_duration
from coremachine.local.broker.entity import Entity
from coremachine.local.broker.rules import CorrelationFilter, FalseFilter, Filter, Rule, TrueFilter
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.topic import Subscription, Topic

_ATOM = "http://www.w3.org/2005/Atom"
_SERVICE = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_DEFAULTS = {
    "AutoDeleteOnIdle": UNLIMITED,
    "EnableBatchedOperations": "true",
    "EnableExpress": "false",
    "EnablePartitioning": "false",
    "MaxSizeInMegabytes": "1024",
}
_CORRELATION = ("CorrelationId", "MessageId", "To", "ReplyTo", "Label", "SessionId", "ReplyToSessionId", "ContentType")


Values = list[tuple[str, str]]


def queue_entry(entity: Entity) -> str:
    settings, counts = entity.queue.settings, entity.queue.counts()
    # The service counts locked messages as active.
    active = counts.active + counts.locked
    total = active + counts.scheduled + counts.deferred + counts.dead_letter
    values = [
        ("LockDuration", format_duration(settings.lock_duration_seconds)),
        ("RequiresDuplicateDetection", _flag(settings.duplicate_window_seconds is not None)),
        ("RequiresSession", _flag(settings.requires_session)),
        ("DefaultMessageTimeToLive", format_duration(settings.default_ttl_seconds)),
        ("DeadLetteringOnMessageExpiration", _flag(settings.dead_letter_on_expiration)),
        ("DuplicateDetectionHistoryTimeWindow", format_duration(settings.duplicate_window_seconds or 600.0)),
        ("MaxDeliveryCount", str(settings.max_delivery_count)),
        ("SizeInBytes", _size(entity)),
        ("MessageCount", str(total)),
        *_forwarding(entity),
        *_common(entity),
    ]
    counted = _counts(active, counts.dead_letter, counts.scheduled)
    return _entry(entity.name, entity, "QueueDescription", _elements(values) + counted)


def topic_entry(topic: Topic) -> str:
    settings, counts = topic.queue.settings, topic.queue.counts()
    values = [
        ("DefaultMessageTimeToLive", format_duration(settings.default_ttl_seconds)),
        ("RequiresDuplicateDetection", _flag(settings.duplicate_window_seconds is not None)),
        ("DuplicateDetectionHistoryTimeWindow", format_duration(settings.duplicate_window_seconds or 600.0)),
        ("SizeInBytes", _size(topic)),
        ("SubscriptionCount", str(len(topic.subscriptions))),
        *_common(topic, SupportOrdering="true"),
    ]
    return _entry(topic.name, topic, "TopicDescription", _elements(values) + _counts(0, 0, counts.scheduled))


def subscription_entry(subscription: Subscription) -> str:
    entity = subscription.entity
    settings, counts = entity.queue.settings, entity.queue.counts()
    active = counts.active + counts.locked
    values = [
        ("LockDuration", format_duration(settings.lock_duration_seconds)),
        ("RequiresSession", _flag(settings.requires_session)),
        ("DefaultMessageTimeToLive", format_duration(settings.default_ttl_seconds)),
        ("DeadLetteringOnMessageExpiration", _flag(settings.dead_letter_on_expiration)),
        ("MaxDeliveryCount", str(settings.max_delivery_count)),
        ("MessageCount", str(active + counts.deferred + counts.dead_letter)),
        *_forwarding(entity),
        *_common(entity, DeadLetteringOnFilterEvaluationExceptions="true"),
    ]
    content = _elements(values) + _counts(active, counts.dead_letter, counts.scheduled)
    return _entry(subscription.name, entity, "SubscriptionDescription", content, path=entity.name)


def rule_entry(subscription: Subscription, rule: Rule) -> str:
    if rule.action is None:
        action = '<Action i:type="EmptyRuleAction"/>'
    else:
        action = f'<Action i:type="SqlRuleAction">{_sql(rule.action.expression, rule.action.parameters)}</Action>'
    created = _elements([("CreatedAt", _moment(subscription.entity.created_at)), ("Name", rule.name)])
    path = f"{subscription.entity.name}/Rules/{rule.name}"
    content = _filter(rule.filter) + action + created
    return _entry(rule.name, subscription.entity, "RuleDescription", content, path=path)


def namespace_entry(name: str, started_at: float) -> str:
    moment = _moment(started_at)
    values = [
        ("CreatedTime", moment),
        ("MessagingSKU", "Standard"),
        ("ModifiedTime", moment),
        ("Name", name),
        ("NamespaceType", "Messaging"),
    ]
    return _raw_entry(name, name, moment, moment, "NamespaceInfo", _elements(values))


def feed(title: str, entries: Iterable[str], next_link: str | None = None) -> bytes:
    """A list of entries; with a link to the next page if there is one, which is the second: clients count."""
    link = '<link rel="self" href="https://localhost/"/>'
    link += f'<link rel="next" href={quoteattr(next_link)}/>' if next_link else ""
    text = f'<feed xmlns="{_ATOM}"><title type="text">{escape(title)}</title>{link}{"".join(entries)}</feed>'
    return document(text)


def document(text: str) -> bytes:
    return b'<?xml version="1.0" encoding="utf-8"?>' + text.encode()


def error(code: int, detail: str) -> bytes:
    return document(f"<Error>{_elements([('Code', str(code)), ('Detail', detail)])}</Error>")


def _entry(title: str, entity: Entity, kind: str, content: str, path: str | None = None) -> str:
    created, updated = _moment(entity.created_at), _moment(entity.updated_at)
    return _raw_entry(title, path or title, created, updated, kind, content)


def _raw_entry(title: str, path: str, created: str, updated: str, kind: str, content: str) -> str:
    address = f"https://localhost/{path}"
    return (
        f'<entry xmlns="{_ATOM}"><id>{escape(address)}</id><title type="text">{escape(title)}</title>'
        f"<published>{created}</published><updated>{updated}</updated>"
        f'<link rel="self" href={quoteattr(address)}/>'
        f'<content type="application/xml"><{kind} xmlns="{_SERVICE}" xmlns:i="{_INSTANCE}">{content}</{kind}></content>'
        "</entry>"
    )


def _common(entity: Entity, **defaults: str) -> Values:
    values = _DEFAULTS | defaults | dict(entity.queue.settings.extras)
    created, updated = _moment(entity.created_at), _moment(entity.updated_at)
    return [
        *values.items(),
        ("Status", entity.queue.settings.status),
        ("CreatedAt", created),
        ("UpdatedAt", updated),
        ("AccessedAt", updated),
        ("EntityAvailabilityStatus", "Available"),
    ]


def _size(entity: Entity) -> str:
    return str(sum(message.content.size for message in entity.queue.peek(0)))


def _forwarding(entity: Entity) -> Values:
    settings = entity.queue.settings
    values = [("ForwardTo", settings.forward_to), ("ForwardDeadLetteredMessagesTo", settings.forward_dead_letters_to)]
    return [(name, value) for name, value in values if value]


def _counts(active: int, dead: int, scheduled: int) -> str:
    numbers = {
        "ActiveMessageCount": active,
        "DeadLetterMessageCount": dead,
        "ScheduledMessageCount": scheduled,
        "TransferMessageCount": 0,
        "TransferDeadLetterMessageCount": 0,
    }
    inner = "".join(f"<d2p1:{name}>{number}</d2p1:{name}>" for name, number in numbers.items())
    return f'<CountDetails xmlns:d2p1="{_COUNTS}">{inner}</CountDetails>'


def _filter(condition: Filter) -> str:
    if isinstance(condition, CorrelationFilter):
        values = [(name, condition.system[name.lower()]) for name in _CORRELATION if name.lower() in condition.system]
        pairs = "".join(_property(name, value) for name, value in condition.properties.items())
        inner = _elements(values) + (f"<Properties>{pairs}</Properties>" if pairs else "")
        return f'<Filter i:type="CorrelationFilter">{inner}</Filter>'
    if isinstance(condition, SqlFilter):
        return f'<Filter i:type="SqlFilter">{_sql(condition.expression, condition.parameters)}</Filter>'
    if isinstance(condition, FalseFilter):
        return f'<Filter i:type="FalseFilter">{_sql("1=0")}</Filter>'
    if isinstance(condition, TrueFilter):
        return f'<Filter i:type="TrueFilter">{_sql("1=1")}</Filter>'
    raise TypeError(f"expected a known filter, found {type(condition).__name__}")


def _property(name: str, value: object) -> str:
    return f"<KeyValueOfstringanyType><Key>{escape(name)}</Key>{value_element(value)}</KeyValueOfstringanyType>"


def _sql(expression: str, parameters: Mapping[str, object] | None = None) -> str:
    pairs = "".join(_property(name, value) for name, value in (parameters or {}).items())
    shown = f"<Parameters>{pairs}</Parameters>" if pairs else ""
    return _elements([("SqlExpression", expression), ("CompatibilityLevel", "20")]) + shown


def _elements(values: Values) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values)


def _flag(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
