"""A typed client of the HTTP API, for programs: `Client`, and `AsyncClient` for those that await.

    with Client("https://jobs.example.org", key=...) as client:
        job = client.submit_job("hello_world", {"n": 3})
        print(client.wait_for_job(job.job_id).result)

It needs the extra `client` (httpx). A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coremachine.client.clients import AsyncClient, AsyncListing, Client, Listing
    from coremachine.client.errors import (
        ApiProblem,
        ClientError,
        Conflict,
        Forbidden,
        InvalidRequest,
        NotFound,
        ServerFault,
        ServerUnreachable,
        Throttled,
        Unauthorized,
        Unavailable,
        UnexpectedAnswer,
        WaitTimeout,
        WrongArgument,
    )

__all__ = [
    "ApiProblem",
    "AsyncClient",
    "AsyncListing",
    "Client",
    "ClientError",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "Listing",
    "NotFound",
    "ServerFault",
    "ServerUnreachable",
    "Throttled",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "WaitTimeout",
    "WrongArgument",
]

_CLIENTS = frozenset({"AsyncClient", "AsyncListing", "Client", "Listing"})

if not TYPE_CHECKING:  # a type checker would take any name for one of this package

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{'clients' if name in _CLIENTS else 'errors'}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
