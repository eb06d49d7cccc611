"""An exception that many others led to, or that holds many: what is said of it is bounded, whatever they are."""

import traceback

import pytest

from core.safety.safe_log import WithoutCredentials, without_credentials
from core.safety.safe_text import MOST_ERRORS, trace_of


def raised(error):
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def chain_of(count, link):
    error = ValueError("number 1")
    for number in range(2, count + 1):
        following = ValueError(f"number {number}")
        setattr(following, link, error)
        error = following
    return error


def shared_groups(depth):
    """Few objects, and a way to the innermost for each choice: 2 to the power of the depth."""
    error = ValueError("innermost")
    for number in range(depth):
        error = ExceptionGroup(f"group {number}", [error, error])
    return error


def chained_in_groups(depth):
    error = ValueError("innermost")
    for _ in range(depth):
        group = ExceptionGroup("group", [ValueError("other"), error])
        error = ValueError("outer")
        error.__cause__ = group
    return error


MANY = {
    "causes": lambda: chain_of(4000, "__cause__"),
    "contexts": lambda: chain_of(4000, "__context__"),
    "shared": lambda: shared_groups(8),
    "deeply shared": lambda: shared_groups(60),
    "groups that led to errors": lambda: chained_in_groups(30),
    "wide": lambda: ExceptionGroup("wide", [ValueError(str(number)) for number in range(1000)]),
}


@pytest.fixture
def no_formatting(monkeypatch):
    def refuse(error):
        pytest.fail("Python visits all of them")

    monkeypatch.setattr(traceback, "format_exception", refuse)


@pytest.mark.parametrize("name", MANY)
@pytest.mark.usefixtures("no_formatting")
def test_trace_of_many_errors_holds_the_nearest_ones(name):
    error = raised(MANY[name]())
    trace = trace_of(error)
    first, *_, last = trace.splitlines()
    assert first == f"[and more: the nearest {MOST_ERRORS} exceptions are here]"
    assert last == f"{type(error).__name__}: {error}"
    assert sum(line.startswith(("ValueError: ", "ExceptionGroup: ")) for line in trace.splitlines()) <= MOST_ERRORS
    assert "in raised" in trace


@pytest.mark.parametrize("name", MANY)
@pytest.mark.usefixtures("no_formatting")
def test_log_gets_no_exception_that_it_would_read_in_full(name):
    kind, _, trace = without_credentials(raised(MANY[name]()))
    assert (kind, trace) == (WithoutCredentials, None)


@pytest.mark.parametrize("name", ["__cause__", "__context__"])
def test_some_errors_are_shown_as_python_does(name):
    error = raised(chain_of(MOST_ERRORS, name))
    assert trace_of(error) == "".join(traceback.format_exception(error))
    error = raised(shared_groups(4))
    assert trace_of(error) == "".join(traceback.format_exception(error))
    error.__context__ = error.exceptions[0]
    assert trace_of(error) == "".join(traceback.format_exception(error))
