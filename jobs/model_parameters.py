"""Parameters that a pydantic model declares, with the rules of a `parameters_schema`.

They come as JSON and are kept as JSON: nothing is converted but what JSON has no type for (dates, enums, paths), names
that are not declared are refused, and so are credentials. What is kept is what the model reads from what was kept: a
handler and a rerun read it again, and find the same values.
"""

import re
import traceback
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from json import dumps
from typing import Any, TypeGuard

from pydantic import BaseModel, ValidationError

from core.basics.canonical import canonical_json, describe, find_json_problems
from core.errors import ContractViolationError, InvalidParameters, StoreUnavailable
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from core.safety.safe_text import text_of, type_name
from jobs.model_problems import reported_problems
from jobs.parameters import ParameterError, ParameterErrors, Problems, check_free_value, shown_path

# Reading again may change a default, which nothing has looked at before; after that there is nothing to change.
_MOST_READINGS = 3
_LONGEST_TEXT = 300
log = safe_logger(__name__)


def is_model(schema: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel)


def validate_with_model(model: type[BaseModel], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Validated values with defaults, as JSON has them.

    Raises:
        ParameterErrors: With the problems.
        ContractViolationError: The model does not read the values again that it writes.
    """
    problems = Problems()
    for name, value in parameters.items():
        if name in model.model_fields:
            check_free_value(value, str(name), problems)
        else:  # a name that the sender chose
            check_free_value({name: value}, "", problems)
    problems.refuse()
    kept = _as_json(_read(model, parameters))
    for _ in range(_MOST_READINGS - 1):
        again = _as_json(_read_again(model, kept, parameters))
        if again == kept:
            return kept
        before, kept = kept, again
    name = next(name for name in kept if kept[name] != before.get(name))
    raise ContractViolationError(
        f"parameters_schema {model.__name__}: {name}: expected the same value whenever it is read, found "
        f"{describe(before.get(name))} that is read as {describe(kept[name])}; let validators return what they would "
        "accept as it is"
    )


def _read(model: type[BaseModel], parameters: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate_json(dumps(dict(parameters)), strict=True, extra=_extra_of(model))
    except ValidationError as error:
        found = list(reported_problems(error, model))
    except (ContractViolationError, StoreUnavailable, InvalidParameters):
        raise
    except Exception as error:  # noqa: BLE001 - an author's validator that was not written for this value
        found = [_unforeseen(model, error)]
    raise ParameterErrors(found)


def _unforeseen(model: type[BaseModel], error: Exception) -> ParameterError:
    """What a validator raised that pydantic passes on: at its field, where the trace names the validator of one."""
    log.warning("parameter_validator_failed", exc_info=error, extra={"model": model.__name__})
    called = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    fields = {
        field
        for name, decorator in model.__pydantic_decorators__.field_validators.items()
        for field in decorator.info.fields
        if name in called
    }
    (field,) = fields if len(fields) == 1 else {model.__name__}
    found = f"{type_name(error)}: {redacted_start(text_of(error), _LONGEST_TEXT)}"
    return ParameterError(
        field, "a value that its validators can check", found, "check the value; the log has the trace"
    )


def _read_again(model: type[BaseModel], kept: Mapping[str, Any], given: Mapping[str, Any]) -> BaseModel:
    try:
        return _read(model, kept)
    except ParameterErrors as refused:
        # A default that is no good here may be given; what the model made of a given value is its own matter.
        if not any(re.split(r"[.\[]", problem.field)[0] in given for problem in refused.errors):
            raise
        raise ContractViolationError(
            f"parameters_schema {model.__name__}: expected it to read again what it writes; as it wrote them, {refused}"
        ) from refused


def _as_json(checked: BaseModel) -> dict[str, Any]:
    """What is kept.

    Raises:
        ParameterErrors: It holds what JSON has no value for, such as a number that became infinite.
    """
    written = checked.model_dump(mode="json", warnings=False)
    found = [
        ParameterError(shown_path(problem.path), problem.expected, problem.found)
        for name, value in written.items()
        for problem in find_json_problems(value, name)
    ]
    if found:
        raise ParameterErrors(found)
    ordered: dict[str, Any] = _ordered(checked.model_dump(warnings=False), written)
    return ordered


def _ordered(value: Any, written: Any) -> Any:
    """What was written of a value, sets in an order: theirs is another one in each process, and so were the job id."""
    if isinstance(value, AbstractSet) and isinstance(written, list):
        return sorted(written, key=canonical_json)
    if isinstance(value, dict) and isinstance(written, dict) and len(value) == len(written):
        return {name: _ordered(each, written[name]) for each, name in zip(value.values(), written, strict=True)}
    if isinstance(value, list | tuple) and isinstance(written, list) and len(value) == len(written):
        return [_ordered(*pair) for pair in zip(value, written, strict=True)]
    return written


def _extra_of(model: type[BaseModel]) -> Any:
    return None if model.model_config.get("extra") == "allow" else "forbid"
