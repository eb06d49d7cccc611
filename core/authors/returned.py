"""What a handler returned: a result that can be stored, or a failure that it reports itself."""

from collections.abc import Mapping
from typing import Any

from core.authors.author_code import describe_returned
from core.basics.canonical import NotJson, ValueTooLarge, describe, encode_storable, plain_copy
from core.basics.strict_json import EncodedJson
from core.errors import ContractViolationError, Failure
from core.models import TaskResult
from core.safety.safe_text import text_of


def judge_returned(task_type: str, returned: object, most_bytes: int | None = None) -> EncodedJson | Failure:
    """What a handler's return value means: a mapping or None is a result; `success` false in it is a failure.

    Raises:
        ContractViolationError: It is neither.
    """
    if type(returned) is EncodedJson:
        # Judged by the process that ran the handler; the bound is this one's.
        if most_bytes is not None and len(returned) > most_bytes:
            problem = ValueTooLarge("result", len(returned), most_bytes)
            raise ContractViolationError(f"handler of {task_type!r}: {problem}")
        return returned
    if isinstance(returned, TaskResult):
        returned = {"success": returned.success, **returned.model_dump(exclude={"task_id", "success"})}
        if returned["success"]:
            returned = returned["result"]
    if returned is None:
        returned = {}
    if not isinstance(returned, Mapping):
        raise ContractViolationError(
            f"handler of {task_type!r}: expected it to return a mapping or None, found {describe_returned(returned)}"
        )
    try:
        # Read once: what is judged is what is stored.
        own = returned if type(returned) is dict else plain_copy(returned, "result")
        success = own.get("success", True)
        if success is not True and _is_told_failure(task_type, own, success):
            return _told_failure(own)
        return encode_storable(own, "result", most_bytes=most_bytes)
    except (NotJson, ValueTooLarge) as problem:
        raise ContractViolationError(f"handler of {task_type!r}: {text_of(problem)}") from problem


def _is_told_failure(task_type: str, returned: Mapping[str, Any], success: object) -> bool:
    """`success` false; where an error is reported, it must say true or false: 0 or "false" would pass for a result."""
    if not isinstance(success, bool) and (returned.get("error") or returned.get("error_type")):
        raise ContractViolationError(
            f"handler of {task_type!r}: success: expected true or false beside error, found {describe(success)}; "
            f"it reports {text_of(returned.get('error') or returned.get('error_type'))}"
        )
    return success is False


def _told_failure(returned: Mapping[str, Any]) -> Failure:
    message = returned.get("error") or returned.get("message") or "the handler returned success false without an error"
    retryable = returned.get("retryable", True)
    note = ""
    if retryable is not None and not isinstance(retryable, bool):
        note = f" [retryable: expected true or false, found {describe(retryable)}; not tried again]"
    return Failure(
        error_type=text_of(returned.get("error_type") or "TaskError"),
        message=text_of(message) + note,
        retryable=retryable is None or retryable is True,
        retry_after_seconds=returned.get("retry_after_seconds"),
    )
