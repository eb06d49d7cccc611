"""The boundary to an author's code: what handlers, planners, finalizers and validators do is a value or our error.

Everything that touches what an author made runs inside: the call, the steps of a generator, the look into a mapping
that was returned. Outside of it nothing of the author's is called any more.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from core.errors import AuthorError, ContractViolationError, Failure, StoreUnavailable, classify
from core.forks import ForkBoundary
from core.safe_text import repr_of, type_name

P = ParamSpec("P")
T = TypeVar("T")

# So many tasks at most has a stage: an endless generator ends here, and not with the memory.
MOST_TASKS = 1_000_000
_END = object()


def call_author(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an author's code, or ours that looks at what an author made. A child that it forks ends here.

    Raises:
        AuthorError: It raised something, SystemExit and KeyboardInterrupt among it.
        StoreUnavailable: Earlier results were being read, and the database is away.
    """
    try:
        with ForkBoundary():
            return function(*args, **kwargs)
    except StoreUnavailable:
        raise
    except BaseException as error:  # noqa: BLE001 - nothing of an author's may pass
        failure = classify(error)
    # Out here, so that it has no context: what was raised would hold on to all that its frames held.
    raise AuthorError(failure)


def author_items(what: str, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
    """What an author's function returns, one by one.

    Args:
        what: Names it in messages.

    Raises:
        AuthorError, StoreUnavailable: As `call_author`, at the first item or any other.
    """
    items = call_author(_iterator, what, function, *args, **kwargs)
    count = 0
    while (item := call_author(next, items, _END)) is not _END:
        count += 1
        if count > MOST_TASKS:
            found = f"more; the generator of {what} may have no end, or split the job"
            raise AuthorError(refusal(f"{what}: expected at most {MOST_TASKS:,} tasks, found {found}"))
        yield item


def refusal(message: str) -> Failure:
    """What is stored where an author's code gave something that it must not."""
    return Failure(ContractViolationError.__name__, message, retryable=False)


def describe_returned(value: object) -> str:
    """What a function returned, where it must be something else; a coroutine is closed, since nobody awaits it."""
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine; write an ordinary function (def, not async def), and asyncio.run(...) in it if it must be"
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        return "a generator, of which nothing has run; return the value, do not yield it"
    return f"{type_name(value)} {repr_of(value)}"


def _iterator(what: str, function: Callable[..., object], *args: Any, **kwargs: Any) -> Iterator[object]:
    returned = function(*args, **kwargs)
    try:
        return iter(returned)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        found = describe_returned(returned)
        raise ContractViolationError(f"{what}: expected an iterable of TaskDefinition, found {found}") from error
