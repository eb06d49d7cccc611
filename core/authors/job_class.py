"""What the engine asks of a job class beside its tasks and summary, and what it takes for an answer.

An answer is looked at inside of the boundary to the author's code, and what leaves it is of our own making.
"""

import dataclasses
from collections.abc import Mapping
from json import loads
from typing import Any

from pydantic import BaseModel

from core.authors.author_code import describe_returned
from core.authors.own_code import DRAFTS, MAKES_MESSAGE, MAKES_RECORD, VALIDATES, call_for_request
from core.basics.cache import LatestCache
from core.basics.canonical import ValueTooLarge, canonical_json, copied, encode_storable
from core.basics.strict_json import EncodedJson
from core.errors import ContractViolationError, InvalidParameters
from core.models import JobQueueMessage, JobRecord
from core.models.definition import JobDefinition
from core.models.fields import JOB_ID
from core.models.submission import Submitted
from core.ports import JobType
from core.safety.safe_text import bounded_text, repr_of, text_of

# The latest definition of a job type, as it is stored.
_definitions: LatestCache[str, dict[str, Any]] = LatestCache(256)
_A_JOB_ID = "64 hexadecimal digits in lower case"


@dataclasses.dataclass(frozen=True)
class DraftedJob:
    """A job that is submitted, as its class makes it of parameters that it validated.

    Args:
        outside_id: The parameters that its id does not come from.
        size: Of the parameters, as they are stored.
    """

    record: JobRecord
    outside_id: tuple[str, ...]
    size: int


def validate(job_class: JobType, job_type: str, parameters: Mapping[str, Any], most_bytes: int) -> dict[str, Any]:
    """Parameters as the job's author has them validated, in a dict of our own.

    Raises:
        InvalidParameters, ValueTooLarge: What the caller must change.
        AuthorError: The author's code failed, took too long, or gave what cannot be stored.
        JobTypeBusy: Too many validations of the job type hang.
    """
    answer = call_for_request(job_type, job_class, VALIDATES, _validated, job_class, job_type, parameters, most_bytes)
    if isinstance(answer, Exception):
        raise answer
    return answer[0]


def draft_job(
    job_class: JobType, job_type: str, parameters: Mapping[str, Any], most_bytes: int, correlation_id: str
) -> DraftedJob:
    """The job that its class makes of these parameters.

    Raises:
        Exception: As `validate`.
    """
    answer = call_for_request(
        job_type, job_class, DRAFTS, _drafted, job_class, job_type, parameters, most_bytes, correlation_id
    )
    if isinstance(answer, Exception):
        raise answer
    return dataclasses.replace(answer, record=_with_limit_names(answer.record))


