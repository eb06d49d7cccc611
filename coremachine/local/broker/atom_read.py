"""Descriptions of entities and rules in the XML that administration clients send."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

from coremachine.local.broker import codec
from coremachine.local.broker.atom_values import read_value
from coremachine.local.broker.durations import parse_duration, parse_limit
from coremachine.local.broker.rules import CorrelationFilter, FalseFilter, Filter, Rule, TrueFilter
from coremachine.local.broker.sql_action import SqlAction
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.stored import QueueSettings

SERVICE = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_STATUSES = {"Active", "Disabled", "SendDisabled", "ReceiveDisabled"}
_EXTRAS = (
    "AutoDeleteOnIdle",
    "EnableBatchedOperations",
    "EnableExpress",
    "EnablePartitioning",
    "MaxMessageSizeInKilobytes",
    "MaxSizeInMegabytes",
    "SupportOrdering",
    "UserMetadata",
    "DeadLetteringOnFilterEvaluationExceptions",
)
_UNCHANGEABLE = ("RequiresSession", "RequiresDuplicateDetection", "EnablePartitioning")
_NAMES = {
    "QueueDescription": re.compile(r"[A-Za-z0-9]([\w\-./~]{0,258}[\w])?"),
    "TopicDescription": re.compile(r"[A-Za-z0-9]([\w\-./~]{0,258}[\w])?"),
    "SubscriptionDescription": re.compile(r"[A-Za-z0-9]([\w\-.]{0,48}[\w])?"),
    "RuleDescription": re.compile(r"[$A-Za-z0-9]([\w\-.]{0,48}[\w])?"),
}
_CORRELATION = ("CorrelationId", "MessageId", "To", "ReplyTo", "Label", "SessionId", "ReplyToSessionId", "ContentType")


def find_description(body: bytes, *kinds: str) -> tuple[str, ET.Element]:
    """Which description is in a request's body, and the description.

    Raises:
        ValueError: It is none of these.
    """
    # The document comes from the loopback interface, from a program of the same user.
    root = ET.fromstring(body)  # noqa: S314
    for kind in kinds:
        found = root.find(f".//{{{SERVICE}}}{kind}")
        if found is not None:
            return kind, found
    raise ValueError(f"expected {' or '.join(kinds)} in the request's body, found none")


def check_name(kind: str, name: str) -> None:
    """Raise ValueError for a name that an entity of this kind cannot have."""
    if not _NAMES[kind].fullmatch(name):
        text = "letters, digits, '.', '-', '_' (and '/' for queues and topics)"
        raise ValueError(f"expected a name of {text} that begins and ends with a letter or digit, found '{name[:300]}'")


def read_settings(name: str, description: ET.Element, known: QueueSettings | None) -> QueueSettings:
    """The settings in a description.

    Args:
        known: What they were; those that the description leaves out stay.

    Raises:
        ValueError: One is out of its range, or cannot be changed.
    """
    given = {child.tag.removeprefix(f"{{{SERVICE}}}"): (child.text or "").strip() for child in description}
    base = known or QueueSettings(name=name)
    window = _ranged(given, "DuplicateDetectionHistoryTimeWindow", 5, 7 * 86400, base.duplicate_window_seconds or 600.0)
    detects = _flag(given, "RequiresDuplicateDetection", default=base.duplicate_window_seconds is not None)
    extras = dict(base.extras) | {key: given[key] for key in _EXTRAS if key in given}
    settings = replace(
        base,
        lock_duration_seconds=_ranged(given, "LockDuration", 5, 300, base.lock_duration_seconds),
        max_delivery_count=_count(given, "MaxDeliveryCount", 2000, base.max_delivery_count),
        default_ttl_seconds=_time_to_live(given, base.default_ttl_seconds),
        dead_letter_on_expiration=_flag(
            given, "DeadLetteringOnMessageExpiration", default=base.dead_letter_on_expiration
        ),
        duplicate_window_seconds=window if detects else None,
        requires_session=_flag(given, "RequiresSession", default=base.requires_session),
        forward_to=given.get("ForwardTo", base.forward_to or "") or None,
        forward_dead_letters_to=given.get("ForwardDeadLetteredMessagesTo", base.forward_dead_letters_to or "") or None,
        status=_status(given.get("Status", base.status)),
        extras=tuple(sorted(extras.items())),
    )
    if known is not None:
        _check_unchanged(known, settings)
    return settings


def read_rule(name: str, description: ET.Element) -> Rule:
    """The rule in a description.

    Raises:
        ValueError: Its filter or action is not understood.
    """
    action = description.find(f"{{{SERVICE}}}Action")
    expression = None if action is None else _text(action, "SqlExpression")
    has_action = action is not None and action.get(_TYPE) == "SqlRuleAction" and expression
    condition = description.find(f"{{{SERVICE}}}Filter")
    chosen: Filter = TrueFilter() if condition is None else _read_filter(condition)
    if not has_action or action is None or not expression:
        return Rule(name, chosen)
    return Rule(name, chosen, SqlAction(expression, _read_parameters(action)))


def _read_filter(condition: ET.Element) -> Filter:
    kind = condition.get(_TYPE, "").rpartition(":")[2]
    if kind == "TrueFilter":
        return TrueFilter()
    if kind == "FalseFilter":
        return FalseFilter()
    if kind == "SqlFilter":
        return SqlFilter(_text(condition, "SqlExpression") or "", _read_parameters(condition))
    if kind == "CorrelationFilter":
        system = {name.lower(): text for name in _CORRELATION if (text := _text(condition, name)) is not None}
        return CorrelationFilter(system, _read_properties(condition))
    raise ValueError(f"expected a TrueFilter, FalseFilter, SqlFilter or CorrelationFilter, found {kind or 'no type'!r}")


def _read_parameters(sql: ET.Element) -> dict[str, codec.Value]:
    """Of a filter or an action, by their names, which begin with @ whether they were sent so or not."""
    return {f"@{name.removeprefix('@')}": value for name, value in _read_properties(sql).items()}


def _read_properties(condition: ET.Element) -> dict[str, codec.Value]:
    found: dict[str, codec.Value] = {}
    for entry in condition.iter(f"{{{SERVICE}}}KeyValueOfstringanyType"):
        key, value = _text(entry, "Key"), entry.find(f"{{{SERVICE}}}Value")
        if key is None or value is None:
            raise ValueError("expected a Key and a Value in each property or parameter of a rule")
        kind = value.get(_TYPE, "string").rpartition(":")[2]
        found[key] = read_value(key, kind, value.text or "")
    return found


def _text(parent: ET.Element, name: str) -> str | None:
    child = parent.find(f"{{{SERVICE}}}{name}")
    return None if child is None else child.text or ""


def _flag(given: dict[str, str], key: str, *, default: bool) -> bool:
    text = given.get(key, str(default)).lower()
    if text not in {"true", "false"}:
        raise ValueError(f"{key}: expected true or false, found {text[:50]!r}")
    return text == "true"


def _ranged(given: dict[str, str], key: str, least: float, most: float, default: float) -> float:
    if key not in given:
        return default
    seconds = parse_duration(given[key])
    if not least <= seconds <= most:
        raise ValueError(f"{key}: expected {least} to {most} seconds, found {seconds:g}")
    return seconds


def _time_to_live(given: dict[str, str], default: float | None) -> float | None:
    if "DefaultMessageTimeToLive" not in given:
        return default
    seconds = parse_limit(given["DefaultMessageTimeToLive"])
    if seconds is not None and seconds < 1:
        raise ValueError(f"DefaultMessageTimeToLive: expected at least 1 second, found {seconds:g}")
    return seconds


def _count(given: dict[str, str], key: str, most: int, default: int | None) -> int | None:
    if key not in given:
        return default
    text = given[key]
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise ValueError(f"{key}: expected a number of 1 to {most}, found {text[:50]!r}")
    return int(text)


def _status(text: str) -> str:
    if text not in _STATUSES:
        raise ValueError(f"Status: expected one of {', '.join(sorted(_STATUSES))}, found {text[:50]!r}")
    return text


def _check_unchanged(known: QueueSettings, settings: QueueSettings) -> None:
    before = (known.requires_session, known.duplicate_window_seconds is not None, _is_partitioned(known))
    after = (settings.requires_session, settings.duplicate_window_seconds is not None, _is_partitioned(settings))
    for name, old, new in zip(_UNCHANGEABLE, before, after, strict=True):
        if old != new:
            raise ValueError(f"{name}: expected {str(old).lower()}, since it cannot be changed; make a new entity")


def _is_partitioned(settings: QueueSettings) -> bool:
    return dict(settings.extras).get("EnablePartitioning", "false").lower() == "true"
