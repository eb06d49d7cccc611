"""Stages as typed objects, and what of a declaration may be left out."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

from core.basics.keywords import constructor_suggests_names
from core.models.definition import FailurePolicy, RetryPolicy
from core.models.limit import Limit


@constructor_suggests_names
@dataclass(frozen=True)
class Stage:
    """An entry of `stages`; the same keys as a dict, checked when the job class is made.

    Args:
        name: A name for people; the task type too, unless that is given.
        parallelism: With `over`, a stage after the first is `fan_out`; without, a stage is `single`.
        limits: Limits that its tasks share with others, each by its name alone or as a `Limit`.
        failure: Also only the word for `on_failure`, or only a limit, which means that it tolerates.
        number: The place in the list, from 1.
    """

    name: str
    parallelism: Literal["single", "fan_out", "fan_in"] | None = None
    _: KW_ONLY
    task_type: str | None = None
    over: str | None = None
    name_from: str | None = None
    retry: RetryPolicy | Mapping[str, Any] | None = None
    failure: FailurePolicy | Mapping[str, Any] | Literal["fail_job", "continue"] | None = None
    description: str | None = None
    queue: str | None = None
    tasks_per_message: int | None = None
    max_parallel: int | None = None
    limits: Sequence[Limit | Mapping[str, Any] | str] | None = None
    lease_seconds: float | None = None
    max_interruptions: int | None = None
    task_timeout_seconds: float | None = None
    timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None
    number: int | None = None


def stage_values(stage: object, place: int) -> object:
    """The keys of a stage that is declared as an object; what is declared in another way, as it is.

    Args:
        place: Its place in the list, from 0.
    """
    if not isinstance(stage, Stage):
        return stage
    given = {field.name: getattr(stage, field.name) for field in fields(stage)}
    declared = {name: value for name, value in given.items() if value is not None}
    parallelism = "fan_out" if stage.over is not None and place > 0 else "single"
    declared |= {} if stage.failure is None else {"failure": _failure_values(stage.failure)}
    return {"number": place + 1, "task_type": stage.name, "parallelism": parallelism, **declared}


def _failure_values(failure: object) -> object:
    if isinstance(failure, str):
        return {"on_failure": failure}
    has_limit = isinstance(failure, Mapping) and not {"max_failed", "max_failed_percent"}.isdisjoint(failure)
    return {"on_failure": "tolerate", **failure} if has_limit and isinstance(failure, Mapping) else failure
