"""The client beside the OpenAPI document: nothing forgotten, nothing invented, the same names.

An operation that is new in the API fails here by its name. To add it: a function of that name in
`coremachine/client/operations.py` with the parameters that the failure names, its answer in
`coremachine/client/models.py`, and a line in each of the two classes of `coremachine/client/clients.py`.
"""

import inspect
import typing
from functools import cache

import pytest

from coremachine.client import AsyncClient, Client, models, operations
from coremachine.client.call import Call
from coremachine.client.clients import Answer, AsyncAnswer, AsyncPages, Pages
from coremachine.client.errors import WrongArgument
from triggers.api import create_api
from triggers.openapi import describe

# Made for clients of another kind, which know them by other names: Azure's pollers, and those of Durable Functions.
OF_OTHER_CLIENTS = {"operations", "Durable Functions"}
# Headers, by the names that they have as arguments.
HEADERS = {"idempotency-key": "idempotency_key", "x-correlation-id": "correlation_id", "prefer": "wait"}
# The client itself sends the first; the others are for an EventSource.
NO_ARGUMENTS = {"if-none-match", "accept", "last-event-id"}
BUILDERS = {
    name: value
    for name, value in vars(operations).items()
    if inspect.isfunction(value) and value.__module__ == operations.__name__ and not name.startswith("_")
}


@cache
def described():
    """Each operation with its method, path, and what the document says of it.

    Not made on import: each of the suite's processes collects all tests, and most run none of these.
    """
    document = describe(create_api(lambda: None), None)
    return {
        operation["operationId"]: (method.upper(), path, operation, document["components"]["schemas"])
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not OF_OTHER_CLIENTS & set(operation["tags"])
    }


def parameters_of(operation):
    names = {each["name"] for each in operation.get("parameters", ())} - NO_ARGUMENTS
    names = {HEADERS.get(name, name) for name in names}
    if "requestBody" in operation:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        names |= set(body.get("properties") or {"parameters"})
    return names


def arguments_of(name):
    return set(inspect.signature(BUILDERS[name]).parameters)


def builders_of(operation_id):
    return [name for name in BUILDERS if operations.VARIANTS.get(name, name) == operation_id]


def example(name):
    """A call with something for each argument that must be given."""
    values = {"parameters": {}, "jobs": [], "filter": {}, "run": 2, "dead_letter_id": 7, "ids": [1]}
    given = {
        argument: values.get(argument, argument)
        for argument, parameter in inspect.signature(BUILDERS[name]).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    return BUILDERS[name](**given), given


def test_every_operation_of_the_api_is_in_the_client():
    missing = {name: parameters_of(found[2]) for name, found in described().items() if not builders_of(name)}
    assert missing == {}, "they are not in coremachine/client/operations.py; beside each are its parameters"


@pytest.mark.parametrize("operation_id", sorted({operations.VARIANTS.get(name, name) for name in BUILDERS}))
def test_operation_has_a_method_with_its_parameters(operation_id):
    names = builders_of(operation_id)
    wanted = parameters_of(described()[operation_id][2])
    found = set().union(*map(arguments_of, names))
    # What decides between two kinds of answers is the name of the method.
    decides = {"dry_run", "group"} if len(names) > 1 else set()
    assert found == wanted - decides, f"{operation_id}: wanted {sorted(wanted)}, found {sorted(found)} in {names}"


@pytest.mark.parametrize("name", BUILDERS)
def test_method_is_an_operation_and_answers_what_it_answers(name):
    operation_id = operations.VARIANTS.get(name, name)
    assert operation_id in described(), f"{name}: the API has no operation {operation_id}"
    method, path, operation, _ = described()[operation_id]
    call, given = example(name)
    assert call.method == method
    assert f"/api/{call.path}" == path.format(**given)
    answers = [
        response["content"]["application/json"]["schema"]
        for status, response in operation["responses"].items()
        if status.startswith("2") and "content" in response
    ]
    schema = f"Page_{call.answer}_" if call.is_page else call.answer
    assert schema == "dict" or f"#/components/schemas/{schema}'" in str(answers), f"{name}: {answers}"
    # The type that a checker sees is the one that comes.
    hint = typing.get_type_hints(BUILDERS[name], {**vars(operations), "models": models})["return"]
    kind = dict if call.answer == "dict" else getattr(models, call.answer)
    wanted = models.Page[kind] if call.is_page else dict[str, typing.Any] if kind is dict else kind
    assert hint == Call[wanted]


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_client_has_all_of_them(client):
    kinds = {False: Answer if client is Client else AsyncAnswer, True: Pages if client is Client else AsyncPages}
    for name, build in BUILDERS.items():
        method = vars(client).get(name)
        assert type(method) is kinds[example(name)[0].is_page], f"{client.__name__}.{name} is {method!r}"
        assert getattr(client, name) is build


@pytest.mark.parametrize("name", BUILDERS)
def test_only_what_changes_nothing_twice_is_repeated(name):
    call, _ = example(name)
    writes = {"submit_job", "submit_batch", "draft_job", "act_on_jobs"}
    # Answered at once, whatever it is.
    assert call.repeats == ((call.method == "GET" and name != "readyz") or name in writes)


@pytest.mark.parametrize(
    ("options", "repeats"),
    [
        ({}, True),
        ({"if_ended": "return"}, True),
        ({"if_ended": "rerun"}, False),
        ({"force": True}, False),
        ({"force": True, "idempotency_key": "order-7"}, True),
    ],
)
def test_submission_that_could_make_a_second_job_is_not_repeated(options, repeats):
    assert operations.submit_job("hello_world", **options).repeats is repeats
    jobs = [{"job_type": "hello_world"}, {"job_type": "hello_world", **options}]
    assert operations.submit_batch(jobs).repeats is repeats


def test_action_that_is_confirmed_is_not_repeated():
    assert not operations.act_on_jobs("cancel", {}, confirm=3).repeats
    assert not operations.redrive_dead_letters(ids=[1]).repeats
    assert operations.redrive_dead_letters(ids=[1], dry_run=True).repeats


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (float("inf"), r"parameters.a\[0\]: expected a finite number, found inf"),
        ("x\udcff", r"parameters.a\[0\]: expected text that UTF-8 can hold, found 'x\\udcff'"),
        ({"\udcff": 1}, "expected text that UTF-8 can hold"),
        ({1, 2}, r"parameters.a\[0\]: expected a JSON value, found set"),
    ],
    ids=repr,
)
def test_what_json_cannot_carry_is_named(value, problem):
    """A text of the command line may have bytes that are no UTF-8; httpx would raise an error of its own."""
    with pytest.raises(WrongArgument, match=problem):
        operations.submit_job("x", {"a": [value]})
    with pytest.raises(WrongArgument, match=r"jobs\[0\].parameters"):
        operations.submit_batch([{"parameters": {"a": [value]}}])


def test_a_query_of_no_text_is_refused():
    with pytest.raises(WrongArgument, match="tag: expected text that UTF-8 can hold"):
        operations.submit_job("x", tag=["a=\udcff"])
