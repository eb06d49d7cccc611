"""A clock that tests can turn."""

import time

_MOST_SECONDS = 1e9


class TurnableClock:
    """The time of the machine, and what it was turned forward by."""

    def __init__(self) -> None:
        self._offset = 0.0

    def __call__(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time() + self._offset

    def turn(self, seconds: float) -> None:
        """Go forward.

        Raises:
            ValueError: Time does not go back: locks and numbers would lose their meaning.
        """
        if not 0 <= seconds < _MOST_SECONDS:
            raise ValueError(f"expected 0 to 999999999 seconds to turn the clock forward by, found {seconds:g}")
        self._offset += seconds

    def turn_back(self) -> None:
        """Show the time of the machine again: only for a broker without messages and locks."""
        self._offset = 0.0
