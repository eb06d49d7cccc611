"""The HTTP API as the Functions host calls it, made at the first request."""

import functools

import azure.functions as func

from triggers.api import create_api
from triggers.ports import ApiServices, ServicesNotReady
from triggers.services import get_services


async def answer(request: func.HttpRequest, context: func.Context, *, problems: tuple[str, ...]) -> func.HttpResponse:
    """The API's answer; it says why the app cannot work when the settings have problems."""
    response: func.HttpResponse = await _middleware(problems).handle_async(request, context)
    return response


@functools.cache
def _middleware(problems: tuple[str, ...]) -> func.AsgiMiddleware:
    def refuse() -> ApiServices:
        raise ServicesNotReady("; ".join(problems))

    return func.AsgiMiddleware(create_api(refuse if problems else get_services))  # type: ignore[no-untyped-call]
