"""Tests on generated stories: some of them in `make test`, many more in `make test-long`."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings


def examples(count: int) -> settings:
    """So many, beside those that are written out. All of them have the test's fixtures."""
    return settings(
        max_examples=count, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    )


def many_more(test: Any, count: int, *strategies: Any, **named: Any) -> Callable[..., None]:
    """The same test once more, with so many examples, for `make test-long`; in it, `examples` comes above `given`."""
    again: Callable[..., None] = given(*strategies, **named)(test.hypothesis.inner_test)
    return pytest.mark.long(examples(count)(again))
