"""What a task handler is handed beside its parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core.basics.canonical import copied
from core.errors import TaskCancelled, TaskTimedOut
from core.safety.safe_text import bounded_text, text_of

_LONGEST_PROGRESS = 4096


def _never() -> bool:
    return False


class _OwnCopy:
    """A field that gives its reader a copy of what it was set to: made when it is first read, since few attempts do."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._given = name, f"_given_{name}"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(self._name)  # so that the field has no default
        held = vars(instance)
        if self._name not in held:
            held[self._name] = copied(held[self._given])
        return held[self._name]

    def __set__(self, instance: object, value: object) -> None:
        vars(instance)[self._given] = value


@dataclass(frozen=True)
class TaskContext:
    """One attempt at one task.

    Args:
        job_parameters: The job's validated parameters; a task's own parameters hold only what differs. The attempt's
            own copy: nobody else sees what is changed in it.
        attempt: From 1; counts interrupted attempts too.
        lease_id: This attempt's own, made from the row's `lease_id` and the task's index; a name for what it writes
            that no other attempt has, of this task or of another.
    """

    job_id: str
    job_type: str
    stage: int
    task_id: str
    task_index: int
    attempt: int
    # Other tasks hold the same value.
    job_parameters: Mapping[str, Any] = _OwnCopy()  # type: ignore[assignment]
    correlation_id: str | None = None
    lease_id: UUID | None = None
    _report: Callable[[Mapping[str, Any]], None] | None = field(default=None, repr=False)
    _stop_requested: Callable[[], bool] = field(default=_never, repr=False)
    _timed_out: Callable[[], bool] = field(default=_never, repr=False)
    _timeout_seconds: float | None = field(default=None, repr=False)

    def progress(self, percent: float, message: str | None = None) -> None:
        """Say how far the work is; the next heartbeat stores it.

        Args:
            percent: 0 to 100.
            message: At most 4 KB of it are kept.
        """
        # Plain values: one that could not be stored would keep all leases of the process from being renewed.
        number = percent if type(percent) in {int, float} else float(percent)
        if not 0 <= number <= 100:  # noqa: PLR2004 - a percentage
            raise ValueError(f"percent: expected 0 to 100, found {number}")
        text = None if message is None else bounded_text(text_of(message), _LONGEST_PROGRESS)
        if self._report is not None:
            self._report({"percent": number, "message": text})

    @property
    def is_cancelled(self) -> bool:
        """Whether `check_cancelled` would raise, for code that cannot be left by an exception."""
        return self._timed_out() or self._stop_requested()

    def check_cancelled(self) -> None:
        """Call it now and then in long work.

        Raises:
            TaskCancelled: The job was cancelled or ended, or another attempt has this task: stop, nothing is kept.
            TaskTimedOut: A TaskCancelled too: this attempt has run longer than its stage allows. Stop; it has failed,
                and another follows if the stage's retries allow it.
        """
        if self._timed_out():
            limit = "" if self._timeout_seconds is None else f"{self._timeout_seconds:g} s, "
            raise TaskTimedOut(
                f"attempt {self.attempt} of task {self.task_id} ran longer than {limit}the task_timeout_seconds of its "
                f"stage {self.stage}"
            )
        if self._stop_requested():
            raise TaskCancelled(f"task {self.task_id} of job {self.job_id} is not wanted any more")
