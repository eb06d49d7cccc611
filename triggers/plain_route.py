"""A shorter way to an endpoint for the requests that most clients send.

FastAPI resolves each parameter by itself and tries the answer against its model; that takes several times as long as a
simple request needs. Here the endpoint says which requests are plain and reads their arguments; all others, and so all
that could be refused for their path, query or headers, take FastAPI's way. Documentation, routing and the handling of
errors are FastAPI's for both.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

# An endpoint's arguments, without its `request` and `response`; None for a request that is not plain.
ReadArguments = Callable[[Request], Awaitable[dict[str, Any] | None]]


def plain_route(read_arguments: ReadArguments) -> type[APIRoute]:
    """The class of a route whose endpoint takes `request` and `response` and returns a model."""

    class PlainRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer_any = super().get_route_handler()
            endpoint, status = self.endpoint, self.status_code or 200
            is_async = inspect.iscoroutinefunction(endpoint)

            async def answer(request: Request) -> Response:
                arguments = await read_arguments(request)
                if arguments is None:
                    return await answer_any(request)
                said = Response()
                del said.headers["content-length"]
                arguments.update(request=request, response=said)
                model = await (endpoint(**arguments) if is_async else run_in_threadpool(endpoint, **arguments))
                body = model.model_dump_json(by_alias=True)
                return Response(body, status, headers=dict(said.headers), media_type="application/json")

            return answer

    return PlainRoute
