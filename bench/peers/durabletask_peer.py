"""Durable Task SDK for Python, which Durable Functions is made of: orchestrators over activities.

Its backend is the one in memory that the SDK brings for tests: others are services of Azure, or run in Docker. Nothing
is durable, and nothing is read from a store, so Durable Functions itself takes longer.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from importlib.metadata import version
from typing import Any

from durabletask import task
from durabletask.client import OrchestrationStatus, TaskHubGrpcClient
from durabletask.testing import create_test_backend
from durabletask.worker import TaskHubGrpcWorker

from bench.latency import far_service
from bench.processes import Workers
from bench.servers import free_port
from bench.workload import CHAIN_STAGES, RESULT, WrongOutcome, check_fan, summarize

# Of one orchestration: started, scheduled, and ended, for each activity.
MOST_EVENTS = 100_000
WAIT_SECONDS = 600


def seed(_: task.ActivityContext, n: int) -> int:
    return n


def work(_: task.ActivityContext, index: int) -> dict[str, str]:
    del index
    return RESULT


def collect(_: task.ActivityContext, results: list[dict[str, str]]) -> dict[str, int]:
    return summarize(results)


def fan(context: task.OrchestrationContext, n: int) -> Generator[Any, Any, Any]:
    count = yield context.call_activity(seed, input=n)
    results = yield task.when_all([context.call_activity(work, input=index) for index in range(count)])
    return (yield context.call_activity(collect, input=results))


def chain(context: task.OrchestrationContext, _: Any) -> Generator[Any, Any, Any]:
    for index in range(CHAIN_STAGES):
        yield context.call_activity(work, input=index)


def make_worker(address: str) -> Callable[[Any], Any]:
    worker = TaskHubGrpcWorker(host_address=address)
    for orchestrator in (fan, chain):
        worker.add_orchestrator(orchestrator)
    for activity in (seed, work, collect):
        worker.add_activity(activity)
    threading.Thread(target=worker.start, daemon=True).start()
    return lambda message: message


class DurableTaskPeer:
    """The backend in this process, one worker process."""

    def versions(self) -> dict[str, str]:
        return {"durabletask": version("durabletask")}

    def prepare(self, database_url: str) -> None:
        del database_url
        port = free_port()
        self._backend = create_test_backend(port=port, max_history_size=MOST_EVENTS)
        self._opened = contextlib.ExitStack()
        address = f"127.0.0.1:{self._opened.enter_context(far_service(port))}"
        self._client = TaskHubGrpcClient(host_address=address)
        self._workers = Workers(1, make_worker, address)

    def run_fan(self, n: int) -> float:
        start = time.perf_counter()
        outcome = self._wait(self._client.schedule_new_orchestration(fan, input=n))
        seconds = time.perf_counter() - start
        check_fan(outcome, n)
        return seconds

    def run_chain(self) -> float:
        return self.run_many(1)

    def run_many(self, count: int) -> float:
        start = time.perf_counter()
        for instance in [self._client.schedule_new_orchestration(chain) for _ in range(count)]:
            self._wait(instance)
        return time.perf_counter() - start

    def close(self) -> None:
        self._workers.close()
        self._client.close()
        self._backend.stop()
        self._opened.close()

    def _wait(self, instance: str) -> Any:
        state = self._client.wait_for_orchestration_completion(instance, timeout=WAIT_SECONDS)
        if state is None or state.runtime_status != OrchestrationStatus.COMPLETED:
            raise WrongOutcome(f"expected a completed orchestration, found {state}")
        return state.get_output()
