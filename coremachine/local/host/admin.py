"""The administration endpoints: state of the host, list of functions, running one by hand."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from azure.functions.meta import Datum

from coremachine.local.host.blob_pump import blob_call
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.functions import (
    AppIndex,
    BlobTrigger,
    HttpTrigger,
    IndexedFunction,
    QueueTrigger,
    ServiceBusTrigger,
    TimerTrigger,
)
from coremachine.local.host.http import Request, Response, http_call, json_response
from coremachine.local.host.invoker import Call
from coremachine.local.host.key_api import KeyApi
from coremachine.local.host.key_store import KeyStore
from coremachine.local.host.message_calls import manual_call
from coremachine.local.host.storage import Storage
from coremachine.local.host.storage_pump import queue_call
from coremachine.local.host.timer import timer_call
from coremachine.local.problem import Problem

_VERSION = "4.0.0-local"


class AdminApi:
    """Answers requests below /admin."""

    def __init__(self, index: AppIndex, dispatcher: Dispatcher, storage: Storage, keys: KeyStore | None) -> None:
        self._index = index
        self._keys = None if keys is None else KeyApi(keys)
        self._storage = storage
        self._dispatcher = dispatcher
        self._instance_id = uuid.uuid4().hex
        self._started = time.monotonic()

    async def __call__(self, request: Request) -> Response | None:
        """The answer, or None where there is no such endpoint."""
        parts = request.path.strip("/").split("/")[1:]
        match request.method, [part.lower() for part in parts[:2]], len(parts):
            case "GET", ["host", "status"], 2:
                return json_response(200, self._status())
            case "GET" | "POST", ["host", "ping"], 2:
                return Response(200)
            case "GET", ["functions"], 1:
                return json_response(200, [self._describe(function) for function in self._index.functions.values()])
            case "GET", ["functions", _], 2:
                function = self._find(parts[1])
                return json_response(200, self._describe(function)) if function else None
            case "POST", ["functions", _], 2:
                function = self._find(parts[1])
                return await self._run(function, request) if function else None
        return self._answer_keys(request, parts)

    def _answer_keys(self, request: Request, parts: Sequence[str]) -> Response | None:
        """Where no keys are asked for, there are none."""
        match [part.lower() for part in parts]:
            case ["host", _, *_] if self._keys is not None:
                return self._keys.answer_host(request, parts[1:])
            case ["functions", _, "keys", *_] if self._keys is not None and (function := self._find(parts[1])):
                return self._keys.answer_function(request, function.name, parts[3:])
        return None

    def _find(self, name: str) -> IndexedFunction | None:
        return next((f for f in self._index.functions.values() if f.name.lower() == name.lower()), None)

    def _status(self) -> dict[str, Any]:
        return {
            "id": self._instance_id[:16],
            "instanceId": self._instance_id,
            "state": "Running",
            "version": _VERSION,
            "processUptime": int((time.monotonic() - self._started) * 1000),
            "errors": [str(error) for error in self._index.errors] or None,
        }

    def _describe(self, function: IndexedFunction) -> dict[str, Any]:
        return {
            "name": function.name,
            "language": "python",
            "isDisabled": False,
            "config": {"bindings": list(function.raw_bindings), "functionDirectory": str(function.directory)},
        }

    async def _run(self, function: IndexedFunction, request: Request) -> Response:
        """Start the function with `{"input": "..."}` as its trigger's data; it goes on after the answer."""
        try:
            document = json.loads(request.body) if request.body else {}
        except ValueError:
            document = None
        text = document.get("input", "") if isinstance(document, dict) else None
        if not isinstance(text, str):
            detail = 'Expected a JSON object such as {"input": "text"}.'
            return Response.of(Problem(400, "invalid_input", detail), request.path)
        if isinstance(function.trigger, BlobTrigger):
            call = await asyncio.to_thread(self._blob_call, function, function.trigger, text)
            if call is None:
                container = function.trigger.pattern.container
                detail = f"Expected the path of a blob such as {container}/name as input, found no blob at {text!r}."
                return Response.of(Problem(400, "invalid_input", detail), request.path)
        else:
            call = self._call(function, text, request)
        self._dispatcher.submit(call, "run by hand")
        return Response(202)

    def _blob_call(self, function: IndexedFunction, trigger: BlobTrigger, path: str) -> Call | None:
        container, _, name = path.partition("/")
        if container != trigger.pattern.container or not name:
            return None
        with self._storage.open_blobs(trigger.connection) as client:
            found = blob_call(function, trigger, client, name)
        return None if found is None else found[1]

    @staticmethod
    def _call(function: IndexedFunction, text: str, request: Request) -> Call:
        if isinstance(function.trigger, TimerTrigger):
            return timer_call(function)
        if isinstance(function.trigger, HttpTrigger):
            stand_in = Request("POST", request.path, request.url, request.headers, {}, text.encode())
            return http_call(function, stand_in, {})
        if isinstance(function.trigger, QueueTrigger):
            return queue_call(function, text, {"QueueTrigger": Datum(text, "string")})
        if isinstance(function.trigger, ServiceBusTrigger):
            return manual_call(function, function.trigger, text)
        raise TypeError(f"expected a trigger that text can start, found {type(function.trigger).__name__}")
