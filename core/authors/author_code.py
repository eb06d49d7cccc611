"""The boundary to an author's code: what handlers, planners, finalizers and validators do is a value or our error.

Everything that touches what an author made runs inside: the call, the steps of a generator, the look into a mapping
that was returned. Outside of it nothing of the author's is called any more.

Each call has a copy of the context: what it sets there (a ContextVar, the precision of `decimal`, a tracer's current
span) is not seen by the next call in the same thread, which may be of another job.
"""

import gc
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, ContextVar, copy_context
from decimal import getcontext, setcontext
from gc import isenabled
from sys import getprofile, getrecursionlimit, getswitchinterval, gettrace
from threading import stack_size
from typing import Any, ParamSpec, TypeVar

from core.authors import forks
from core.basics.canonical import NotJson, ValueTooLarge, describe, encode_storable, plain_copy
from core.basics.strict_json import EncodedJson
from core.errors import AuthorError, ContractViolationError, Failure, StoreUnavailable, classify
from core.models import TaskResult
from core.safety.log_guard import log_guard
from core.safety.safe_text import repr_of, text_of, type_name

P = ParamSpec("P")
T = TypeVar("T")

# The largest number of tasks of a stage: an endless generator ends here, before the memory does.
MOST_TASKS = 1_000_000
# Items that come quickly are read together, so that what surrounds a call is done once for them.
READ_SECONDS = 0.001
_END = object()
# What the engine's own calls need; a handler that lowers it would break every request and message of its process.
_FEWEST_FRAMES = getrecursionlimit()
# What a new thread would have.
_DECIMALS = copy_context().run(getcontext).copy()
# What these modules hold, read without their functions, and where an author deleted it: that is twice for each call.
_threading, _sys = vars(threading), vars(sys)


class _Outage(BaseException):
    """The engine's own database was away while an author's code read results from it.

    No Exception: an author who catches these would take it for the end of the results.
    """

    def __init__(self, error: StoreUnavailable) -> None:
        super().__init__(error)
        self.error = error


# Outages that a call of an author's code met, whatever that code made of them.
_met: ContextVar[list[StoreUnavailable]] = ContextVar("met")


def read_once(items: Iterable[T]) -> Iterator[T]:
    """Results as an author's code reads them: once, in order, whether they are in memory or in the database.

    An outage of the database passes `call_author` as what it is. Every other StoreUnavailable is the author's own.
    """
    read = iter(items)
    while True:
        try:
            item = next(read, _END)
        except StoreUnavailable as error:
            if (met := _met.get(None)) is not None:
                met.append(error)
            raise _Outage(error) from error
        if item is _END:
            return
        yield item  # type: ignore[misc]


