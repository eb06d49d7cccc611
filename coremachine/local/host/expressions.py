"""Binding expressions: `{name}` in a path is replaced by data of the trigger, `{rand-guid}` and `{DateTime}` anew."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from azure.functions.meta import Datum

from coremachine.local.host.functions import BlobTrigger
from coremachine.local.host.invoker import Call

_EXPRESSION = re.compile(r"\{([^{}]+)\}")
_TEXTS = ("string", "json")


def resolve_expressions(template: str, call: Call) -> str:
    """The template with the values of one invocation.

    Raises:
        ValueError: an expression names nothing that the trigger has; the message lists what there is.
    """
    if "{" not in template:
        return template
    values = trigger_values(call)

    def value_of(match: re.Match[str]) -> str:
        made = _made(match[1])
        if made is not None:
            return made
        if match[1].lower() not in values:
            known = ", ".join(sorted(values)) or "none"
            raise ValueError(f"{template!r}: expected an expression out of {known}, found {match[1]!r}")
        return values[match[1].lower()]

    return _EXPRESSION.sub(value_of, template)


def _made(expression: str) -> str | None:
    name, _, form = expression.partition(":")
    if name.lower() == "rand-guid":
        identity = uuid.uuid4()
        return identity.hex if form.upper() == "N" else str(identity)
    if name.lower() in {"datetime", "sys.utcnow"}:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return None


def trigger_values(call: Call) -> dict[str, str]:
    """What expressions may name, in lower case: route values, query and headers; a message's fields and JSON body."""
    values = {name.lower(): str(datum.value) for name, datum in call.metadata.items() if datum.type == "string"}
    values["sys.methodname"] = call.function.name
    if call.data.type == "http":
        request: Mapping[str, Any] = call.data.value
        values |= _of(request["params"], "") | _of(request["query"], "query.") | _of(request["headers"], "headers.")
        return values | _of_json(request["body"].value)
    if isinstance(call.function.trigger, BlobTrigger):
        return values  # the blob's path has the values; its content is data
    return values | _of_json(call.data.value if call.data.type in {*_TEXTS, "bytes"} else b"")


def _of(strings: Mapping[str, Datum], prefix: str) -> dict[str, str]:
    return {f"{prefix}{name}".lower(): datum.value for name, datum in strings.items()}


def _of_json(body: str | bytes) -> dict[str, str]:
    try:
        document = json.loads(body)
    except ValueError:  # the body of most messages and requests is none
        return {}
    if not isinstance(document, dict):
        return {}
    return {name.lower(): str(value) for name, value in document.items() if isinstance(value, (str, int, float))}
