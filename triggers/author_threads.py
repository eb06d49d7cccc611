"""Runs what calls a job class's own code for a request: so that one which hangs keeps no other request waiting.

Validation, the job's id and the tasks of a dry run are any author's code. Each job type has a share of threads for
that beside those of all other requests; a request that finds no thread of its type's share free is refused for now.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from triggers.ports import ApiServices
from triggers.problems import RETRY_AFTER_SECONDS, ProblemError

T = TypeVar("T")

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
    # Unknown names share one, so that names which somebody makes up do not stay here.
    key = job_type if job_type in services.registry.job_types else ""
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
        detail = (
            f"Expected a free thread for job type {job_type!r} within {WAIT_SECONDS:g} s, found that all {SHARE} run "
            "its code: its validation takes long or hangs. Nothing was written; send it again later."
        )
        raise ProblemError(503, "job_type_busy", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}) from error
