"""Settings and rules as JSON, for the file of durable mode."""

import json
from dataclasses import asdict
from typing import Any

from coremachine.local.broker import codec
from coremachine.local.broker.rules import CorrelationFilter, FalseFilter, Filter, Rule, TrueFilter
from coremachine.local.broker.sql_action import SqlAction, encode
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.stored import QueueSettings


def settings_text(settings: QueueSettings) -> str:
    return json.dumps(asdict(settings), sort_keys=True)


def read_settings(text: str) -> QueueSettings:
    fields: dict[str, Any] = json.loads(text)
    return QueueSettings(**fields | {"extras": tuple((name, value) for name, value in fields["extras"])})


def rules_text(rules: list[Rule] | None) -> str:
    return json.dumps(None if rules is None else [_rule_fields(rule) for rule in rules], sort_keys=True)


def read_rules(text: str) -> list[Rule] | None:
    found: list[dict[str, Any]] | None = json.loads(text)
    return None if found is None else [_read_rule(fields) for fields in found]


def _rule_fields(rule: Rule) -> dict[str, Any]:
    action = None if rule.action is None else rule.action.expression
    return {"name": rule.name, "filter": _filter_fields(rule.filter), "action": action}


def _filter_fields(condition: Filter | SqlFilter) -> dict[str, Any]:
    if isinstance(condition, SqlFilter):
        return {"sql": condition.expression}
    if isinstance(condition, CorrelationFilter):
        # As AMQP, so that every type survives.
        properties = {name: encode(value).hex() for name, value in condition.properties.items()}
        return {"system": dict(condition.system), "properties": properties}
    if isinstance(condition, TrueFilter | FalseFilter):
        return {"takes": isinstance(condition, TrueFilter)}
    raise TypeError(f"expected a known filter, found {type(condition).__name__}")


def _read_rule(fields: dict[str, Any]) -> Rule:
    action = None if fields["action"] is None else SqlAction(fields["action"])
    return Rule(fields["name"], _read_filter(fields["filter"]), action)


def _read_filter(fields: dict[str, Any]) -> Filter | SqlFilter:
    if "sql" in fields:
        return SqlFilter(fields["sql"])
    if "takes" in fields:
        return TrueFilter() if fields["takes"] else FalseFilter()
    properties = {name: codec.decode(bytes.fromhex(value))[0] for name, value in fields["properties"].items()}
    return CorrelationFilter(fields["system"], properties)
