"""Settings and rules as JSON, for the file of durable mode."""

import json
from collections.abc import Mapping
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
    action = None if rule.action is None else _sql_fields(rule.action)
    return {"name": rule.name, "filter": _filter_fields(rule.filter), "action": action}


def _sql_fields(sql: SqlFilter | SqlAction) -> dict[str, Any]:
    return {"sql": sql.expression, "parameters": _encoded(sql.parameters)}


def _encoded(values: Mapping[str, Any]) -> dict[str, str]:
    """As AMQP, so that every type survives."""
    return {name: encode(value).hex() for name, value in values.items()}


def _decoded(fields: dict[str, str]) -> dict[str, codec.Value]:
    return {name: codec.decode(bytes.fromhex(value))[0] for name, value in fields.items()}


def _filter_fields(condition: Filter | SqlFilter) -> dict[str, Any]:
    if isinstance(condition, SqlFilter):
        return _sql_fields(condition)
    if isinstance(condition, CorrelationFilter):
        return {"system": dict(condition.system), "properties": _encoded(condition.properties)}
    if isinstance(condition, TrueFilter | FalseFilter):
        return {"takes": isinstance(condition, TrueFilter)}
    raise TypeError(f"expected a known filter, found {type(condition).__name__}")


def _read_rule(fields: dict[str, Any]) -> Rule:
    sql = fields["action"]
    action = None if sql is None else SqlAction(sql["sql"], _decoded(sql["parameters"]))
    return Rule(fields["name"], _read_filter(fields["filter"]), action)


def _read_filter(fields: dict[str, Any]) -> Filter | SqlFilter:
    if "sql" in fields:
        return SqlFilter(fields["sql"], _decoded(fields["parameters"]))
    if "takes" in fields:
        return TrueFilter() if fields["takes"] else FalseFilter()
    return CorrelationFilter(fields["system"], _decoded(fields["properties"]))
