"""When to try again: pure decisions."""

import random
from collections.abc import Callable
from dataclasses import replace

from core.errors import AttemptsExhausted, Failure
from core.models.definition import RetryPolicy

# After the last one it stays: the longest time in which a newer release that came is not noticed.
POSTPONE_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


def retry_delay(attempt: int, policy: RetryPolicy, *, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait before the next attempt: exponential, capped, with full jitter.

    Full jitter spreads a whole fan-out that failed in the same second over the interval.

    Args:
        attempt: The attempt that failed, from 1; interruptions do not count.
        draw: A number in [0, 1).

    Raises:
        AttemptsExhausted: attempt >= policy.max_attempts.
    """
    if attempt >= policy.max_attempts:
        raise AttemptsExhausted(attempt, policy.max_attempts)
    # The exponent is bounded before it is used: 2 ** 1000 is no float.
    ceiling = policy.base_delay_seconds * 2.0 ** min(attempt - 1, 64)
    return draw() * min(ceiling, policy.max_delay_seconds)


def judged(failure: Failure, policy: RetryPolicy) -> Failure:
    """The failure, retryable or not as the policy's `never` and `always` have it.

    The nearest ancestor that is named decides; where none is, the failure stays as it is.
    """
    never, always = set(policy.never or ()), set(policy.always or ())
    if not never and not always:
        return failure
    for names in failure.ancestry or ((failure.error_type, failure.error_type),):
        if not never.isdisjoint(names):
            return replace(failure, retryable=False)
        if not always.isdisjoint(names):
            return replace(failure, retryable=True)
    return failure


def postpone_delays(*, draw: Callable[[], float] = random.random) -> list[float]:
    """Seconds to wait after work was postponed, since this release does not know it: once, twice, and so on.

    With jitter of half of it, so that what was postponed together comes spread out, and none comes at once.

    Args:
        draw: A number in [0, 1).
    """
    part = 0.5 + 0.5 * draw()
    return [part * seconds for seconds in POSTPONE_SECONDS]
