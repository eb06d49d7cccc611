"""Values in messages are told without the credentials that are in them, wherever the text is cut."""

import pytest

from core.canonical import describe, shown
from core.safe_text import repr_of
from jobs.parameters import ParameterError, ParameterErrors, validate_parameters

SECRET = "hushhushhush"  # noqa: S105 - what a test looks for


class Other:
    def __repr__(self):
        return f"Other(password={SECRET})"


@pytest.mark.parametrize(
    "value",
    [
        f"postgresql://u:{SECRET}@db/x",
        # Cut within: what is left must not look like none.
        f"{'x' * 60} postgresql://u:{SECRET * 20}@db/x",
        f"{'x' * 70}?sig={SECRET}",
        [f"postgresql://u:{SECRET}@db/x"],
        # The end of a long text inside a list is shown.
        [f"https://a.blob.core.windows.net/container/folder/file?sig={SECRET}"],
        {"password": SECRET},
        {"a": {"b": [f"AccountKey={SECRET}"]}},
        f"\x00password={SECRET}",
        Other(),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("told", [describe, repr_of, lambda value: shown(value, 75)], ids=["describe", "repr", "shown"])
def test_credential_is_not_told(value, told):
    assert "hush" not in told(value)


def test_other_values_are_told_as_they_are():
    assert describe("the token has expired") == "str 'the token has expired'"
    assert (repr_of([1, "a=b"]), shown("abc", 2)) == ("[1, 'a=b']", "'ab'")


@pytest.mark.parametrize(
    "parameters", [{"n": f"password={SECRET}"}, {f"password={SECRET}": 1}, {"n": [f"sig://x:{SECRET}@y"]}]
)
def test_no_problem_of_parameters_repeats_a_credential(parameters):
    with pytest.raises(ParameterErrors) as raised:
        validate_parameters({"n": {"type": "int"}}, parameters)
    assert "hush" not in f"{raised.value}{raised.value.as_list()}"


def test_author_s_own_problem_repeats_none_either():
    error = ParameterError("source", "a place", f"https://x/?sig={SECRET}")
    assert error.found == "https://x/?sig=***"
