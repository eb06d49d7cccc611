"""Parameters, their schema, and the job id."""

import copy
import json
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.basics.canonical import NotJson, canonical_json, job_id_for
from core.errors import InvalidParameters
from jobs.parameter_schema import check_schema, to_json_schema
from jobs.parameters import (
    MAX_PROBLEMS,
    ParameterError,
    ParameterErrors,
    check_value,
    coerce_text_parameters,
    validate_parameters,
)

SCHEMA: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True, "min": 1, "max": 5, "pattern": "[a-z]*", "description": "Who"},
    "count": {"type": "int", "default": 3, "min": 1, "max": 10, "example": 4},
    "ratio": {"type": "float", "min": 0, "max": 1, "nullable": True},
    "mode": {"type": "str", "default": "fast", "allowed": ["fast", "exact"]},
    "dry": {"type": "bool", "default": False},
    "tiles": {
        "type": "list",
        "max": 3,
        "items": {
            "type": "dict",
            "properties": {"size": {"type": "int", "min": 1}, "zoom": {"type": "int", "default": 0}},
        },
    },
    "extra": {"type": "dict", "default": {"tags": []}},
}
GOOD = st.fixed_dictionaries(
    {"name": st.text("abc", min_size=1, max_size=5)},
    optional={
        "count": st.integers(1, 10),
        "ratio": st.none() | st.floats(0, 1) | st.integers(0, 1),
        "mode": st.sampled_from(["fast", "exact"]),
        "dry": st.booleans(),
        "tiles": st.lists(st.fixed_dictionaries({}, optional={"size": st.integers(1, 99)}), max_size=3),
        "extra": st.dictionaries(st.text("xyz"), st.integers() | st.text("xyz"), max_size=3),
    },
)
ANYTHING = st.dictionaries(
    st.sampled_from(list(SCHEMA)),
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats(-1, 2) | st.text("ab", max_size=7),
)


def errors_of(schema: dict[str, Any], parameters: dict[str, Any]) -> tuple[ParameterError, ...]:
    with pytest.raises(ParameterErrors) as caught:
        validate_parameters(schema, parameters)
    return caught.value.errors


