"""One type for each kind of field that comes from outside, with the bounds of the store.

Every value of a path, a query, a header, a body or a message is one of these, so that nothing comes to the
database which it cannot hold: NUL, half a surrogate pair, a number beyond its column.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, Strict, TypeAdapter
from pydantic_core import PydanticCustomError

from core.models.status import JobPriority
from core.safety.credentials import find_credential

E = TypeVar("E", bound=Mapping[str, Any])
MAX_INTEGER = 2**31 - 1
MAX_BIGINT = 2**63 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def expectation(expected: str, found: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises, so that it is reported with the words expected, found and hint."""
    return PydanticCustomError(
        "expectation", "expected {expected}, found {found}", {"expected": expected, "found": found, "hint": hint or ""}
    )


def without_consequences(errors: Iterable[E]) -> list[E]:
    """Pydantic's errors without those that only follow from others: of a tuple whose items are wrong, that it is short.

    A tuple's items that are refused do not count for its length.
    """
    found = list(errors)
    inner = {tuple(each["loc"][:length]) for each in found for length in range(len(each["loc"]))}
    return [each for each in found if each["type"] != "too_short" or tuple(each["loc"]) not in inner]


def check_storable(text: str) -> str:
    """The text itself, if PostgreSQL can hold it."""
    bad = _UNSTORABLE.search(text)
    if bad is not None:
        found = f"{'NUL' if bad[0] == chr(0) else 'half a surrogate pair'} at {bad.start()}"
        raise expectation("text without NUL and lone surrogates", found, "leave it out")
    return text


def check_no_credential(text: str) -> str:
    """The text itself, if it holds nothing that opens something."""
    found = find_credential(text)
    if found is not None:
        raise expectation("text without credentials", found.kind, "leave it out: it is kept and shown")
    return text


def check_no_credentials(texts: dict[str, str]) -> dict[str, str]:
    """The texts themselves, if none is below a name such as `password`."""
    found = find_credential(texts)
    if found is not None:
        raise expectation("texts without credentials", f"{found.kind} at {found.path!r}", "leave it out: it is shown")
    return texts


def check_digits(value: Any) -> Any:
    """The value itself; a text only if it is a number as people write it, which `1_0`, `+1` and ` 1` are not."""
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        found = repr(value) if len(value) <= _LONGEST_NUMBER else f"{len(value)} characters"
        raise expectation(f"a number of at most {_LONGEST_NUMBER} digits", found)
    return value


def check_one_header(value: Any) -> Any:
    """The value itself; one with a comma may be that of two headers."""
    if isinstance(value, str) and "," in value:
        raise expectation("one value without a comma", f"{value.count(',') + 1} of them", "give the header once")
    return value


def check_job_id(value: str) -> str:
    """The id itself, if it can be one."""
    if JOB_ID.fullmatch(value):
        return value
    hint = "submit answers with it"
    if JOB_ID.fullmatch(value.lower()):
        hint = "ids are written in lower case"
    elif _BEGINNING.fullmatch(value):
        hint = "give all of it: only the command line takes the beginning of an id; GET /api/jobs lists them"
    found = repr(value) if len(value) <= JOB_ID_LENGTH else f"{len(value)} characters"
    raise expectation("64 hexadecimal digits", found, hint)


_LONGEST_NUMBER = 19
_DIGITS = re.compile(rf"-?[0-9]{{1,{_LONGEST_NUMBER}}}")
JOB_ID_LENGTH = 64
JOB_ID = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(r"[0-9a-f]{1,63}")

