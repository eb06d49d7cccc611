"""What still answers while slow handlers have every thread that messages can have: the real app's functions."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

import triggers.dead_letters
import triggers.queues
import triggers.timers
from coremachine.local.concurrency import CALLS_SETTING, concurrency_settings
from coremachine.local.host.functions import IndexedFunction, ServiceBusTrigger
from coremachine.local.host.http import Request, http_call
from coremachine.local.host.indexing import index_app
from coremachine.local.host.invoker import Call, PortableInvoker
from coremachine.local.host.messages import as_datum, content_of, trigger_metadata
from coremachine.local.host.received import received_by_sdk
from coremachine.local.host.settings import read_host_settings
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.host.timer import timer_call
from tests.integration.host.conftest import received_message
from triggers.app_shape import RESERVE_THREADS, find_slot_shortage, find_thread_shortage, read_shape, threads_needed

ROOT = Path(__file__).parents[3]
NO_BROKER = "Endpoint=sb://localhost:1;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"


class SlowHandlers:
    """All queue functions wait here until `end`."""

    def __init__(self, monkeypatch):
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()
        for module, name in [
            (triggers.queues, "receive_job_message"),
            (triggers.queues, "receive_task_message"),
            (triggers.dead_letters, "receive_dead_letter"),
        ]:
            monkeypatch.setattr(module, name, self._wait)

    def _wait(self, *_: object, **__: object) -> None:
        self.begun.release()
        assert self.end.wait(60)


@pytest.fixture
def slow(monkeypatch):
    handlers = SlowHandlers(monkeypatch)
    yield handlers
    handlers.end.set()


@pytest.fixture
def functions():
    return index_app(ROOT, {**os.environ, "ServiceBusConnection": NO_BROKER}).functions


def message_call(function: IndexedFunction) -> Call:
    message = received_message(b"{}")
    return Call(
        function, as_datum(content_of(received_by_sdk(message)), function.trigger.data_type), trigger_metadata(message)
    )


def livez_call(functions) -> Call:
    request = Request("GET", "/api/livez", "http://localhost/api/livez", {}, {}, b"")
    return http_call(functions["livez"], request, {})


def test_local_stack_makes_room_unless_somebody_chose_a_number(tmp_path):
    (tmp_path / "host.json").write_text('{"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 5}}}')
    name = "PYTHON_THREADPOOL_THREAD_COUNT"
    assert concurrency_settings(tmp_path, {}, workers=1) == {name: str(6 * 5 + RESERVE_THREADS)}
    one_queue = {"COREMACHINE_TASK_QUEUES": "a=b"}
    assert concurrency_settings(tmp_path, one_queue, workers=1) == {name: str(4 * 5 + RESERVE_THREADS)}
    assert concurrency_settings(tmp_path, {name: "3"}, workers=1) == {}
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": {name: "4"}}))
    assert concurrency_settings(tmp_path, {}, workers=1) == {}


def test_each_worker_takes_as_many_messages_as_an_instance_unless_somebody_chose_a_number(tmp_path):
    (tmp_path / "host.json").write_text('{"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 5}}}')
    assert concurrency_settings(tmp_path, {}, workers=3)[CALLS_SETTING] == "15"
    assert CALLS_SETTING not in concurrency_settings(tmp_path, {CALLS_SETTING: "2"}, workers=3)
    assert CALLS_SETTING not in concurrency_settings(tmp_path, {CALLS_SETTING.upper(): "2"}, workers=3)


def test_app_of_a_local_stack_has_threads_enough_for_its_share_of_the_messages(tmp_path):
    """Each worker warned at each start, as if it got the messages of all."""
    host_json = tmp_path / "host.json"
    host_json.write_text('{"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 12}}}')
    host = HostSupervisor(tmp_path, workers=3, environment=concurrency_settings(tmp_path, {}, workers=3))
    assert find_thread_shortage(read_shape({}), host._environment, host_json) is None
    assert find_slot_shortage(read_shape({}), host._environment, host_json) is None


def test_livez_answers_while_every_thread_is_taken(functions, slow):
    async def ask():
        invoker = PortableInvoker(asyncio.get_running_loop(), {"PYTHON_THREADPOOL_THREAD_COUNT": "2"})
        for _ in range(2):
            invoker.submit(message_call(functions["process_tasks_tasks"]))
        for _ in range(2):
            assert await asyncio.to_thread(slow.begun.acquire, timeout=30)
        answer = await asyncio.wait_for(asyncio.wrap_future(invoker.submit(livez_call(functions))), 30)
        slow.end.set()
        invoker.close()
        return answer

    assert asyncio.run(ask()).value["status_code"].value == "200"


def test_janitor_fires_while_every_message_that_the_host_hands_out_is_slow(functions, slow, monkeypatch):
    swept = threading.Event()
    monkeypatch.setattr(triggers.timers, "sweep", lambda **_: swept.set())
    calls = read_host_settings(ROOT, {}).service_bus.max_concurrent_calls
    queues = [one for one in functions.values() if isinstance(one.trigger, ServiceBusTrigger)]
    threads = threads_needed(read_shape({}), calls)
    assert threads == len(queues) * calls + RESERVE_THREADS

    async def fire():
        invoker = PortableInvoker(asyncio.get_running_loop(), {"PYTHON_THREADPOOL_THREAD_COUNT": str(threads)})
        for function in queues:
            for _ in range(calls):
                invoker.submit(message_call(function))
        for _ in range(len(queues) * calls):
            assert await asyncio.to_thread(slow.begun.acquire, timeout=30)
        await asyncio.wait_for(asyncio.wrap_future(invoker.submit(timer_call(functions["janitor_sweep"]))), 30)
        slow.end.set()
        invoker.close()

    asyncio.run(fire())
    assert swept.is_set()
