"""Queue messages: they say "look at these rows" and carry ids, never the truth.

A newer release may send what this one does not know. A field that is not known is kept and means nothing. A release
whose messages must not be read by an older one sends them with a higher `format`; those, and kinds (`message_type`)
that are not known, are read as an `UnknownMessage`.
"""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar
from uuid import uuid4

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json

from core.basics.strict_json import NotAnObject, parse_object
from core.models.control import IfEnded
from core.models.definition import MOST_TASKS_PER_MESSAGE, FrozenModel
from core.models.fields import (
    MAX_INTEGER,
    CorrelationId,
    IdempotencyKey,
    JobTypeText,
    PriorityText,
    StartAt,
    StorableText,
    Tags,
    check_storable,
    expectation,
)
from core.models.record import JobId
from core.models.refs import StageRef

MESSAGE_FORMAT = 1
_KINDS = frozenset({"job", "stage_complete", "task"})
_CORRELATION_ID: TypeAdapter[str] = TypeAdapter(CorrelationId)
_FIELDS_OF_ONE_KIND = frozenset({"completed_stage", "parameters", "task_ids"})

# What a producer may write; the other fields are the engine's own.
_OF_SUBMISSIONS = ("if_ended", "idempotency_key", "tags", "start_at", "priority")
SUBMISSION_FIELDS = ("job_type", "parameters", "correlation_id", *_OF_SUBMISSIONS)

# As rows hold it: a call with a larger one would find no function of the database that takes it.
_Number = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
_Cause = Annotated[StorableText, Field(max_length=20)]

# The longest patience that settings allow.
_LONGEST_KEPT = timedelta(days=31)


def _within_reason(since: datetime) -> datetime:
    """No message came from the future, and none is older than the longest patience, whatever it contains."""
    now = datetime.now(UTC)
    if since >= now:
        return now
    return now - _LONGEST_KEPT if now - since > _LONGEST_KEPT else since.astimezone(UTC)


def _storable_all(texts: tuple[str, ...]) -> tuple[str, ...]:
    check_storable("".join(texts))  # one look at all: every task's message comes through here
    return texts


class Kept(FrozenModel):
    """In a message that went back to its queue, since nobody knew what to do with it: since when, and how often."""

    since: Annotated[AwareDatetime, AfterValidator(_within_reason)]
    times: Annotated[int, Field(ge=1), AfterValidator(lambda times: min(times, MAX_INTEGER))]


