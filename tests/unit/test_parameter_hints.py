"""What a refused parameter is told as: its value, its hint, and how many problems there are."""

import pytest

from core.errors import InvalidParameters
from jobs.parameters import (
    MAX_PROBLEMS,
    ParameterError,
    ParameterErrors,
    coerce_text_parameters,
    nearest_name_hint,
    validate_parameters,
)


def refused(schema, parameters):
    with pytest.raises(ParameterErrors) as caught:
        validate_parameters(schema, parameters)
    return caught.value


@pytest.mark.parametrize(
    ("entry", "value", "expected", "hint"),
    [
        ({"type": "int"}, "3", "int", "write it without quotes"),
        ({"type": "float"}, "3", "float", "write it without quotes"),
        ({"type": "bool"}, "true", "bool", "write it without quotes"),
        ({"type": "list"}, "a", "list", None),
        ({"type": "int"}, True, "int", "true and false are not numbers"),
        ({"type": "float"}, False, "float", "true and false are not numbers"),
        ({"type": "str"}, True, "str", None),
        ({"type": "int"}, None, "int", "leave it out, or declare the entry nullable"),
        ({"type": "int"}, [], "int", None),
        ({"type": "int", "nullable": True}, [], "int or null", None),
    ],
)
def test_value_of_another_type_is_told_what_would_do(entry, value, expected, hint):
    (error,) = refused({"a": entry}, {"a": value}).errors
    assert (error.expected, error.hint) == (expected, hint)


@pytest.mark.parametrize(
    ("entry", "value", "expected", "found"),
    [
        ({"type": "str", "min": 2}, "a", "at least 2 characters", "1"),
        ({"type": "list", "max": 1}, [1, 2], "at most 1 item", "2"),
        ({"type": "int", "min": 2}, 1, "at least 2", "int 1"),
    ],
)
def test_bound_is_told_as_a_length_or_as_a_value(entry, value, expected, found):
    (error,) = refused({"a": entry}, {"a": value}).errors
    assert (error.expected, error.found) == (expected, found)


def test_list_without_declared_items_holds_any_json():
    assert validate_parameters({"a": {"type": "list"}}, {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


def test_nearest_name_or_all_of_them_are_offered():
    assert nearest_name_hint("cuont", ["count", "size"]) == "did you mean 'count'?"
    assert nearest_name_hint("xyz", ["count", "size"]) == "known names: count, size"
    assert nearest_name_hint("xyz", []) == "no names are known here; leave it out"


def test_nothing_near_is_looked_for_beyond_a_hundred_letters():
    assert nearest_name_hint("a" * 100, ["a" * 99]) == f"did you mean {'a' * 99!r}?"
    assert nearest_name_hint("a" * 101, ["a" * 99]) == f"known names: {'a' * 99}"


def test_nothing_near_is_looked_for_beyond_two_hundred_names():
    names = [f"{number:03}" for number in range(199)]
    assert nearest_name_hint("near", [*names, "nearr"]) == "did you mean 'nearr'?"
    assert "nearr" not in nearest_name_hint("near", [*names, "other", "nearr"])


@pytest.mark.parametrize(("count", "told", "more"), [(19, 19, 0), (20, 20, 0), (21, 20, 1), (50, 20, 30)])
def test_first_problems_are_told_and_all_are_counted(count, told, more):
    error = refused({}, {f"n{number}": 1 for number in range(count)})
    assert (len(error.errors), error.more) == (told, more)
    lines = str(error).splitlines()
    assert len(lines) == told + bool(more)
    assert (lines[-1] == f"and {more} more") == bool(more)
    assert MAX_PROBLEMS == 20


def test_problems_that_an_author_counts_are_added_to_those_that_are_cut():
    problems = [ParameterError("a", "b", "c")] * 22
    assert ParameterErrors(problems, 5).more == 7
    assert ParameterErrors(problems, "many").more == 2


@pytest.mark.parametrize(("hint", "message"), [(None, ""), ("", ""), ("do c", "; do c")])
def test_message_ends_with_the_hint_if_there_is_one(hint, message):
    assert ParameterError("f", "a", "b", hint).message == f"f: expected a, found b{message}"


def test_credential_in_what_was_found_is_blanked():
    error = ParameterError("password=abc12345", "a", "password=abc12345")
    assert "abc12345" not in error.message
    assert ParameterError(7, "a", 8).message == "7: expected a, found 8"


def test_problem_of_an_author_becomes_one_of_the_parameters():
    (error,) = ParameterErrors(["too dark"]).errors
    assert error == ParameterError("parameters", "values that this job type takes", "too dark")


@pytest.mark.parametrize("hint", [None, "do c"])
def test_plain_text_keeps_the_problems_apart_and_bounded(hint):
    plain = ParameterErrors([ParameterError("f", "a", "b" * 5000, hint)], 3).in_plain_text()
    (error,) = plain.errors
    assert (error.field, error.expected, error.hint, plain.more) == ("f", "a", hint, 3)
    assert 900 < len(error.found) < 1100


@pytest.mark.parametrize("errors", [(), None, ["a list"]])
def test_problems_that_an_author_replaced_are_told_as_text(errors):
    broken = ParameterErrors([ParameterError("f", "a", "b")])
    broken.errors = errors
    plain = broken.in_plain_text()
    assert type(plain) is InvalidParameters
    assert "f: expected a, found b" in str(plain)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, True) for text in ("true", "YES", "on", "1")],
        *[(text, False) for text in ("False", "no", "off", "0")],
    ],
)
def test_switch_may_be_written_in_the_usual_words(text, value):
    assert coerce_text_parameters({"dry": {"type": "bool"}}, {"dry": text}) == {"dry": value}
