"""Times as people give them on the command line and read them: of this machine's clock with its zone, or UTC."""

import re
from datetime import UTC, datetime, tzinfo

from coremachine.cli.errors import UsageProblem

# As the server writes them into texts, such as the findings of `explain`.
_IN_TEXT = re.compile(r"\b(?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d:\d\d)Z")


class _Zone:
    """The zone of the running command; None is this machine's."""

    chosen: tzinfo | None = None


def choose_zone(*, is_utc: bool) -> None:
    """For the rest of this command."""
    _Zone.chosen = UTC if is_utc else None


def read_time(option: str, text: str | None) -> str | None:
    """RFC 3339 in UTC for a time with its zone, or without one of this machine's clock (with --utc, of UTC).

    Raises:
        UsageProblem: It is none.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and _Zone.chosen is not None:
            moment = moment.replace(tzinfo=_Zone.chosen)
        return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError) as error:
        expected = "a time such as 2026-03-01T06:00 or 2026-03-01T06:00:00+01:00"
        raise UsageProblem(f"{option}: expected {expected}, found {text!r:.100}") from error


def show_time(moment: datetime, now: datetime | None = None, *, milliseconds: bool = False) -> str:
    """`14:30:05 CET`; with the date where it is not today's.

    Args:
        now: Another moment as the present one.
        milliseconds: `14:30:05.123 CET`.
    """
    shown = moment.astimezone(_Zone.chosen)
    today = (now or datetime.now(UTC)).astimezone(_Zone.chosen).date()
    date = "" if shown.date() == today else f"{shown.date().isoformat()} "
    clock = shown.time().isoformat(timespec="milliseconds" if milliseconds else "seconds")
    return f"{date}{clock} {shown.tzname() or ''}".rstrip()


def own_time(text: str) -> str:
    """An RFC 3339 instant of a zone that its reader chose, as it is there; with --utc in UTC."""
    return text.replace("T", " ") if _Zone.chosen is None else show_time(datetime.fromisoformat(text))


def with_local_times(text: str, now: datetime | None = None) -> str:
    """A server's text, with its times (`14:30:05Z`) as this command shows times."""
    present = (now or datetime.now(UTC)).astimezone(UTC)

    def local(found: re.Match[str]) -> str:
        moment = datetime.fromisoformat(f"{found[1] or present.date().isoformat()}T{found[2]}+00:00")
        return show_time(moment, present)

    return _IN_TEXT.sub(local, text)