def call_author(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an author's code, or ours that looks at what an author made. A child that it forks ends here.

    Raises:
        AuthorError: It raised something, SystemExit and KeyboardInterrupt among it.
        StoreUnavailable: Earlier results were being read (`read_once`), and the database is away.
    """
    with log_guard:
        return call_guarded(function, *args, **kwargs)


def call_guarded(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `call_author`, where `log_guard` was entered: once for many calls."""
    process, trace, profile = forks.process, gettrace(), getprofile()
    # What a call may leave for all others, and for threads that the engine starts: a hook that raises ends them.
    hook, gauge = _threading.get("_trace_hook"), _threading.get("_profile_hook")
    uncaught, uncaught_anywhere = _threading.get("excepthook"), _sys.get("excepthook")
    collects, interval, stack = isenabled(), getswitchinterval(), stack_size()
    context, met = _own_context()
    try:
        try:
            returned = context.run(function, *args, **kwargs)
        finally:
            log_guard.release_locks()
            # In here, since a profiler that raises does so at the next call. Python drops it then.
            try:
                if getprofile() is not profile:
                    sys.setprofile(profile if callable(profile) else None)  # that of cProfile is its own matter
            finally:
                if gettrace() is not trace:
                    sys.settrace(trace)
    except BaseException as error:  # noqa: BLE001 - whatever it is, its failure is raised below
        _tidy(hook, gauge, uncaught, uncaught_anywhere, collects, interval, stack)
        if forks.process is not process:
            forks.end_forked_child(error)
        if met or type(error) is _Outage:
            raise _outage_of(error, met) from None
        failure = classify(error)
    else:
        if forks.process is not process:
            forks.end_forked_child()
        if (
            _threading.get("_trace_hook") is not hook
            or _threading.get("_profile_hook") is not gauge
            or _threading.get("excepthook") is not uncaught
            or _sys.get("excepthook") is not uncaught_anywhere
            or isenabled() is not collects
            or getswitchinterval() != interval
            or stack_size() != stack
            or getrecursionlimit() < _FEWEST_FRAMES
        ):
            _tidy(hook, gauge, uncaught, uncaught_anywhere, collects, interval, stack)
        if met:
            # It went on with the results that it had, as after a bare `except:`.
            raise met[0]
        return returned
    # Out here, so that it has no context: what was raised would hold on to all that its frames held.
    raise AuthorError(failure)


def _outage_of(error: BaseException, met: list[StoreUnavailable]) -> StoreUnavailable:
    # A thread of the author's own has another context.
    return error.error if isinstance(error, _Outage) else met[0]


def _own_context() -> tuple[Context, list[StoreUnavailable]]:
    """For one call, with the outages that it will have met."""
    context = copy_context()
    # One of `decimal` is changed where it is: a copy of all others would share it.
    context.run(setcontext, _DECIMALS.copy())
    met: list[StoreUnavailable] = []
    context.run(_met.set, met)
    return context, met


def author_items(
    what: str, read: Callable[[int, Any], T], function: Callable[P, object], *args: P.args, **kwargs: P.kwargs
) -> Iterator[T]:
    """What an author's function returns, one by one. Some are read ahead; an error among those comes before them.

    Args:
        what: Names it in messages.
        read: Looks at an item and its place, still inside of the boundary.

    Raises:
        AuthorError, StoreUnavailable: As `call_author`, at the first item or any other.
    """
    # One for all steps of a generator, which is one call to its author.
    context, met = _own_context()
    count, has_ended = 0, False
    with log_guard:
        items = _call_in(context, met, _iterator, what, function, *args, **kwargs)
        while not has_ended:
            some, has_ended = _call_in(context, met, _read_some, items, read, count)
            count += len(some)
            if count > MOST_TASKS:
                raise AuthorError(_too_many(what, f"more; the generator of {what} may have no end, or split the job"))
            yield from some


def _call_in(context: Context, met: list[StoreUnavailable], function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """One of several calls in a context of their own."""
    in_context: Callable[..., T] = context.run
    try:
        returned = call_guarded(in_context, function, *args, **kwargs)
    except AuthorError:
        if met:
            raise met[0] from None
        raise
    if met:
        raise met[0]
    return returned


def refusal(message: str) -> Failure:
    """What is stored where an author's code gave something that it must not."""
    return Failure(ContractViolationError.__name__, message, retryable=False)


def _too_many(what: str, found: str) -> Failure:
    return refusal(f"{what}: expected at most {MOST_TASKS:,} tasks, found {found}")


def describe_returned(value: object) -> str:
    """What a function returned, where it must be something else; a coroutine is closed, since nobody awaits it."""
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine; write an ordinary function (def, not async def), and asyncio.run(...) in it if it must be"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator, of which nothing has run; return the value, do not yield it"
    return f"{type_name(value)} {repr_of(value)}"


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
        own = returned if type(returned) is dict else plain_copy(returned, "result", most_bytes=most_bytes)
        success = own.get("success", True)
        if success is not True and _is_told_failure(task_type, own, success):
            return _told_failure(own)
        return encode_storable(own, "result", most_bytes=most_bytes)
    except (NotJson, ValueTooLarge) as problem:
        raise ContractViolationError(f"handler of {task_type!r}: {text_of(problem)}") from problem


def _tidy(
    trace: Any,
    profile: Any,
    uncaught: Any,
    uncaught_anywhere: Any,
    collects: bool,  # noqa: FBT001 - as Python gives it
    interval: float,
    stack: int,
) -> None:
    """Undo what a call left for all others.

    Without the collector memory grows; where threads seldom take turns, heartbeats are late. A higher limit of
    recursion stays: other calls may need it.
    """
    if collects and not isenabled():
        gc.enable()
    sys.setswitchinterval(min(getswitchinterval(), interval))
    sys.setrecursionlimit(max(getrecursionlimit(), _FEWEST_FRAMES))
    threading.settrace(trace)
    threading.setprofile(profile)
    # Without either, no thread can be made; nor with stacks that the system does not give.
    threading.excepthook = uncaught or threading.__excepthook__
    sys.excepthook = uncaught_anywhere or sys.__excepthook__
    stack_size(stack)


def _read_some(items: Iterator[object], read: Callable[[int, Any], T], place: int) -> tuple[list[T], bool]:
    """The next item and those that come soon after it, and whether there are no others."""
    some: list[T] = []
    until = time.perf_counter() + READ_SECONDS
    for item in items:
        some.append(read(place + len(some), item))
        if time.perf_counter() >= until:
            return some, False
    return some, True


def _iterator(what: str, function: Callable[..., object], *args: Any, **kwargs: Any) -> Iterator[object]:
    returned = function(*args, **kwargs)
    # Before a million of them are written, only to be taken back.
    if isinstance(returned, list | tuple | set | frozenset) and len(returned) > MOST_TASKS:
        raise AuthorError(_too_many(what, f"{len(returned):,}; split the job"))
    try:
        return iter(returned)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        found = describe_returned(returned)
        raise ContractViolationError(f"{what}: expected an iterable of TaskDefinition, found {found}") from error


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
        note = f" [retryable: expected true or false, found {describe(retryable)}; not retried]"
    return Failure(
        error_type=text_of(returned.get("error_type") or "TaskError"),
        message=text_of(message) + note,
        retryable=retryable is None or retryable is True,
        retry_after_seconds=returned.get("retry_after_seconds"),
    )