def holds(schema: dict[str, Any], value: Any) -> bool:
    """The part of JSON Schema that `to_json_schema` uses, written apart from it."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    python = {
        type(None): "null",
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    kind = python[type(value)]
    if kind not in kinds or ("enum" in schema and value not in schema["enum"]):
        return False
    if kind in {"integer", "number"}:
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if kind == "string":
        sized = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return sized and bool(re.search(schema.get("pattern", ""), value))
    if kind == "array":
        return len(value) <= schema.get("maxItems", len(value)) and all(holds(schema["items"], item) for item in value)
    if kind == "object" and "properties" in schema:
        known = schema["properties"]
        return set(schema.get("required", ())) <= set(value) <= set(known) and all(
            holds(known[n], v) for n, v in value.items()
        )
    return True


def test_defaults_are_filled_in_the_order_of_the_schema() -> None:
    values = validate_parameters(SCHEMA, {"tiles": [{"size": 2}], "name": "abc"})
    assert list(values) == ["name", "count", "mode", "dry", "tiles", "extra"]
    assert values["tiles"] == [{"size": 2, "zoom": 0}]
    assert values["count"] == 3


def test_defaults_and_values_are_copied() -> None:
    given_extra = {"tags": ["a"]}
    values = validate_parameters(SCHEMA, {"name": "a", "extra": given_extra})
    values["extra"]["tags"].append("b")
    assert given_extra == {"tags": ["a"]}
    validate_parameters(SCHEMA, {"name": "a"})["extra"]["tags"].append("x")
    assert SCHEMA["extra"]["default"] == {"tags": []}


@pytest.mark.parametrize(
    ("parameters", "field", "expected"),
    [
        ({}, "name", "str"),
        ({"name": None}, "name", "str"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"name": "abcdef"}, "name", "at most 5 characters"),
        ({"name": "ab\n"}, "name", "text that matches '[a-z]*'"),
        ({"name": "a", "count": True}, "count", "int"),
        ({"name": "a", "count": "3"}, "count", "int"),
        ({"name": "a", "count": 3.0}, "count", "int"),
        ({"name": "a", "count": 0}, "count", "at least 1"),
        ({"name": "a", "count": 11}, "count", "at most 10"),
        ({"name": "a", "ratio": float("nan")}, "ratio", "a finite number"),
        ({"name": "a", "ratio": float("inf")}, "ratio", "a finite number"),
        ({"name": "a", "ratio": 10**400}, "ratio", "a finite number"),
        ({"name": "a", "dry": 1}, "dry", "bool"),
        ({"name": "a", "tiles": [{}] * 4}, "tiles", "at most 3 items"),
        ({"name": "a", "tiles": [{}, {"size": "x"}]}, "tiles[1].size", "int"),
        ({"name": "a", "extra": {"deep": [1, float("nan")]}}, "extra.deep[1]", "a finite number"),
        ({"name": "a", "extra": {"text": "\x00"}}, "extra.text", "text without NUL and lone surrogates"),
    ],
)
def test_a_bad_value_is_refused_with_its_path(parameters: dict[str, Any], field: str, expected: str) -> None:
    (error,) = errors_of(SCHEMA, parameters)
    assert error.field == field
    assert error.expected.startswith(expected)


def test_all_problems_come_at_once_and_as_json() -> None:
    errors = errors_of(SCHEMA, {"count": 0, "cuont": 1, "mode": "fsat", "tiles": [{"sise": 1}]})
    assert {error.field for error in errors} == {"name", "count", "cuont", "mode", "tiles[0].sise"}
    hints = {error.field: error.hint for error in errors}
    assert hints["cuont"] == "did you mean 'count'?"
    assert hints["mode"] == "did you mean 'fast'?"
    assert hints["tiles[0].sise"] == "did you mean 'size'?"
    problem = ParameterErrors(errors)
    assert str(problem).splitlines() == [error.message for error in errors]
    assert json.loads(json.dumps(problem.as_list()))[0]["field"] == "name"
    assert pickle.loads(pickle.dumps(problem)).errors == errors  # noqa: S301


@given(GOOD)
def test_validation_is_idempotent(parameters: dict[str, Any]) -> None:
    once = validate_parameters(SCHEMA, parameters)
    assert canonical_json(validate_parameters(SCHEMA, once)) == canonical_json(once)


@given(GOOD | ANYTHING)
def test_validated_values_satisfy_the_json_schema(parameters: dict[str, Any]) -> None:
    try:
        values = validate_parameters(SCHEMA, parameters)
    except ParameterErrors:
        return
    assert holds(to_json_schema(SCHEMA), values)


@given(GOOD, st.text(min_size=1, max_size=100).filter(lambda name: name not in SCHEMA))
def test_any_single_unknown_name_is_refused(parameters: dict[str, Any], name: str) -> None:
    (error,) = errors_of(SCHEMA, {**parameters, name: 1})
    assert error.field == name
    assert error.hint


@given(GOOD, st.randoms(use_true_random=False))
def test_job_id_does_not_depend_on_the_order_of_names(parameters: dict[str, Any], random: Any) -> None:
    shuffled = list(parameters.items())
    random.shuffle(shuffled)
    assert job_id_for("hello", dict(shuffled)) == job_id_for("hello", parameters)
    assert job_id_for("hello2", parameters) != job_id_for("hello", parameters)


def test_an_int_for_a_float_is_the_same_job() -> None:
    schema = {"x": {"type": "float"}}
    assert job_id_for("j", validate_parameters(schema, {"x": 1})) == job_id_for(
        "j", validate_parameters(schema, {"x": 1.0})
    )


def test_job_id_stays_the_same_between_releases() -> None:
    assert job_id_for("hello", {"n": 1}) == "ac48bdb62e7a754c2ab41439aacb0450bf38f598976f8e212c0551f51ea5a6dc"


def test_canonical_json_is_sorted_tight_and_keeps_types_apart() -> None:
    assert canonical_json({"b": [1, 1.0, True, None], "a": "é"}) == '{"a":"\\u00e9","b":[1,1.0,true,null]}'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2}]}, "a[1]"),
        ({"a": {"b": b"x"}}, "a.b"),
        ({"a": {1: 2}}, "a"),
        ([float("inf")], "[0]"),
        ("\ud800", ""),
    ],
)
def test_canonical_json_refuses_other_values_with_the_path(value: Any, path: str) -> None:
    with pytest.raises(NotJson) as caught:
        canonical_json(value)
    assert caught.value.path == path


def test_texts_are_converted_by_the_schema_and_unknown_names_pass() -> None:
    texts = {"name": "7", "count": "+3", "ratio": "1e-1", "dry": "Yes", "tiles": '[{"size":1}]', "nmae": "x"}
    assert coerce_text_parameters(SCHEMA, texts) == {
        "name": "7", "count": 3, "ratio": 0.1, "dry": True, "tiles": [{"size": 1}], "nmae": "x",
    }  # fmt: skip
    assert coerce_text_parameters(SCHEMA, {"ratio": "null", "name": "null"}) == {"ratio": None, "name": "null"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("count", "3.0"),
        ("count", "1_0"),
        ("count", ""),
        ("ratio", "nan"),
        ("ratio", "inf"),
        ("dry", "maybe"),
        ("tiles", "["),
    ],
)
def test_a_text_of_another_type_is_refused(name: str, text: str) -> None:
    with pytest.raises(ParameterErrors) as caught:
        coerce_text_parameters(SCHEMA, {name: text})
    assert [error.field for error in caught.value.errors] == [name]


def test_a_sound_schema_has_no_problems() -> None:
    assert check_schema(SCHEMA, "Job") == []


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"type": "int", "mim": 1}, "did you mean 'min'?"),
        ({"type": "integer"}, "Job.x.type: expected one of int,"),
        ({}, "found null"),
        ("int", "expected a dict"),
        ({"type": "bool", "min": 1}, "no meaning for type bool"),
        ({"type": "int", "min": 3, "max": 1}, "expected min <= max"),
        ({"type": "int", "min": float("nan")}, "a finite number"),
        ({"type": "str", "min": -1}, "a length"),
        ({"type": "str", "max": 1.5}, "a length"),
        ({"type": "str", "pattern": "("}, "expected a regular expression"),
        ({"type": "int", "required": True, "default": 1}, "never uses its default"),
        ({"type": "int", "required": "yes"}, "expected True or False"),
        ({"type": "int", "default": 0, "min": 1}, "Job.x.default: expected at least 1"),
        ({"type": "int", "default": None}, "Job.x.default: expected int"),
        ({"type": "int", "example": "1"}, "Job.x.example: expected int"),
        ({"type": "int", "allowed": []}, "at least one value"),
        ({"type": "int", "allowed": [1, "2"]}, "Job.x.allowed[1]: expected int"),
        ({"type": "list", "items": {"type": "x"}}, "Job.x.items.type"),
        ({"type": "dict", "properties": {"y": {"type": "x"}}}, "Job.x.properties.y.type"),
        ({"type": "int", "description": 3}, "expected str"),
    ],
)
def test_a_problem_of_the_schema_is_named(entry: Any, part: str) -> None:
    (problem,) = check_schema({"x": entry}, "Job")
    assert problem.startswith("Job.x")
    assert part in problem


def test_an_unknown_key_is_named_beside_a_wrong_type() -> None:
    """It came only after the type was corrected, though problems are reported all at once."""
    problems = check_schema({"x": {"type": "integer", "defualt": 3, "min": 1}}, "Job")
    assert problems == [
        "Job.x.type: expected one of int, float, str, bool, list, dict, found str 'integer'",
        "Job.x: unknown key 'defualt'; did you mean 'default'?",
    ]


def test_json_schema_closes_every_object_and_anchors_patterns() -> None:
    before = copy.deepcopy(SCHEMA)
    result = to_json_schema(SCHEMA)
    assert result["additionalProperties"] is False
    assert result["required"] == ["name"]
    assert result["properties"]["name"]["pattern"] == "^(?:[a-z]*)$"
    assert result["properties"]["ratio"]["type"] == ["number", "null"]
    assert result["properties"]["tiles"]["items"]["additionalProperties"] is False
    assert before == SCHEMA


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "https://a.blob.core.windows.net/c/x.tif?sv=2024&sig=Zm9v%3D",
            "a signature, key, password or token (name=value)",
        ),
        (
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Zm9v",
            "a signature, key, password or token (name=value)",
        ),
        (
            "Endpoint=sb://a;SharedAccessKeyName=n;SharedAccessKey=Zm9v",
            "a signature, key, password or token (name=value)",
        ),
        ("postgresql://user:Zm9v@host/db", "a password before the host (user:password@)"),
    ],
)
def test_a_credential_is_refused_and_not_repeated(text, found):
    """Signatures in parameters stood in rows, messages and logs (lesson D42)."""
    schema = {"sources": {"type": "list", "items": {"type": "str", "min": 1}}}
    with pytest.raises(ParameterErrors) as caught:
        validate_parameters(schema, {"sources": ["abfs://fine/here", text]})
    (error,) = caught.value.errors
    assert (error.field, error.found) == ("sources[1]", found)
    assert "Zm9v" not in str(caught.value)


@pytest.mark.parametrize("text", ["abfs://c@account/x?sigma=1", "https://user@host/a:b@c", "the sig=nature", "a:b@c"])
def test_an_address_without_credentials_passes(text):
    assert validate_parameters({"source": {"type": "str"}}, {"source": text}) == {"source": text}


@pytest.mark.parametrize("depth", [101, 400, 900])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_value_nested_deeper_than_anything_meant_is_refused(depth, wrap):
    """Copying it took more of Python's stack than there is."""
    value = {}
    for _ in range(depth):
        value = wrap(value)
    with pytest.raises(ParameterErrors, match="at most 100 levels"):
        validate_parameters({"x": {"type": "dict"}}, {"x": {"y": value}})