JobIdText = Annotated[
    str, AfterValidator(check_job_id), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"}, examples=["ab" * 32])
]
StorableText = Annotated[str, AfterValidator(check_storable)]
TaskIdText = Annotated[StorableText, Field(min_length=1, max_length=100, examples=["s1-000000"])]
JobTypeText = Annotated[StorableText, Field(min_length=1, max_length=100)]
QueueName = Annotated[StorableText, Field(min_length=1, max_length=100, description="The logical name.")]
Reason = Annotated[
    StorableText,
    AfterValidator(check_no_credential),
    Field(min_length=1, max_length=1000, description="Kept in the timeline."),
]
CorrelationId = Annotated[
    str,
    AfterValidator(check_no_credential),
    Field(pattern=r"^[\x21-\x7e]{1,128}$", description="Goes with the job, its messages and log lines."),
]
IdempotencyKey = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,255}$")]
# In a header: Azure's host gives an app one text for a header that came twice, with a comma between.
IdempotencyKeyHeader = Annotated[
    str, BeforeValidator(check_one_header), Field(pattern=r"^[\x21-\x2b\x2d-\x7e]{1,255}$")
]
CorrelationIdHeader = Annotated[
    str,
    BeforeValidator(check_one_header),
    AfterValidator(check_no_credential),
    Field(pattern=r"^[\x21-\x2b\x2d-\x7e]{1,128}$", description="Goes with the job, its messages and log lines."),
]
Cursor = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,1000}$", description="`next_cursor` of the page before.")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="Of a group.")]
# Runs, stages, tasks.
StageNumber = Annotated[int, BeforeValidator(check_digits), Field(ge=1, le=MAX_INTEGER)]
RunNumber = Annotated[int, BeforeValidator(check_digits), Field(ge=1, le=MAX_INTEGER)]
EventId = Annotated[int, BeforeValidator(check_digits), Field(ge=0, le=MAX_BIGINT)]
DeadLetterId = Annotated[int, BeforeValidator(check_digits), Field(ge=1, le=MAX_BIGINT)]
StrictDeadLetterId = Annotated[int, Strict(), Field(ge=1, le=MAX_BIGINT)]
# Tags of a job, to find it by.
MOST_TAGS = 20
TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
TagValue = Annotated[StorableText, AfterValidator(check_no_credential), Field(min_length=1, max_length=200)]
Tags = Annotated[
    dict[TagName, TagValue],
    Field(max_length=MOST_TAGS, description="Short texts by name, to find the job by.", examples=[{"team": "geo"}]),
    AfterValidator(check_no_credentials),
]
TAGS: TypeAdapter[dict[str, str]] = TypeAdapter(Tags)


def read_priority(value: Any) -> Any:
    """The value itself, if it is a priority."""
    known = [priority.value for priority in JobPriority]
    if value not in known:
        raise expectation(f"one of {', '.join(known)}", repr(value)[:50])
    return JobPriority(value)


PriorityText = Annotated[
    JobPriority,
    BeforeValidator(read_priority),
    Field(description="The weight of its large stages among those of other jobs. Left out: that of its job type."),
]


def check_start(at: datetime) -> datetime:
    """The time itself, if it is no further away than a job may wait."""
    latest = datetime.now(UTC) + LONGEST_DELAY
    if at > latest:
        raise expectation(f"a time within {LONGEST_DELAY.days} days", at.isoformat())
    return at


def check_instant(value: Any) -> Any:
    """The value itself; a number is no time, though it could be read as one."""
    if isinstance(value, str) and not _INSTANT.match(value):
        raise expectation("a time with its offset, such as 2026-03-01T06:00:00Z", repr(value[:50]))
    if isinstance(value, int | float):
        raise expectation("a time with its offset, such as 2026-03-01T06:00:00Z", repr(value)[:50])
    return value


_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def to_utc(at: datetime) -> datetime:
    """The same time in UTC, if there is such a one: the first and the last day of all have offsets beyond it."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise expectation("a time between the years 1 and 9999 in UTC", at.isoformat()) from None


Instant = Annotated[AwareDatetime, BeforeValidator(check_instant), AfterValidator(to_utc)]
LONGEST_DELAY = timedelta(days=366)
StartAt = Annotated[
    Instant,
    AfterValidator(check_start),
    Field(description="Not before this time; with its offset, such as 2026-03-01T06:00:00Z. In the past: at once."),
]
