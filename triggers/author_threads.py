"""Runs what calls a job class's own code for a request: so that one which hangs keeps no other request waiting.

Validation, the job's id and the tasks of a dry run are any author's code. Each job type has a share of threads for
that beside those of all other requests, and requests that may be for several types have one; a request that finds no
thread of its share free is refused for now.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from triggers.ports import ApiServices
from triggers.problems import RETRY_AFTER_SECONDS, ProblemError

T = TypeVar("T")
P = ParamSpec("P")

# For each job type. As many as half of those that all other requests share.
SHARE = 20
# How long a request waits for one of them.
WAIT_SECONDS = 10.0
_shares: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, anyio.CapacityLimiter]] = WeakKeyDictionary()


async def run_of_type(services: ApiServices, job_type: str, call: Callable[[], T]) -> T:
    """Run it in a thread of the job type's share.

    Raises:
        ProblemError: 503, all of them were taken for `WAIT_SECONDS`.
    """
    # Names that somebody makes up do not stay here.
    return await _run_in_share(job_type if job_type in services.registry.job_types else "", call)


def calls_authors(endpoint: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Of an endpoint that may call the code of any job type: it runs in the share of those. Put it below the route."""

    @wraps(endpoint)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return await _run_in_share("", partial(endpoint, *args, **kwargs))

    return run


async def _run_in_share(key: str, call: Callable[[], T]) -> T:
    shares = _shares.setdefault(asyncio.get_running_loop(), {})
    share = shares.get(key)
    if share is None:
        share = shares[key] = anyio.CapacityLimiter(SHARE)
    token = object()
    try:
        share.acquire_on_behalf_of_nowait(token)
    except anyio.WouldBlock:
        await _wait_for(share, token, key)
    try:
        # A limiter of its own: the share is the limit, and the threads of all other requests stay theirs.
        return await anyio.to_thread.run_sync(call, limiter=anyio.CapacityLimiter(1))
    finally:
        share.release_on_behalf_of(token)


async def _wait_for(share: anyio.CapacityLimiter, token: object, job_type: str) -> None:
    try:
        with anyio.fail_after(WAIT_SECONDS):
            await share.acquire_on_behalf_of(token)
    except TimeoutError as error:
        whose = f"job type {job_type!r}" if job_type else "requests that call the code of job types"
        detail = (
            f"Expected a free thread for {whose} within {WAIT_SECONDS:g} s, found that all {SHARE} run "
            "its code: a validation takes long or hangs. Nothing was written; send it again later."
        )
        raise ProblemError(503, "job_type_busy", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}) from error
