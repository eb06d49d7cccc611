"""Rules of a subscription by `$management`: add, remove, list."""

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.performatives import AmqpError
from coremachine.local.broker.request_body import ARGUMENT_ERROR, Body, item, map_answer, optional
from coremachine.local.broker.rules import CorrelationFilter, FalseFilter, Filter, Rule, RuleBook, TrueFilter
from coremachine.local.broker.sql_action import SqlAction, encode
from coremachine.local.broker.sql_filter import SqlFilter

_RULE, _EMPTY_ACTION, _ACTION = range(0x13700000004, 0x13700000007)
_SQL, _TRUE, _FALSE, _CORRELATION = range(0x1370000006, 0x137000000A)
_OK, _NO_CONTENT = 200, 204
# In the order of the service's correlation filter; the keys of a request beside the names of our own.
_CORRELATION_FIELDS = {
    "correlation-id": "correlationid",
    "message-id": "messageid",
    "to": "to",
    "reply-to": "replyto",
    "label": "label",
    "session-id": "sessionid",
    "reply-to-session-id": "replytosessionid",
    "content-type": "contenttype",
}

Answer = tuple[int, bytes]


class RuleManagement:
    """The operations on one subscription's rules."""

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules

    def run(self, operation: str, body: Body) -> Answer:
        if operation == "add-rule":
            return self._add(body)
        return self._remove(body) if operation == "remove-rule" else self._enumerate(body)

    def _add(self, body: Body) -> Answer:
        name = item(body, "rule-name", str)
        if self._rules.find(name) is not None:
            raise AmqpError(
                "com.microsoft:entity-already-exists", f"expected a new rule name, found that '{name}' exists already"
            )
        try:
            self._rules.add(_read_rule(name, item(body, "rule-description", dict)))
        except ValueError as exc:
            raise AmqpError(ARGUMENT_ERROR, str(exc)) from exc
        return _OK, codec.map_of(())

    def _remove(self, body: Body) -> Answer:
        name = item(body, "rule-name", str)
        if not self._rules.remove(name):
            raise AmqpError("amqp:not-found", f"expected a rule of the subscription, found no '{name}'")
        return _OK, codec.map_of(())

    def _enumerate(self, body: Body) -> Answer:
        skip, top = item(body, "skip", int), item(body, "top", int)
        found = list(self._rules)[max(0, skip) :][: max(0, top)]
        if not found:
            return _NO_CONTENT, codec.map_of(())
        return _OK, map_answer(
            rules=codec.list_of(map_answer(**{"rule-description": _encoded(each)}) for each in found)
        )


def _read_rule(name: str, description: Body) -> Rule:
    action = optional(description, "sql-rule-action", dict)
    expression = action.get("expression") if action else None
    return Rule(name, _read_filter(description), SqlAction(expression) if isinstance(expression, str) else None)


def _read_filter(description: Body) -> Filter:
    sql = optional(description, "sql-filter", dict)
    if sql is not None:
        return SqlFilter(item(sql, "expression", str))
    correlation = optional(description, "correlation-filter", dict)
    if correlation is None:
        raise AmqpError(ARGUMENT_ERROR, "expected a sql-filter or a correlation-filter in the rule, found neither")
    system = {ours: correlation[key] for key, ours in _CORRELATION_FIELDS.items() if correlation.get(key) is not None}
    return CorrelationFilter(
        {key: str(value) for key, value in system.items()}, optional(correlation, "properties", dict) or {}
    )


def _encoded(rule: Rule) -> bytes:
    if rule.action is None:
        action = codec.described_widely(_EMPTY_ACTION, codec.list_of(()))
    else:
        action = codec.described_widely(_ACTION, codec.list_of([codec.string(rule.action.expression), codec.int32(20)]))
    return codec.described_widely(_RULE, codec.list_of([_encoded_filter(rule.filter), action, codec.string(rule.name)]))


def _encoded_filter(condition: Filter) -> bytes:
    if isinstance(condition, TrueFilter):
        return codec.described_widely(_TRUE, codec.list_of(()))
    if isinstance(condition, FalseFilter):
        return codec.described_widely(_FALSE, codec.list_of(()))
    if isinstance(condition, SqlFilter):
        return codec.described_widely(_SQL, codec.list_of([codec.string(condition.expression), codec.int32(20)]))
    if not isinstance(condition, CorrelationFilter):
        raise TypeError(f"expected a known filter, found {type(condition).__name__}")
    system = [condition.system.get(ours) for ours in _CORRELATION_FIELDS.values()]
    fields = [NULL if value is None else codec.string(value) for value in system]
    properties = codec.map_of([(codec.string(name), encode(value)) for name, value in condition.properties.items()])
    return codec.described_widely(_CORRELATION, codec.list_of([*fields, properties]))