def test_value_of_many_levels_is_one_job_with_or_without_a_key():
    value = {}
    for _ in range(98):
        value = {"a": value}
    checked = validate_parameters({"x": {"type": "dict"}}, {"x": value})
    assert job_id_for("t", checked)
    assert canonical_json(["t", checked, False])


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ({"type": "int"}, "text"),
        ({"type": "float"}, 10**400),
        ({"type": "dict"}, {"key": float("nan")}),
        ({"type": "str"}, "https://user:password@example.org/"),
    ],
)
def test_a_refused_value_comes_back_as_it_was(entry: dict[str, Any], value: Any) -> None:
    found, problems = check_value(entry, value, "field")
    assert found is value
    assert len(problems) == 1


def test_no_more_problems_are_gathered_than_are_reported() -> None:
    entry = {"type": "list", "items": {"type": "int"}}
    assert len(check_value(entry, ["x"] * (MAX_PROBLEMS + 1), "field")[1]) == MAX_PROBLEMS


def test_the_text_of_problems_is_one_line_each_and_nothing_else() -> None:
    error = ParameterError("n", "an int", "'x'", "give a number")
    assert str(ParameterErrors([error])) == "n: expected an int, found 'x'; give a number"
    assert str(ParameterErrors([error], 2)).splitlines()[1:] == ["and 2 more"]


def test_plain_problems_are_cut_at_a_thousand_bytes() -> None:
    def plain(length: int) -> str:
        (error,) = ParameterErrors([ParameterError("n", "x" * length, "y")]).in_plain_text().errors
        return str(error.expected)

    assert plain(1000) == "x" * 1000
    assert plain(1001).endswith(" [cut here: 1,001 characters in all]")


class Unfinished(ParameterErrors):
    """An author's own, whose initializer does not call the other one."""

    def __init__(self, *errors: ParameterError) -> None:
        self.errors = errors


def test_problems_of_an_unfinished_error_become_plain_text() -> None:
    error = ParameterError("n", "an int", "'x'")
    assert Unfinished(error).in_plain_text().more == 0
    refused = Unfinished().in_plain_text()
    assert (type(refused), str(refused)) == (InvalidParameters, "Unfinished")
