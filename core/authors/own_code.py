"""Which methods of a job class run an author's own code, and calls of them for a request, which waits for them."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from core.authors.author_code import call_author
from core.authors.bounded_calls import for_requests, is_bounded
from core.basics.cache import LatestCache
from core.ports import JobType

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

VALIDATES = frozenset({"validate_job_parameters"})
MAKES_RECORD = frozenset({"create_job_record", "definition"})
DRAFTS = VALIDATES | MAKES_RECORD | {"generate_job_id"}
MAKES_MESSAGE = frozenset({"queue_job"})

_known: LatestCache[str, tuple[JobType, frozenset[str]]] = LatestCache(256)


def of_declarations(method: F) -> F:
    """Mark a method that runs nothing but what is declared."""
    method.is_of_declarations = True  # type: ignore[attr-defined]
    return method


def call_for_request(
    job_type: str, job_class: JobType, methods: frozenset[str], function: Callable[..., T], *args: Any
) -> T:
    """As `call_author`; given up after a time, if one of the methods that it calls is the author's own.

    Raises:
        SubmissionHangs: It took too long.
        JobTypeBusy: Too many of the job type hang.
        AuthorError: As there.
    """
    if is_bounded.get() or _own_methods(job_type, job_class).isdisjoint(methods):
        return call_author(function, *args)
    return for_requests.call(job_type, "submission", lambda _: call_author(function, *args))


def _own_methods(job_type: str, job_class: JobType) -> frozenset[str]:
    known = _known.get(job_type)
    if known is None or known[0] is not job_class:
        known = job_class, call_author(_find_own_methods, job_class)
        _known.put(job_type, known)
    return known[1]


def _find_own_methods(job_class: JobType) -> frozenset[str]:
    methods = {name: getattr(job_class, name, None) for name in DRAFTS | MAKES_MESSAGE}
    own = {name for name, method in methods.items() if not getattr(method, "is_of_declarations", method is None)}
    schema = getattr(job_class, "parameters_schema", None)
    # A model's own validators, wherever in it; some of pydantic's own types have such, too.
    if (
        isinstance(schema, type)
        and issubclass(schema, BaseModel)
        and "'function-" in repr(schema.__pydantic_core_schema__)
    ):
        own |= VALIDATES
    return frozenset(own)
