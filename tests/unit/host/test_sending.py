"""What output bindings send: one message or several, and binding expressions."""

import re
from pathlib import Path

import pytest
from azure.functions.meta import Datum

from coremachine.local.host.clients import storage_address
from coremachine.local.host.expressions import resolve_expressions
from coremachine.local.host.functions import HTTP, HttpTrigger, IndexedFunction
from coremachine.local.host.http import Request, http_call
from coremachine.local.host.routes import RouteTemplate
from coremachine.local.host.sending import values_of


@pytest.mark.parametrize(
    ("value", "kind", "sent"),
    [
        ("text", "string", ["text"]),
        ('["a", {"b": 1}]', "string", ["a", '{"b": 1}']),
        ("[not JSON", "string", ["[not JSON"]),
        ('{"a": 1}', "string", ['{"a": 1}']),
        ('["a", "b"]', "json", ["a", "b"]),
        ('{"id": null, "body": "text"}', "json", ["text"]),
        (b'["a"]', "bytes", [b'["a"]']),
    ],
)
def test_array_is_several_messages(value, kind, sent):
    assert values_of(Datum(value, kind)) == sent


@pytest.fixture
def call():
    trigger = HttpTrigger(RouteTemplate.parse("x"), frozenset(), "anonymous")
    function = IndexedFunction("f", print, False, HTTP, "req", trigger, None, (), Path())
    request = Request("POST", "/x", "http://localhost/x", {"x-tenant": "t"}, {"page": "2"}, b'{"kind": "report"}')
    return http_call(function, request, {"name": "Bob"})


def test_expressions_are_replaced_by_data_of_the_trigger(call):
    path = "files/{name}/{Kind}-{Query.page}-{headers.x-tenant}.txt"
    assert resolve_expressions(path, call) == "files/Bob/report-2-t.txt"
    assert resolve_expressions("plain", call) == "plain"


def test_guids_and_times_are_made_anew(call):
    made = {resolve_expressions("{rand-guid}", call) for _ in range(2)}
    assert len(made) == 2
    assert re.fullmatch(r"[0-9a-f]{32}", resolve_expressions("{rand-guid:N}", call))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", resolve_expressions("{DateTime}", call))


def test_unknown_expression_is_refused_with_what_there_is(call):
    with pytest.raises(ValueError, match=r"out of .*query\.page.*, found 'nmae'"):
        resolve_expressions("files/{nmae}", call)


def test_development_storage_is_azurite_on_its_usual_ports():
    address, credential = storage_address("queue", "S", {"S": "UseDevelopmentStorage=true"})
    assert "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;" in address
    assert credential is None
