"""Tables of facts: what is refused, and what of a source is written down."""

from pathlib import Path
from typing import Any

import pytest

from tests import facts
from tests.bicep import Expression
from tests.facts import Fact, Source, Table

ROWS = {
    "": "object",
    "name": ["text, required", {"pattern": "^[a-z]+$", "least": 2, "most": 4}],
    "count": ["integer", {"least": 1, "most": 3}],
    "size": "integer or text",
    "id": "read-only",
    "whole": "boolean",
    "free": "any",
    "tags": "object",
    "tags/*": "text",
    "rules": ["array", {"most": 2}],
    "rules/[]": ["object", {"by": "kind"}],
    "rules/[]/kind": "text, required",
    "rules/[]/<a>": "object",
    "rules/[]/<a>/level": ["text, required", {"allowed": ["low", "high"]}],
    "rules/[]/<b>": "not kept",
    "secret": "not kept",
}
RULE = {"kind": "a", "level": "low"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"size": 1, "free": [None], "tags": {"a": "b"}, "rules": [RULE], "count": 3, "whole": False}, None),
        ({"size": "1", "name": Expression("x", ("abc", Expression("y")))}, None),
        ({"name": Expression("x", ("abc", "a"))}, "it.name: expected at least 2 characters, found 'a'"),
        ({"name": "abcde"}, "it.name: expected at most 4 characters, found 'abcde'"),
        ({"name": "ab1"}, "it.name: expected what fits ^[a-z]+$, found 'ab1'"),
        ({"name": None}, "it.name: expected a text, found None"),
        ({"count": 0}, "it.count: expected at least 1, found 0"),
        ({"count": 4}, "it.count: expected at most 3, found 4"),
        ({"count": True}, "it.count: expected a whole number, found True"),
        ({"size": True}, "it.size: expected a whole number or a text, found True"),
        ({"id": "x"}, "it.id: expected nothing, since it is read-only"),
        ({"whole": "yes"}, "it.whole: expected true or false, found 'yes'"),
        ({"tags": {"a": 1}}, "it.tags.a: expected a text, found 1"),
        ({"tags": []}, "it.tags: expected an object, found []"),
        ({"rules": {}}, "it.rules: expected an array, found {}"),
        ({"rules": [RULE] * 3}, f"it.rules: expected at most 2 items, found {[RULE] * 3}"),
        ({"rules": [{"kind": "c"}]}, "it.rules[]: expected kind of ['a', 'b'], found 'c'"),
        ({"rules": [{}]}, "it.rules[]: expected kind of ['a', 'b'], found None"),
        ({"rules": [{"kind": "b"}]}, "it.rules[]: expected a type that the table has, found none; see tests/facts.py"),
        ({"rules": [{"kind": "a"}]}, "it.rules[].level: expected it, since it is required, found nothing"),
        ({"rules": [RULE | {"level": "x"}]}, "it.rules[].level: expected one of ['low', 'high'], found 'x'"),
        ({"rules": [RULE | {"more": 1}]}, "it.rules[].more: expected one of ['kind', 'level'], found it"),
        ({"secret": {}}, "it.secret: expected a type that the table has, found none; see tests/facts.py"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(change: dict[str, Any], problem: str | None) -> None:
    assert Table(ROWS, "the table").problems_of({"name": "abc"} | change, "it") == ([problem] if problem else [])


def test_a_table_has_what_values_open_and_what_is_beside_it(tmp_path: Path) -> None:
    deep = Source(
        Fact("object"), lambda: {"a": Source(Fact("text", allowed=("x", "y"))), "below": deep, "*": Source(Fact("any"))}
    )
    read_only = Source(Fact("object", is_read_only=True), lambda: {"a": deep})
    variant = Source(Fact("object"), lambda: {"kind": Source(Fact("text", is_required=True))})
    items = Source(Fact("object", by="kind"), lambda: {"<a>": variant, "<b>": variant})
    inner = {"deep": deep, "id": read_only, "items": Source(Fact("array", most=9), lambda: {"[]": items})}
    values = [{"deep": Expression("x", ({"below": {}},))}, {"items": [{"kind": "a"}]}]
    rows = facts.rows_of(Source(Fact("object"), lambda: inner), values)
    assert rows == {
        "": "object",
        "deep": "object",
        "deep/a": ["text", {"allowed": ("x", "y")}],
        "deep/below": "object",
        "deep/below/a": ["text", {"allowed": ("x", "y")}],
        "deep/below/below": "not kept",
        "deep/below/*": "not kept",
        "deep/*": "not kept",
        "id": "read-only",
        "items": ["array", {"most": 9}],
        "items/[]": ["object", {"by": "kind"}],
        "items/[]/<a>": "object",
        "items/[]/<a>/kind": "text, required",
        "items/[]/<b>": "not kept",
    }
    facts.write(tmp_path / "t.json", "somewhere", {"it": rows})
    table = facts.read(tmp_path / "t.json")["it"]
    assert [table.problems_of(value, "it") for value in values] == [[], []]
