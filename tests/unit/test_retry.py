"""Retry or not is decided by type; when, by the policy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import (
    AttemptsExhausted,
    ContractViolationError,
    PermanentTaskError,
    RetryableTaskError,
    classify,
)
from core.models import RetryPolicy
from core.models.retry import postpone_delays, retry_delay

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 100),
    base_delay_seconds=st.floats(0.001, 3600),
    max_delay_seconds=st.floats(0.001, 86400),
)


@given(policies, st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_delay_stays_below_the_cap_and_the_doubling(policy, attempt, drawn):
    if attempt >= policy.max_attempts:
        with pytest.raises(AttemptsExhausted):
            retry_delay(attempt, policy)
        return
    delay = retry_delay(attempt, policy, draw=lambda: drawn)
    assert 0 <= delay <= min(policy.max_delay_seconds, policy.base_delay_seconds * 2 ** (attempt - 1))


@pytest.mark.parametrize(("attempt", "ceiling"), [(1, 3.0), (2, 6.0), (3, 12.0), (4, 24.0), (5, 40.0), (99, 40.0)])
def test_delay_doubles_from_the_base_up_to_the_cap(attempt, ceiling):
    policy = RetryPolicy(max_attempts=100, base_delay_seconds=3.0, max_delay_seconds=40.0)
    assert retry_delay(attempt, policy, draw=lambda: 0.5) == ceiling / 2


def test_delays_of_one_fan_out_differ():
    """Without jitter a whole fan-out came back in the same second (lesson D20)."""
    assert len({retry_delay(2, RetryPolicy()) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (OSError("reset by peer"), True),
        (TimeoutError("slow"), True),
        (RuntimeError("who knows"), True),
        (RetryableTaskError("busy", retry_after_seconds=7), True),
        # An OSError by type, but no retry brings the file back.
        (FileNotFoundError("tile.tif"), False),
        (ValueError("bad tile"), False),
        (KeyError("tile"), False),
        (PermanentTaskError("no CRS"), False),
        (ContractViolationError("returned a list"), False),
    ],
)
def test_type_decides_whether_to_try_again(error, retryable):
    assert classify(error).retryable is retryable


def test_other_sides_wish_is_kept():
    assert classify(RetryableTaskError("busy", retry_after_seconds=7)).retry_after_seconds == 7


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_work_that_is_postponed_comes_again_later_each_time_and_within_half_a_minute(draw):
    delays = postpone_delays(draw=lambda: draw)
    assert delays == sorted(set(delays))
    assert delays[0] >= 0.5
    assert 15 <= delays[-1] <= 30


def test_work_that_is_postponed_waits_twice_as_long_each_time():
    assert postpone_delays(draw=lambda: 0.0) == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
