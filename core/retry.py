"""When to try again: a pure decision."""

import random
from collections.abc import Callable

from core.errors import AttemptsExhausted
from core.models.definition import RetryPolicy


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
