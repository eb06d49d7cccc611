"""The HTTP API as the Functions host calls it, made at the first request."""

import functools

import azure.functions as func

from triggers.api import create_api
from triggers.ports import ApiServices, ServicesNotReady
from triggers.services import get_services


@functools.cache
def http_middleware(problems: tuple[str, ...]) -> func.AsgiMiddleware:
    """The API behind the host's requests; one whose every answer says why, when the settings have problems."""

    def refuse() -> ApiServices:
        raise ServicesNotReady("; ".join(problems))

    return func.AsgiMiddleware(create_api(refuse if problems else get_services))
