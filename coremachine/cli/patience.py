"""Going on while the server is away, for a limited time."""

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from coremachine.cli.errors import ApiError, CliError, ServerUnreachable

T = TypeVar("T")
Say = Callable[[str], None]

# What a restart, a deployment or a failover of the database looks like from here, through a gateway too.
_AWAY = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# The local host's 500 for a request that runs while the host ends.
_ENDS = "invocation_aborted"
# Settings or code that somebody must change first: it does not help to ask again.
NOT_READY = "app_not_ready"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0


def is_outage(error: CliError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ApiError):
        if error.problem.get("code") == NOT_READY:
            return False
        return error.status in _AWAY or error.problem.get("code") == _ENDS
    return isinstance(error, ServerUnreachable)


class Patience:
    """Repeats a call, with growing pauses, while the server is away. Reports each outage once, and its end.

    Args:
        was_reached: Whether the server has ever answered; one that has not may be the wrong one, and is not waited for.
        outage_seconds: How long one outage may last.
        deadline: When all is over, by `time.monotonic()`.
    """

    def __init__(
        self,
        say: Say,
        was_reached: Callable[[], bool],
        *,
        outage_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> None:
        self._say, self._was_reached = say, was_reached
        self._outage_seconds, self._deadline = outage_seconds, deadline

    def ask(self, call: Callable[[], T]) -> T:
        """The call's answer.

        Raises:
            ServerUnreachable, ApiError: The last outage, when the time is over; at once whatever is no outage.
        """
        end, pause = None, _FIRST_PAUSE_SECONDS
        while True:
            try:
                answer = call()
            except CliError as error:
                if not (is_outage(error) and self._was_reached()):
                    raise
                if end is None:
                    end = min(self._deadline, time.monotonic() + self._outage_seconds)
                    self._say(f"{error.summary}; asking again")
                left = end - time.monotonic()
                if left <= 0:
                    raise
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                if end is not None:
                    self._say("The server answers again.")
                return answer
