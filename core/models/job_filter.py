"""Which jobs a list shows or an action is for, and in which order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.models.fields import MOST_TAGS, TAG_NAME, TAGS, check_storable, expectation
from core.models.status import JobStatus


class JobSort(StrEnum):
    """The order of a list of jobs. By finished_at: ended jobs alone."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    LATEST_ENDED = "-finished_at"
    FIRST_ENDED = "finished_at"


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Jobs that are all of this; what is empty or None is no condition.

    Args:
        job_ids: One of them. So for `statuses` and `job_types`.
        id_begins: Whose id begins with these digits.
        paused: Only those that are paused, or only those that are not.
        tags: That have all of these; a value of None is any value.
        error: Whose error's type or message contains this text, in any case.
        text: Whose id begins with this text, or that have it in a parameter (`name=value` where it has an equals sign)
            or in their error, in any case.
        held: Only those under a legal hold, or only those that are not.
        visible_types: Of a job type that fits one of these patterns, in which a star is any characters.
        created_after: Submitted at this time or later; `created_before`: earlier than that.
    """

    job_ids: tuple[str, ...] = ()
    statuses: tuple[JobStatus, ...] = ()
    job_types: tuple[str, ...] = ()
    paused: bool | None = None
    held: bool | None = None
    tags: Mapping[str, str | None] = field(default_factory=dict)
    correlation_id: str | None = None
    error: str | None = None
    text: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    visible_types: tuple[str, ...] | None = None
    id_begins: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What it asks for, and nothing else."""
        told: dict[str, Any] = {
            **{name: [str(each) for each in getattr(self, name)] for name in ("job_ids", "statuses", "job_types")},
            **{
                name: getattr(self, name) for name in ("paused", "held", "correlation_id", "error", "text", "id_begins")
            },
            **{name: at and at.isoformat() for name, at in self._times()},
            "tags": dict(self.tags),
        }
        return {name: value for name, value in told.items() if value not in (None, [], {})}

    def _times(self) -> tuple[tuple[str, datetime | None], ...]:
        return ("created_after", self.created_after), ("created_before", self.created_before)


def read_wanted_tags(texts: Iterable[str]) -> dict[str, str | None]:
    """`team=geo` is a tag with its value, `team` one with any value.

    Raises:
        PydanticCustomError: A text is neither.
    """
    wanted: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not TAG_NAME.fullmatch(name):
            raise _no_tag(text)
        if name in wanted:
            raise expectation("each tag once", f"{name!r} twice", "a job has one value for a tag")
        wanted[name] = check_storable(value) if equals else None
    return wanted


def read_tags(texts: Iterable[str]) -> dict[str, str]:
    """`team=geo` as a submission gives it.

    Raises:
        PydanticCustomError, ValidationError: A text is none, or cannot be kept.
    """
    tags: dict[str, str] = {}
    for name, value in read_wanted_tags(texts).items():
        if value is None:
            raise _no_tag(name)
        tags[name] = value
    return TAGS.validate_python(tags)


def _no_tag(text: str) -> Exception:
    hint = f"for example team=geo; at most {MOST_TAGS}, their names of letters, digits and . _ / -"
    return expectation("a tag, name=value", repr(text[:100]), hint)
