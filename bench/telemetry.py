"""What telemetry costs: the hooks that nobody listens to, and an observer whose exporter discards everything.

Processor time of this process alone, in one run: the database's work, which is most of a task, is left out, so the
real shares are lower. Example: `python -m bench.telemetry`.
"""

import itertools
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from core.telemetry.instruments import TASKS_ENDED
from core.telemetry.reports import Observer, observe_with, observer
from coremachine.testing import JobRunner
from infrastructure.telemetry.ids import ChosenIds
from infrastructure.telemetry.observer import OpenTelemetryObserver
from infrastructure.telemetry.providers import Providers
from jobs.hello_world import HANDLERS, HelloWorldJob

TASKS, REPEATS, CALLS = 1_000, 5, 100_000
_numbers = itertools.count()  # each job has parameters of its own, and so runs


class Discarding(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def discarding_observer() -> Observer:
    traces = TracerProvider()
    traces.id_generator = ids = ChosenIds(traces.id_generator)
    traces.add_span_processor(SimpleSpanProcessor(Discarding()))
    return OpenTelemetryObserver(Providers(traces, MeterProvider([InMemoryMetricReader()]), None), ids)


def processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def task_seconds(runner: JobRunner) -> float:
    """Processor time of one task of this process."""
    parameters = {"n": TASKS, "message": str(next(_numbers)), "failure_rate": 0.0}
    return processor_seconds(lambda: runner.run(HelloWorldJob, parameters)) / (2 * TASKS)


def hook_seconds() -> float:
    """Processor time of the hooks on the way of a message with one task, without an observer."""

    def call() -> None:
        for _ in range(CALLS):
            observer().outgoing_headers()
            with observer().receiving({}):
                observer().attempts_of(None, None)  # type: ignore[arg-type]
                observer().measure(TASKS_ENDED, 1, outcome="completed")

    return processor_seconds(call) / CALLS


def main() -> None:
    runner = JobRunner(handlers=HANDLERS)
    task_seconds(runner)  # imports, connections
    without, with_observer, hooks = [], [], []
    for _ in range(REPEATS):
        without.append(task_seconds(runner))
        hooks.append(hook_seconds())
        observe_with(discarding_observer())
        with_observer.append(task_seconds(runner))
        observe_with(None)
    task, observed, calls = median(without), median(with_observer), median(hooks)
    print(f"a task, without an observer  {task * 1e6:7.1f} µs")
    print(f"its hooks                    {calls * 1e6:7.1f} µs  {calls / task:.2%}")
    print(f"a task, with an observer     {observed * 1e6:7.1f} µs  {observed / task:.2f}")


if __name__ == "__main__":
    main()
