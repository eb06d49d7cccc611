"""The `wait` preference of RFC 7240."""

import re

from triggers.api_models import MAX_WAIT_SECONDS

_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?([0-9]+)\"?\s*(?:;[^,]*)?(?=,|$)", re.IGNORECASE)


def read_wait(prefer: str | None) -> float | None:
    """Seconds to wait, at most MAX_WAIT_SECONDS; None when the header does not ask. A preference never fails."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), MAX_WAIT_SECONDS) if found else None