def definition_of(job_class: JobType, job: JobRecord, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The definition that a job's class makes now, of these parameters, which were validated.

    Raises:
        AuthorError: As `validate`.
    """
    made_of = (job_class, job.job_type, job.job_id, parameters, job.correlation_id)
    record = call_for_request(job.job_type, job_class, MAKES_RECORD, _record_of, *made_of)
    return _with_limit_names(record).definition


def _drafted(
    job_class: JobType, job_type: str, parameters: Mapping[str, Any], most_bytes: int, correlation_id: str
) -> DraftedJob | InvalidParameters | ValueTooLarge:
    answer = _validated(job_class, job_type, parameters, most_bytes)
    if isinstance(answer, Exception):
        return answer
    validated, encoded = answer
    job_id: object = job_class.generate_job_id(copied(validated))
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        found = describe_returned(job_id)
        raise ContractViolationError(f"generate_job_id of {job_type!r}: expected {_A_JOB_ID}, found {found}")
    record = _record_of(job_class, job_type, str.__str__(job_id), validated, correlation_id)
    return DraftedJob(record, tuple(getattr(job_class, "parameters_outside_job_id", ())), len(encoded))


def _validated(
    job_class: JobType, job_type: str, parameters: Mapping[str, Any], most_bytes: int
) -> tuple[dict[str, Any], EncodedJson] | InvalidParameters | ValueTooLarge:
    try:
        validated: object = job_class.validate_job_parameters(parameters)
    except InvalidParameters as refused:
        return _plain_refusal(refused)
    except ValueTooLarge as refused:
        return InvalidParameters(bounded_text(text_of(refused)))
    if not isinstance(validated, Mapping):
        found = f"{describe_returned(validated)}{_as_dict_hint(validated)}"
        raise ContractViolationError(
            f"validate_job_parameters of {job_type!r}: expected it to return a dict, found {found}"
        )
    try:
        encoded = encode_storable(validated, "parameters", most_bytes=most_bytes)
    except ValueTooLarge as too_large:
        return too_large
    return loads(encoded), encoded


def _as_dict_hint(value: object) -> str:
    if dataclasses.is_dataclass(value):
        return "; return dataclasses.asdict(...) of it"
    return "; return its .model_dump(mode='json')" if isinstance(value, BaseModel) else ""


def _plain_refusal(refused: InvalidParameters) -> InvalidParameters:
    try:
        return refused.in_plain_text()
    except Exception:  # noqa: BLE001 - an author's subclass computes what it holds
        return InvalidParameters.in_plain_text(refused)


def _record_of(
    job_class: JobType, job_type: str, job_id: str, validated: Mapping[str, Any], correlation_id: str
) -> JobRecord:
    """The row that the class makes of parameters, which were validated.

    Raises:
        ContractViolationError: It is no row of this job.
    """
    what = f"create_job_record of {job_type!r}"
    record: object = job_class.create_job_record(job_id, copied(validated), correlation_id=correlation_id)
    if not isinstance(record, JobRecord):
        found = describe_returned(record)
        raise ContractViolationError(f"{what}: expected it to return a JobRecord, found {found}")
    _expect(what, record, {"job_id": job_id, "job_type": job_type, "run": 1, "correlation_id": correlation_id})
    if not _is_same(record.parameters, validated):
        expected = "the parameters that it was given; validate_job_parameters is where they change"
        raise ContractViolationError(f"{what}: parameters: expected {expected}, found {repr_of(record.parameters)}")
    document = _definition_of(what, job_type, record.definition)
    _expect(what, record, {"total_stages": len(document["stages"])})
    return JobRecord(
        job_id=job_id,
        job_type=job_type,
        total_stages=record.total_stages,
        parameters=dict(validated),
        definition=document,
        correlation_id=correlation_id,
    )


def _definition_of(what: str, job_type: str, made: Any) -> dict[str, Any]:
    """The definition as it is stored. Most jobs of a type have the one that was looked at before."""
    known = _definitions.get(job_type)
    if known is not None and type(made) is dict and made == known:
        return known
    definition = JobDefinition.model_validate(made)
    numbers = [stage.number for stage in definition.stages]
    if definition.job_type != job_type or numbers != list(range(1, len(numbers) + 1)):
        expected = f"one of {job_type!r} with stages numbered from 1"
        found = f"one of {repr_of(definition.job_type)} with {repr_of(numbers)}"
        raise ContractViolationError(f"{what}: definition: expected {expected}, found {found}")
    document = definition.model_dump(mode="json", exclude_none=True)
    encode_storable(document, f"{what}: definition")
    _definitions.put(job_type, document)
    return document


def _with_limit_names(record: JobRecord) -> JobRecord:
    """The row with the job's parameters in the names of its limits.

    Raises:
        InvalidParameters: The caller must give a parameter that a name needs.
    """
    if not any(stage.get("limits") for stage in record.definition["stages"]):
        return record
    definition = JobDefinition.model_validate(record.definition).with_limit_names(record.parameters)
    return record.model_copy(update={"definition": definition.model_dump(mode="json", exclude_none=True)})


def first_message(
    job_class: JobType, job_type: str, submitted: Submitted, validated: Mapping[str, Any]
) -> JobQueueMessage:
    """The message that begins a submitted run.

    Raises:
        AuthorError, JobTypeBusy: As `validate`; or it is no message about this job.
    """
    return call_for_request(
        job_type, job_class, MAKES_MESSAGE, _first_message, job_class, job_type, submitted, validated
    )


def _first_message(
    job_class: JobType, job_type: str, submitted: Submitted, validated: Mapping[str, Any]
) -> JobQueueMessage:
    what = f"queue_job of {job_type!r}"
    message: object = job_class.queue_job(submitted.job_id, copied(validated), correlation_id=submitted.correlation_id)
    if not isinstance(message, JobQueueMessage):
        found = describe_returned(message)
        raise ContractViolationError(f"{what}: expected it to return a JobQueueMessage, found {found}")
    _expect(what, message, {"job_id": submitted.job_id, "job_type": job_type, "stage": 1})
    # As it will be read: what was made without validation is validated here.
    return JobQueueMessage.model_validate_json(message.model_copy(update={"run": submitted.run}).model_dump_json())


def _is_same(found: Any, expected: Mapping[str, Any]) -> bool:
    # The names may come in another order; that is seldom, and slower to see.
    return encode_storable(found) == encode_storable(expected) or canonical_json(found) == canonical_json(expected)


def _expect(what: str, made: object, fields: Mapping[str, object]) -> None:
    for name, expected in fields.items():
        found = getattr(made, name)
        if type(found) is not type(expected) or found != expected:
            raise ContractViolationError(f"{what}: {name}: expected {expected!r}, found {repr_of(found)}")
