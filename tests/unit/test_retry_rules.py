"""Which failures are retried where a stage names exception classes."""

import pytest

from core.errors import Failure, RetryableTaskError, classify
from core.models.definition import RetryPolicy
from core.models.retry import judged


class LibraryError(OSError):
    """As a library has."""


@pytest.mark.parametrize(
    ("error", "rules", "retryable"),
    [
        (ValueError("x"), {}, False),
        (ValueError("x"), {"always": ["ValueError"]}, True),
        (ValueError("x"), {"always": ["builtins.ValueError"]}, True),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), {"always": ["ValueError"]}, True),
        (LibraryError(), {}, True),
        (LibraryError(), {"never": ["LibraryError"]}, False),
        (LibraryError(), {"never": [f"{__name__}.LibraryError"]}, False),
        (LibraryError(), {"never": ["other.LibraryError"]}, True),
        (LibraryError(), {"never": ["OSError"]}, False),
        (LibraryError(), {"never": ["OSError"], "always": ["LibraryError"]}, True),
        (LibraryError(), {"never": ["LibraryError"], "always": ["OSError"]}, False),
        (KeyError("x"), {"never": ["OSError"], "always": ["TimeoutError"]}, False),
        (RetryableTaskError("x"), {"never": ["TaskError"]}, False),
    ],
    ids=repr,
)
def test_the_nearest_named_class_decides(error, rules, retryable):
    assert judged(classify(error), RetryPolicy(**rules)).retryable is retryable


def test_a_failure_that_a_handler_returned_is_known_by_its_error_type():
    returned = Failure("Throttled", "too fast", retryable=False)
    assert judged(returned, RetryPolicy(always=["Throttled"])).retryable is True
    assert judged(returned, RetryPolicy(never=["Other"])) is returned


def test_ancestry_is_read_whatever_a_class_claims_and_is_not_stored():
    class Liar(type):
        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Hostile(Exception, metaclass=Liar):
        pass

    failure = classify(Hostile("x"))
    assert failure.ancestry[0][0].endswith("Hostile")
    assert ("Exception", "builtins.Exception") in failure.ancestry
    assert "ancestry" not in failure.to_json(1)
