"""The person or app behind a request, as App Service's authentication found it; never what a client wrote itself."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request

from core.safety.safe_text import storable_text

# The first that is there: a person's name; the id of an app, which has no name.
_HEADERS = ("x-ms-client-principal-name", "x-ms-client-principal-id")
_LONGEST_NAME = 320


def is_authentication_on(environment: Mapping[str, str]) -> bool:
    """Whether App Service's authentication is on: only then it removes headers that clients write themselves."""
    return environment.get("WEBSITE_AUTH_ENABLED", "").strip().lower() in {"true", "1"}


def find_actor(request: Request) -> str | None:
    """The principal's name, else that of the key with which it came, or None where nobody vouches for one."""
    name: str | None = getattr(request.state, "key_name", None)
    if request.app.state.trusts_principal:
        name = next((request.headers[header] for header in _HEADERS if request.headers.get(header)), name)
    return storable_text(name)[:_LONGEST_NAME] if name else None


async def _find_actor(request: Request) -> str | None:  # async, so that it needs no thread
    return find_actor(request)


Actor = Annotated[str | None, Depends(_find_actor)]
