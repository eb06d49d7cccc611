"""Calls a function with the arguments that the real worker would build from what the real host sends.

The seam is `Invoker`. `PortableInvoker` uses the converters of the public `azure.functions` package, on any Python;
`coremachine.local.host.ms_runtime.MsRuntimeInvoker` uses Microsoft's own runtime library (Python 3.13 and later).
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import azure.functions as func
from azure.functions.meta import Datum

from coremachine.local.host.converters import converter_of
from coremachine.local.host.forks import ends_children
from coremachine.local.host.functions import HTTP, IndexedFunction


@dataclass(frozen=True)
class Call:
    """One invocation: the trigger's datum and its metadata, in the shapes that the host's protocol has."""

    function: IndexedFunction
    data: Datum
    metadata: Mapping[str, Datum]
    trace_parent: str = ""
    trace_state: str = ""
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Invoker(Protocol):
    """Runs calls; the future carries the encoded `$return` value (or None), or what the function raised."""

    def submit(self, call: Call) -> Future[Datum | None]:
        """Start the call. May be used from any thread."""
        ...

    def close(self) -> None:
        """Give up the threads; calls that still run are not waited for."""
        ...


@dataclass(frozen=True)
class _Trace:
    """`azure.functions.TraceContext` by shape."""

    trace_parent: str
    trace_state: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class _Retry:
    """`azure.functions.RetryContext` by shape: Service Bus has no retry policy, so it is empty."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: None = None


class InvocationContext(func.Context):
    """What a `context: func.Context` parameter receives."""

    def __init__(self, call: Call, storage: threading.local) -> None:
        self._call = call
        self._storage = storage
        self._trace = _Trace(call.trace_parent, call.trace_state, {})

    @property
    def invocation_id(self) -> str:
        return self._call.invocation_id

    @property
    def thread_local_storage(self) -> Any:
        return self._storage

    @property
    def function_name(self) -> str:
        return self._call.function.name

    @property
    def function_directory(self) -> str:
        return str(self._call.function.directory)

    @property
    def trace_context(self) -> Any:
        return self._trace

    @property
    def retry_context(self) -> Any:
        return _Retry()


class PortableInvoker:
    """Public converters; async functions on the given loop, the others in a thread pool."""

    def __init__(self, loop: asyncio.AbstractEventLoop, environment: Mapping[str, str]) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself does not keep them
        self._pool = ThreadPoolExecutor(thread_count(environment), thread_name_prefix="function")
        self._storage = threading.local()

    def submit(self, call: Call) -> Future[Datum | None]:
        if not call.function.is_async:
            return self._pool.submit(self._run_sync, call)
        if not _is_inside(self._loop):
            return asyncio.run_coroutine_threadsafe(self._run_async(call), self._loop)
        # As that does, without waking the loop from outside twice.
        outcome: Future[Datum | None] = Future()
        task = self._loop.create_task(self._run_into(outcome, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return outcome

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run_sync(self, call: Call) -> Datum | None:
        self._storage.invocation_id = call.invocation_id
        with ends_children():
            returned = call.function.handler(**self._arguments(call))
        return self._encode(call, returned)

    async def _run_async(self, call: Call) -> Datum | None:
        self._storage.invocation_id = call.invocation_id
        coroutine: Coroutine[Any, Any, Any] = call.function.handler(**self._arguments(call))
        with ends_children():
            returned = await coroutine
        return self._encode(call, returned)

    async def _run_into(self, outcome: Future[Datum | None], call: Call) -> None:
        try:
            returned = await self._run_async(call)
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is asked for
            outcome.set_exception(error)
        else:
            outcome.set_result(returned)

    def _arguments(self, call: Call) -> dict[str, Any]:
        function = call.function
        if function.wants_raw:
            value: Any = call.data.python_value
        else:
            converter = converter_of(function.trigger_type)
            value = converter.decode(call.data, trigger_metadata=call.metadata)
        arguments = {function.trigger_parameter: value}
        if function.context_parameter is not None:
            arguments[function.context_parameter] = InvocationContext(call, self._storage)
        return arguments

    def _encode(self, call: Call, returned: Any) -> Datum | None:
        if returned is None:
            return None
        if not call.function.has_return:
            raise RuntimeError(f"function {call.function.name!r} without a $return binding returned a non-None value")
        if call.function.trigger_type != HTTP:
            return None
        datum: Datum = converter_of("http").encode(returned, expected_type=None)
        return datum


def _is_inside(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # a thread without a loop
        return False


def thread_count(environment: Mapping[str, str]) -> int:
    """PYTHON_THREADPOOL_THREAD_COUNT, else the default of the executor: min(32, processors + 4)."""
    configured = environment.get("PYTHON_THREADPOOL_THREAD_COUNT", "")
    return int(configured) if configured.isdigit() and int(configured) > 0 else min(32, (os.cpu_count() or 1) + 4)
