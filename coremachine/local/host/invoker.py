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
from coremachine.local.host.functions import IndexedFunction, Input
from coremachine.local.host.logs import current_function
from coremachine.local.host.outputs import HttpTarget
from coremachine.local.host.retry import NOT_RETRIED, Retrying
from coremachine.local.host.signature import RETURN, BoundType


@dataclass(frozen=True)
class Call:
    """One invocation: the trigger's datum and its metadata, in the shapes that the host's protocol has."""

    function: IndexedFunction
    data: Datum
    metadata: Mapping[str, Datum]
    trace_parent: str = ""
    trace_state: str = ""
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    retrying: Retrying = NOT_RETRIED


class OutputSink(Protocol):
    """Takes what a function put into its output bindings. The invocation fails if it raises."""

    def put(self, call: Call, outputs: Mapping[str, Datum]) -> None:
        """Send each value to the target of its binding; in the function's thread, or in one of the loop's executor."""
        ...


class InputSource(Protocol):
    """Reads what input bindings name. The invocation fails if it raises."""

    def get(self, call: Call, wanted: Input) -> Datum:
        """The value of a binding; in the function's thread, or in one of the loop's executor."""
        ...


class Invoker(Protocol):
    """Runs calls; the future carries the HTTP response (None without one), or what the function raised."""

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
    """`azure.functions.RetryContext` by shape."""

    retry_count: int
    max_retry_count: int
    exception: None = None


class _Out(func.Out[Any]):
    """What a `func.Out` parameter receives."""

    def __init__(self) -> None:
        self._value: Any = None

    def set(self, val: Any) -> None:
        self._value = val

    def get(self) -> Any:
        return self._value


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
        return _Retry(self._call.retrying.count, self._call.retrying.limit)


class PortableInvoker:
    """Public converters; async functions on the given loop, the others in a thread pool."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        environment: Mapping[str, str],
        sink: OutputSink | None = None,
        source: InputSource | None = None,
    ) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself does not keep them
        self._pool = ThreadPoolExecutor(thread_count(environment), thread_name_prefix="function")
        self._storage = threading.local()
        self._sink = sink
        self._source = source

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
        current_function.set(call.function.name)
        arguments = self._arguments(call)
        if call.function.inputs:
            arguments |= self._inputs(call)
        with ends_children():
            returned = call.function.handler(**arguments)
        response, outputs = encode(call, returned, arguments)
        if outputs:
            self._put(call, outputs)
        return response

    async def _run_async(self, call: Call) -> Datum | None:
        self._storage.invocation_id = call.invocation_id
        current_function.set(call.function.name)
        arguments = self._arguments(call)
        if call.function.inputs:
            arguments |= await asyncio.to_thread(self._inputs, call)
        coroutine: Coroutine[Any, Any, Any] = call.function.handler(**arguments)
        with ends_children():
            returned = await coroutine
        response, outputs = encode(call, returned, arguments)
        if outputs:
            await asyncio.to_thread(self._put, call, outputs)
        return response

    def _inputs(self, call: Call) -> dict[str, Any]:
        if self._source is None:
            raise RuntimeError(f"function {call.function.name!r}: expected a source for its inputs, found none")
        return {
            name: converter_of(wanted.bound.binding).decode(self._source.get(call, wanted), trigger_metadata={})
            for name, wanted in call.function.inputs.items()
        }

    def _put(self, call: Call, outputs: Mapping[str, Datum]) -> None:
        if self._sink is None:
            raise RuntimeError(
                f"function {call.function.name!r} has output bindings, and this host has no sink for them"
            )
        self._sink.put(call, outputs)

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
        converter = converter_of(function.trigger_type)
        arguments = {function.trigger_parameter: converter.decode(call.data, trigger_metadata=call.metadata)}
        if function.outputs:
            arguments |= {name: _Out() for name in function.out_parameters}
        if function.context_parameter is not None:
            arguments[function.context_parameter] = InvocationContext(call, self._storage)
        return arguments


def encode(call: Call, returned: Any, arguments: Mapping[str, Any]) -> tuple[Datum | None, dict[str, Datum]]:
    """What a function returned and set, as data of the host's protocol: the HTTP response, and the other outputs."""
    function = call.function
    if returned is not None and function.returns is None:
        raise RuntimeError(f"function {function.name!r} without a $return binding returned a non-None value")
    if not function.outputs:
        return None, {}
    values = {name: arguments[name].get() for name in function.out_parameters}
    data = {
        name: _encoded(function, function.outputs[name].bound, value)
        for name, value in values.items()
        if value is not None
    }
    if function.returns is not None:
        data[RETURN] = _encoded(function, function.returns, returned)
    return split_outputs(function, data)


def split_outputs(function: IndexedFunction, data: Mapping[str, Datum | None]) -> tuple[Datum | None, dict[str, Datum]]:
    """The HTTP response among the values of a function's output bindings, and the values that are sent elsewhere."""
    response = None
    outputs = {}
    for name, datum in data.items():
        if name not in function.outputs or datum is None:
            continue
        if isinstance(function.outputs[name].target, HttpTarget):
            response = datum
        else:
            outputs[name] = datum
    return response, outputs


def _encoded(function: IndexedFunction, bound: BoundType, value: Any) -> Datum | None:
    """A value that the worker cannot encode fails the invocation there, None where a result is expected among them."""
    try:
        datum: Datum | None = converter_of(bound.binding).encode(value, expected_type=bound.python_type)
    except NotImplementedError as exc:
        raise TypeError(
            f"function {function.name!r}: expected a value for its binding {bound.binding!r}, found "
            f"{type(value).__name__}; Azure fails with it as well"
        ) from exc
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
