"""Calls functions through Microsoft's own runtime library (`azure-functions-runtime`, Python 3.13 and later).

It is the library that runs inside the production worker; its `native_invocation` takes and returns plain Python values.
Neither it nor the loading protocol is a documented interface, so this adapter is all that knows them, and its use is to
show that `PortableInvoker` gives functions the same arguments and returns the same results.

One app per process: the library keeps its functions in module globals.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import uuid
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from azure.functions.meta import Datum

from coremachine.local.host.app_loading import SCRIPT_SETTING, USUAL_SCRIPT
from coremachine.local.host.errors import AppLoadError, HostError
from coremachine.local.host.invoker import Call, InputSource, OutputSink, split_outputs
from coremachine.local.host.signature import RETURN

_SUCCESS = 1


class MsInvocationError(HostError):
    """A function raised inside Microsoft's runtime, which reports the error as text."""

    def __init__(self, error: str, trace: str) -> None:
        super().__init__(error)
        self.error = error
        self.trace = trace


class _Message(SimpleNamespace):
    """Replaces any protobuf message: keeps its fields and has no behaviour."""


class _StatusResult(_Message):
    Failure, Success = 0, _SUCCESS


class _BindingInfo(_Message):
    undefined, out, inout = 0, 1, 2


class _Protos:
    """The library builds its answers from whatever module of message classes it is given."""

    StatusResult = _StatusResult
    BindingInfo = _BindingInfo

    def __getattr__(self, name: str) -> type[_Message]:
        return _Message


class MsRuntimeInvoker:
    """An `Invoker` on Microsoft's runtime; all functions run on, or are awaited by, the loop that created it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runtime: Any,
        native: Any,
        sink: OutputSink | None = None,
        source: InputSource | None = None,
    ) -> None:
        self._sink = sink
        self._source = source
        self._loop = loop
        self._runtime = runtime
        self._native = native

    @classmethod
    async def create(
        cls, app_dir: Path, sink: OutputSink | None = None, source: InputSource | None = None
    ) -> MsRuntimeInvoker:
        """Load the app in app_dir anew, also where it has been indexed in this process before.

        Raises:
            AppLoadError: the library is not installed, or does not accept the app.
        """
        try:
            runtime = importlib.import_module("azure_functions_runtime")
            native = importlib.import_module("azure_functions_runtime.native_invocation")
        except ImportError as exc:
            raise AppLoadError("azure-functions-runtime 1.3 or later is not installed; it needs Python 3.13") from exc
        if str(app_dir) not in sys.path:
            sys.path.insert(0, str(app_dir))
        sys.modules.pop(Path(os.environ.get(SCRIPT_SETTING) or USUAL_SCRIPT).stem, None)
        runtime.start_threadpool_executor()
        init = SimpleNamespace(capabilities={}, function_app_directory=str(app_dir))
        request = SimpleNamespace(
            request=SimpleNamespace(worker_init_request=init),
            properties={"protos": _Protos(), "host": "127.0.0.1"},
        )
        response = await runtime.worker_init_request(request)
        if response.result.status != _SUCCESS:
            raise AppLoadError(f"Microsoft's runtime cannot load {app_dir}: {response.result.exception}")
        return cls(asyncio.get_running_loop(), runtime, native, sink, source)

    async def raw_bindings(self) -> dict[str, list[str]]:
        """The bindings of every function as the runtime would report them to the host, in JSON."""
        response = await self._runtime.functions_metadata_request(None)
        return {function.name: list(function.raw_bindings) for function in response.function_metadata_results}

    def submit(self, call: Call) -> Future[Datum | None]:
        return asyncio.run_coroutine_threadsafe(self._invoke(call), self._loop)

    def close(self) -> None:
        self._runtime.stop_threadpool_executor()

    def _inputs(self, call: Call) -> list[tuple[str, Datum]]:
        wanted = call.function.inputs if self._source is not None else {}
        return [(name, self._source.get(call, one)) for name, one in wanted.items() if self._source is not None]

    async def _invoke(self, call: Call) -> Datum | None:
        succeeded, returned, outputs, error, trace = await self._native.invocation_request_native(
            call.invocation_id,
            str(uuid.uuid5(uuid.NAMESPACE_OID, call.function.name)),
            [(call.function.trigger_parameter, call.data), *self._inputs(call)],
            call.metadata,
            trace_parent=call.trace_parent,
            trace_state=call.trace_state,
            retry_count=call.retrying.count,
            max_retry_count=call.retrying.limit,
        )
        if not succeeded:
            raise MsInvocationError(error, trace)
        # A function that returns nothing may come back as a datum without a value.
        data = dict(outputs) | ({} if returned is None or returned.type is None else {RETURN: returned})
        response, others = split_outputs(call.function, data)
        if others and self._sink is not None:
            self._sink.put(call, others)
        return response
