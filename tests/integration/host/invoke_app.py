"""Loads an app, calls each of its functions with the same fixed inputs, prints what came back as JSON.

    python invoke_app.py portable|microsoft APP_DIR

Runs in a process of its own: Microsoft's runtime holds one app per process.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azure.functions.meta import Datum
from azure.storage.queue import QueueMessage

from coremachine.local.host.functions import HttpTrigger, IndexedFunction, QueueTrigger, ServiceBusTrigger
from coremachine.local.host.http import Request, http_call
from coremachine.local.host.indexing import index_app
from coremachine.local.host.invoker import Call, PortableInvoker
from coremachine.local.host.message_calls import batch_call, message_call
from coremachine.local.host.ms_runtime import MsInvocationError, MsRuntimeInvoker
from coremachine.local.host.retry import Retrying
from coremachine.local.host.storage_pump import metadata_of, queue_call
from coremachine.local.host.timer import timer_call

PATHS = {
    "echo": ("POST", "/api/echo/Bob?x=1", {"name": "Bob", "count": "3"}),
    "sleep": ("POST", "/", {"seconds": "0"}),
    "web_api": ("GET", "/api/readyz", {"route": "api/readyz"}),
}

HEADERS = {"x-test": "v", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def calls_for(function: IndexedFunction) -> list[Call]:
    from conftest import received_message

    trigger = function.trigger
    if isinstance(trigger, HttpTrigger):
        method, path, route_values = PATHS.get(function.name, ("GET", "/no/such/path", {"route": "no/such/path"}))
        url = f"http://localhost{path}"
        return [http_call(function, Request(method, path, url, HEADERS, {"x": "1"}, b"hi"), route_values)]
    if isinstance(trigger, ServiceBusTrigger) and trigger.is_batch:
        messages = [
            received_message(b"one", message_id="m1", properties={"n": 3}, correlation_id="c"),
            received_message(b'{"two": 2}', message_id="m2", delivery_count=4),
        ]
        return [batch_call(function, trigger, messages), batch_call(function, trigger, messages[:1])]
    if isinstance(trigger, ServiceBusTrigger):
        messages = [
            received_message(b'{"id": 1}', delivery_count=2, properties={"n": 3, "t": "x"}, correlation_id="c"),
            received_message(b"fail", time_to_live_seconds=60, subject="s"),
        ]
        return [message_call(function, trigger, message) for message in messages]
    if isinstance(trigger, QueueTrigger):
        message = QueueMessage(content="b25l")
        message.id, message.dequeue_count, message.pop_receipt = "m1", 2, "p"
        message.inserted_on = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        return [queue_call(function, text, metadata_of(message, text)) for text in ("one", "two")]
    return [timer_call(function, past_due=True), timer_call(function, retrying=Retrying(1, 2))]


class Fixed:
    """A blob that is always there."""

    def get(self, call: Call, wanted: Any) -> Datum:
        return Datum("content", "string") if wanted.is_text else Datum(b"content", "bytes")


class Sent:
    """Keeps what functions put into output bindings."""

    def __init__(self) -> None:
        self.outputs: list[list[Any]] = []

    def put(self, call: Call, outputs: Any) -> None:
        self.outputs.append([call.function.name, readable(dict(outputs))])


def readable(value: Any) -> Any:
    """Datums of either library, as plain values."""
    if isinstance(value, dict):
        return {key: readable(inner) for key, inner in value.items()}
    if hasattr(value, "type") and hasattr(value, "value"):
        return [value.type, readable(value.value)]
    if value == str(os.getpid()):
        return "this process"
    return value if value is None or isinstance(value, (str, int)) else repr(value)


def without_words(error: str) -> str:
    """For values that cannot be converted ours has words of its own."""
    is_conversion = error.startswith("TypeError(") or '"generic" binding' in error or "found a datum of" in error
    return error.partition("(")[0] if is_conversion else error


async def outcome_of(invoker: Any, call: Call) -> Any:
    try:
        datum = await asyncio.wrap_future(invoker.submit(call))
    except MsInvocationError as exc:
        return ["raised", without_words(exc.error)]
    except Exception as exc:  # noqa: BLE001 - what a function raises is its result here
        return ["raised", without_words(repr(exc))]
    # A function that returns nothing may come back as None, or as a datum without a value.
    return ["returned", None if datum is None or datum.type is None else readable(datum)]


async def run(kind: str, app_dir: Path) -> dict[str, Any]:
    index, sent = index_app(app_dir, os.environ), Sent()
    if kind == "microsoft":
        invoker: Any = await MsRuntimeInvoker.create(app_dir, sent, Fixed())
        bindings = {name: [json.loads(text) for text in raw] for name, raw in (await invoker.raw_bindings()).items()}
    else:
        invoker = PortableInvoker(asyncio.get_running_loop(), os.environ, sent, Fixed())
        bindings = {function.name: list(function.raw_bindings) for function in index.functions.values()}
    # Side by side, since functions that cannot do their work pause first.
    calls = {name: [outcome_of(invoker, call) for call in calls_for(one)] for name, one in index.functions.items()}
    results = {name: asyncio.gather(*outcomes) for name, outcomes in calls.items()}
    results = {name: await outcomes for name, outcomes in results.items()}
    invoker.close()
    sent.outputs.sort(key=str)
    return {
        "bindings": {name: bindings[name] for name in index.functions},
        "results": results,
        "sent": sent.outputs,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(asyncio.run(run(sys.argv[1], Path(sys.argv[2])))), file=sys.__stdout__)
    sys.__stdout__.flush()
    os._exit(0)
