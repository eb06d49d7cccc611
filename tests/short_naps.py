"""Service Bus' SDK without its naps.

It looks for what it waits for every 0.05 s, about nine times until a link is open, and the thread that keeps a client
alive looks once a second whether it is closed, for which closing waits. It looks more often here; all that it does is
its own.
"""

import asyncio
import time
from types import ModuleType, SimpleNamespace

from azure.servicebus import _servicebus_receiver, _servicebus_sender, _session_browser
from azure.servicebus._pyamqp import client
from azure.servicebus._pyamqp.aio import _client_async
from azure.servicebus.aio import _servicebus_receiver_async, _servicebus_sender_async, _session_browser_async

# The SDK's own, and what stands for them.
_NAPS = {1: 0.02, 0.05: 0.002}
_SYNC = (_servicebus_receiver, _servicebus_sender, _session_browser, client)
_ASYNC = (_servicebus_receiver_async, _servicebus_sender_async, _session_browser_async, _client_async)


def shorten_naps() -> None:
    def sleep(seconds: float) -> None:
        time.sleep(_NAPS.get(seconds, seconds))

    async def sleep_async(seconds: float) -> None:
        await asyncio.sleep(_NAPS.get(seconds, seconds))

    for module in _SYNC:
        module.time = _with(time, sleep=sleep)
    for module in _ASYNC:
        module.asyncio = _with(asyncio, sleep=sleep_async)


def _with(module: ModuleType, **others: object) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(module), **others})
