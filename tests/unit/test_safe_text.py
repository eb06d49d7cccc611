"""Values in messages are told without the credentials that are in them, wherever the text is cut."""

import pytest

from core.basics.canonical import describe, shown
from core.errors import InvalidParameters, classify
from core.safety.credentials import redact, redacted_part, redacted_start
from core.safety.safe_text import bounded_text, repr_of
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


CUT = [
    f"postgresql://user:{SECRET}@db/x",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    f"password={SECRET}",
    f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
]


@pytest.mark.parametrize("credential", CUT)
@pytest.mark.parametrize("keep_end", [False, True])
def test_credential_that_is_cut_is_none_of_the_text(credential, keep_end):
    """Texts were cut, and redacted then: of a traceback's beginning, `password=` may be gone, and the rest stays."""
    for place in range(200, 320):
        before, after = ("b" * 5000, "a" * place) if keep_end else ("b" * place, "a" * 5000)
        assert "hush" not in bounded_text(f"{before} {credential} {after}", 300, keep_end=keep_end)


@pytest.mark.parametrize("credential", CUT)
def test_credential_that_is_cut_is_not_stored(credential):
    for place in range(3900, 4000, 7):
        try:
            raise ValueError(f"{'b' * place} {credential} {'a' * 70_000}")  # noqa: TRY301
        except ValueError as error:
            failure = classify(error)
        refusal = InvalidParameters(f"{'b' * (place + 4000)} {credential} {'a' * 9000}").in_plain_text()
        assert "hush" not in f"{failure.message}{failure.traceback}{refusal}"


def test_what_is_blanked_draws_nothing_in_from_beyond_the_part():
    """The part was redacted with more after it, and cut then: shorter, it had half a credential of what came later."""
    text = f"sig={'x' * 8150} postgresql://u:{SECRET}@db/x"
    for more in range(60):
        assert "hush" not in redacted_start(f"{'.' * more}&{text}", 60)


def test_part_is_the_same_as_in_the_whole():
    text = "a sig=1 ?sig=abcdef b password=x1y2z3 c"
    whole = redact(text)
    assert whole == "a sig=1 ?sig=*** b password=*** c"
    assert redacted_part(text, 0, len(text)) == whole
    assert redacted_part(text, 13, 16) == "***"
    assert redacted_part(text, 20, 22) == "b "
    assert redacted_part(text, 14, 33) == "*** b password=***"
