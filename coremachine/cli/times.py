"""Times as people give them on the command line."""

from datetime import UTC, datetime

from coremachine.cli.errors import UsageProblem


def read_time(option: str, text: str | None) -> str | None:
    """RFC 3339 in UTC for a time with its zone, or of this machine's clock without.

    Raises:
        UsageProblem: It is none.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "a time such as 2026-03-01T06:00 or 2026-03-01T06:00:00+01:00"
        raise UsageProblem(f"{option}: expected {expected}, found {text!r:.100}") from error
    return moment.astimezone(UTC).isoformat()
