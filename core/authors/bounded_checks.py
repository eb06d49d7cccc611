"""A job class's own checks of parameters, for somebody who waits: given up after a time, so that nobody waits for ever.

What is declared has bounds of its own and runs where it is called. Code of an author's runs in a thread: one that hangs
remains, and writes nothing, since all that is written comes after it.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel

from core.authors.author_code import call_author
from core.basics.cache import LatestCache
from core.errors import HANGING_REMEDY, JobTypeBusy, SubmissionHangs
from core.ports import JobType

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CHECK_SECONDS = 20.0
# Of one job type in one process. Beyond it no other is begun: threads do not pile up.
MOST_HANGING = 8

# Whether the caller runs in a thread that is given up itself.
is_bounded: ContextVar[bool] = ContextVar("is_bounded", default=False)
_lock = threading.Lock()
_hanging: Counter[str] = Counter()
_known: LatestCache[str, tuple[JobType, bool]] = LatestCache(256)


def of_declarations(validate: F) -> F:
    """Mark a `validate_job_parameters` that runs nothing but what is declared."""
    validate.is_of_declarations = True  # type: ignore[attr-defined]
    return validate


def call_bounded(job_type: str, job_class: JobType, function: Callable[..., T], *args: Any) -> T:
    """As `call_author`, in a thread if the job class has checks of its own.

    Raises:
        SubmissionHangs: They took too long.
        JobTypeBusy: Too many of the job type hang.
        AuthorError: As there.
    """
    if is_bounded.get() or not _has_own_checks(job_type, job_class):
        return call_author(function, *args)
    if _hanging[job_type] >= MOST_HANGING:
        raise JobTypeBusy(
            f"expected fewer than {MOST_HANGING} validations of {job_type!r} that hang in this process, found "
            f"{_hanging[job_type]}; {HANGING_REMEDY}, and restart the app"
        )
    outcome: Future[T] = Future()
    run = copy_context().run

    def work() -> None:
        settle: Callable[[], None]
        try:
            settle = partial(outcome.set_result, run(call_author, function, *args))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            settle = partial(outcome.set_exception, error)
        # Not if it was given up: nobody reads it then.
        if outcome.set_running_or_notify_cancel():
            settle()
        else:
            with _lock:
                _hanging[job_type] -= 1

    try:
        threading.Thread(target=work, name="validation", daemon=True).start()
    except RuntimeError as error:
        raise JobTypeBusy(f"expected a thread for a validation of {job_type!r}, found none: {error}") from error
    # In two halves: where the whole process was stopped during one of them, the thread has the other.
    if not (wait([outcome], CHECK_SECONDS / 2).done or wait([outcome], CHECK_SECONDS / 2).done):
        with _lock:
            is_given_up = outcome.cancel()
            _hanging[job_type] += is_given_up
        if is_given_up:
            expected = f"parameters of {job_type!r} to be validated within {CHECK_SECONDS:g} s"
            raise SubmissionHangs(f"{expected}, found that it still runs")
    return outcome.result()


def _has_own_checks(job_type: str, job_class: JobType) -> bool:
    known = _known.get(job_type)
    if known is None or known[0] is not job_class:
        known = job_class, call_author(_find_own_checks, job_class)
        _known.put(job_type, known)
    return known[1]


def _find_own_checks(job_class: JobType) -> bool:
    if not getattr(job_class.validate_job_parameters, "is_of_declarations", False):
        return True
    schema = getattr(job_class, "parameters_schema", None)
    # A model's own validators, wherever in it; some of pydantic's own types have such, too.
    return (
        isinstance(schema, type)
        and issubclass(schema, BaseModel)
        and "'function-" in repr(schema.__pydantic_core_schema__)
    )