class _Message(BaseModel):
    """Fields that are not sent are left out, so that an older release finds none that it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Annotated[int, Field(le=MESSAGE_FORMAT)] = Field(default=MESSAGE_FORMAT, exclude=True)
    kept: Kept | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        foreign = _FIELDS_OF_ONE_KIND.intersection(self.model_extra or ())
        if foreign:
            raise ValueError(f"expected no field of another kind of message, found {', '.join(sorted(foreign))}")
        return self


class JobQueueMessage(_Message):
    """On the jobs queue: look at this job; plan its stage or finalize it, whichever its row asks for.

    A producer that submits over the queue sends `job_type` and `parameters` without a `job_id`. A message may come
    twice, so what makes something run again (`if_ended` rerun or force) needs an `idempotency_key`.
    """

    message_type: Literal["job"] = "job"
    job_id: JobId | None = None
    job_type: JobTypeText
    run: _Number = 1
    stage: _Number = 1
    attempt: _Number = 1
    cause: _Cause | None = None
    parameters: dict[str, Any] | None = None
    correlation_id: StorableText | None = None
    if_ended: IfEnded | None = None
    idempotency_key: IdempotencyKey | None = None
    tags: Tags | None = None
    start_at: StartAt | None = None
    priority: PriorityText | None = None

    @field_validator("correlation_id")
    @classmethod
    def _is_taken_over_http_too(cls, value: str | None, told: ValidationInfo) -> str | None:
        """Of a submission; a message that names a job carries what the job has."""
        if value is None or told.data.get("job_id") is not None:
            return value
        try:
            return _CORRELATION_ID.validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            raise PydanticCustomError("correlation_id", "{problem}", {"problem": problem["msg"]}) from None

    @model_validator(mode="after")
    def _names_a_job_or_submits_one(self) -> "JobQueueMessage":
        if (self.job_id is None) == (self.parameters is None):
            raise ValueError(
                "expected either job_id (look at this job) or parameters (submit a job), found "
                + ("neither" if self.job_id is None else "both")
            )
        return self

    @model_validator(mode="after")
    def _runs_again_once(self) -> "JobQueueMessage":
        if self.if_ended in {IfEnded.RERUN, IfEnded.FORCE} and self.idempotency_key is None:
            raise ValueError(
                f"expected an idempotency_key with if_ended {self.if_ended.value!r}, found none; add one, "
                "since a message may come twice"
            )
        given = [name for name in _OF_SUBMISSIONS if getattr(self, name) is not None]
        if self.job_id is not None and given:
            raise ValueError(f"expected {' and '.join(given)} only where a job is submitted, found a job_id")
        return self

    @property
    def message_id(self) -> str:
        if self.job_id is None:
            parts = ["submit", self.correlation_id or uuid4().hex, self.cause]
            return "-".join(part for part in parts if part)
        parts = ["job", self.job_id[:32], str(self.run), str(self.stage), str(self.attempt), self.cause]
        return "-".join(part for part in parts if part)


class StageCompleteMessage(_Message):
    """On the jobs queue: a worker app ended a stage; the platform app looks at the job and moves it on."""

    message_type: Literal["stage_complete"] = "stage_complete"
    job_id: JobId
    job_type: StorableText
    run: _Number = 1
    completed_stage: _Number
    completed_by_app: StorableText | None = None
    correlation_id: StorableText | None = None

    @property
    def message_id(self) -> str:
        return f"stage-{self.job_id[:32]}-{self.run}-{self.completed_stage}"


class TaskQueueMessage(_Message):
    """On a task queue: run these tasks of one stage.

    Args:
        attempt: The number of the attempt that it asks for.
        cause: Why it is sent again, where only this distinguishes it from an earlier message (brokers drop doubles).
        takes_next: The mark of a stage that is announced in windows. The process that handles the message announces the
            stage's next tasks, as it begins: always, or (False) if it has not looked lately. A message of one short
            task then goes on with tasks that have no message. None: neither of both.
    """

    message_type: Literal["task"] = Field(default="task", exclude=True)
    job_id: JobId
    job_type: StorableText
    run: _Number = 1
    stage: _Number
    task_ids: Annotated[
        tuple[str, ...], Field(min_length=1, max_length=MOST_TASKS_PER_MESSAGE), AfterValidator(_storable_all)
    ]
    attempt: _Number = 1
    cause: _Cause | None = None
    takes_next: bool | None = None
    correlation_id: StorableText | None = None

    @property
    def stage_ref(self) -> StageRef:
        return StageRef(self.job_id, self.run, self.stage)

    @property
    def message_id(self) -> str:
        """At most 128 characters, which is what Service Bus takes."""
        # A digest, since two ids may share a long beginning.
        first = hashlib.sha256(self.task_ids[0].encode()).hexdigest()[:16]
        parts = ["task", self.job_id[:32], str(self.run), str(self.stage), first, str(self.attempt), self.cause]
        return "-".join(part for part in parts if part)


class UnknownMessage(FrozenModel):
    """A message of a kind or format that this release does not know; a newer one sent it.

    Args:
        queue: Logical name of the queue that it came from.
    """

    queue: str
    document: dict[str, Any]
    kept: Kept | None = None

    @property
    def name(self) -> str:
        """What is not known of it."""
        kind = self.document.get("message_type", "a message")
        return f"{kind!r:.100} of format {self.document.get('format', MESSAGE_FORMAT)!r:.100}"


class KeptMessage(FrozenModel):
    """A message on its way back to its queue, as it came, for a release that knows what to do with it."""

    document: dict[str, Any]
    kept: Kept

    @property
    def message_id(self) -> str:
        """New each time: a broker that drops doubles would drop it."""
        return f"kept-{uuid4().hex}"

    @property
    def correlation_id(self) -> str | None:
        told = self.document.get("correlation_id")
        return told if isinstance(told, str) else None

    @model_serializer
    def _as_it_came(self) -> dict[str, Any]:
        return self.document | {"kept": self.kept.model_dump(mode="json")}


ReadMessage = JobQueueMessage | StageCompleteMessage | TaskQueueMessage
QueueMessage = ReadMessage | KeptMessage
JOB_KIND, STAGE_KIND = "job", "stage_complete"


def _kind(document: Any) -> str:
    """Which of the two it means to be: a person reads what is wrong with that one, not with both."""
    if not isinstance(document, Mapping):
        return STAGE_KIND if isinstance(document, StageCompleteMessage) else JOB_KIND
    given = document.get("message_type", STAGE_KIND if "completed_stage" in document else JOB_KIND)
    return STAGE_KIND if given == STAGE_KIND else JOB_KIND


# What may stand on the jobs queue, for `validate_json(body)`. Without `message_type` it is a job message, unless it
# names a completed stage. The first place of an error is the kind.
JOBS_QUEUE_MESSAGE: TypeAdapter[JobQueueMessage | StageCompleteMessage] = TypeAdapter(
    Annotated[
        Annotated[JobQueueMessage, Tag(JOB_KIND)] | Annotated[StageCompleteMessage, Tag(STAGE_KIND)],
        Discriminator(_kind),
    ]
)

_NUMBER = TypeAdapter(int)
M = TypeVar("M")


def read_job_message(queue: str, body: bytes | str) -> JobQueueMessage | StageCompleteMessage | UnknownMessage:
    """A message of the jobs queue. Raises ValidationError for one that no release sends."""
    return _read(queue, body, _parse_job_message)


def read_task_message(queue: str, body: bytes | str) -> TaskQueueMessage | UnknownMessage:
    """A message of a task queue, whose logical name is given. Raises as `read_job_message`."""
    return _read(queue, body, TaskQueueMessage.model_validate_json)


def _parse_job_message(body: bytes | str) -> JobQueueMessage | StageCompleteMessage:
    message = JOBS_QUEUE_MESSAGE.validate_json(body)
    if isinstance(message, JobQueueMessage) and message.job_id is None:
        _check_submission(body)
    return message


def _check_submission(body: bytes | str) -> None:
    """What a person wrote is read as over HTTP: of a name that is there twice, none can be chosen."""
    try:
        parse_object(body.encode() if isinstance(body, str) else body)
    except NotAnObject as problem:
        details = InitErrorDetails(type=expectation("a JSON object", problem.found), loc=(), input=None)
        raise ValidationError.from_exception_data(JobQueueMessage.__name__, [details]) from None


def _read(queue: str, body: bytes | str, parse: Callable[[bytes | str], M]) -> M | UnknownMessage:
    # As over HTTP: programs on Windows begin a file with it.
    mark = b"\xef\xbb\xbf" if isinstance(body, bytes) else "\ufeff"
    body = body.removeprefix(mark)  # type: ignore[arg-type]
    try:
        return parse(body)
    except ValidationError:
        document = _document(body)
        if not _is_newer(document):
            raise
    return UnknownMessage(queue=queue, document=document, kept=_kept(document))


def _document(body: bytes | str) -> dict[str, Any]:
    """The JSON object; empty when it is none, or one that could not be sent again as it came."""
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_newer(document: Mapping[str, Any]) -> bool:
    kind = document.get("message_type")
    return _format(document) > MESSAGE_FORMAT or (isinstance(kind, str) and kind not in _KINDS)


def _format(document: Mapping[str, Any]) -> int:
    """As the field is read: `"2"` and `2.0` are 2 as well. What is no number is none that a release sends."""
    try:
        return _NUMBER.validate_python(document.get("format", MESSAGE_FORMAT))
    except ValidationError:
        return MESSAGE_FORMAT


def _kept(document: dict[str, Any]) -> Kept | None:
    try:
        return Kept.model_validate(document.pop("kept", None))
    except ValidationError:
        return None


class TaskResult(FrozenModel):
    """How one attempt ended. `retryable` and `error_type` are set when it failed."""

    task_id: str
    success: bool
    result: dict[str, Any] | None = None
    error: str | None = None
    error_type: str | None = None
    retryable: bool | None = None
    retry_after_seconds: Annotated[float, Field(ge=0)] | None = None
    duration_seconds: float | None = None
