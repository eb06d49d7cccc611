"""Spans of what does not go straight: retries, failures, cancels, reruns; and an observer that fails."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from core.errors import PermanentTaskError, RetryableTaskError
from core.models.control import RerunMode, RerunRequest
from core.models.upkeep import SweepReport
from core.telemetry.reports import observe_with
from infrastructure.telemetry.ids import ChosenIds
from infrastructure.telemetry.observer import OpenTelemetryObserver
from infrastructure.telemetry.providers import Providers
from tests.integration.engine.machine_suite import Rig


class Reported:
    """A rig whose process reports to memory."""

    def __init__(self, engine):
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        traces = TracerProvider()
        traces.id_generator = ids = ChosenIds(traces.id_generator)
        traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.observer = OpenTelemetryObserver(Providers(traces, MeterProvider([self._reader]), None), ids)
        self.observer.read_from(engine.pool, "app")
        self.rig = Rig(engine)

    def spans(self, name=""):
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def span(self, name):
        (found,) = self.spans(name)
        return found

    def attempts(self, task_id):
        found = [span for span in self.spans("task ") if span.attributes["coremachine.task_id"] == task_id]
        return sorted(found, key=lambda span: span.attributes["coremachine.attempt"])

    def total(self, name, **attributes):
        """The sum of a counter, or the latest value of a gauge."""
        data = self._reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        points = [point for metric in found for point in metric.data.data_points]
        return sum(point.value for point in points if attributes.items() <= point.attributes.items())


@pytest.fixture
def reported(engine):
    reported = Reported(engine)
    observe_with(reported.observer)
    yield reported
    observe_with(None)


def links_of(span):
    return {link.attributes["coremachine.link"]: link.context.span_id for link in span.links}


def test_a_retry_is_linked_with_the_attempt_before_it(reported):
    def fail_once(context):
        if context.attempt == 1:
            raise RetryableTaskError("try again, password=hunter2")

    reported.rig.behave.before["s2-n1"] = fail_once
    reported.rig.run(n=3)

    first, second = reported.attempts("s2-n1")
    assert links_of(second)["previous_attempt"] == first.context.span_id
    assert "previous_attempt" not in links_of(first)
    assert (first.attributes["coremachine.outcome"], first.attributes["error.type"]) == ("failed", "RetryableTaskError")
    assert "hunter2" not in first.to_json()
    assert second.attributes["coremachine.outcome"] == "completed"
    assert first.parent.span_id == second.parent.span_id == reported.span("stage 2 square").context.span_id
    assert reported.total("coremachine.retries", outcome="scheduled") == 1
    assert reported.total("coremachine.tasks.ended", outcome="completed") == 5


def test_a_fan_in_is_linked_with_the_stage_whose_results_it_reads(reported):
    reported.rig.run(n=3)
    (total,) = reported.attempts("s3-fan_in")
    assert links_of(total)["previous_stage"] == reported.span("stage 2 square").context.span_id
    assert "previous_stage" not in links_of(reported.attempts("s2-n0")[0])


def test_the_row_keeps_the_trace_and_everything_is_in_it(reported):
    job_id = reported.rig.run(n=3)
    submit = reported.span("submit shapes")
    trace, span = f"{submit.context.trace_id:032x}", f"{submit.context.span_id:016x}"
    assert reported.rig.job(job_id).traceparent.startswith(f"00-{trace}-{span}-")
    assert {f"{each.context.trace_id:032x}" for each in reported.spans()} == {trace}
    top = reported.span("job shapes")
    assert (top.parent.span_id, top.attributes["coremachine.status"]) == (submit.context.span_id, "completed")
    job = reported.rig.job(job_id)
    seconds = (top.end_time - top.start_time) / 1e9
    assert abs(seconds - (job.finished_at - job.created_at).total_seconds()) < 1e-5


def test_a_job_that_fails_is_an_error_and_its_planner_too(reported, monkeypatch):
    def fail(stage, *_):
        raise PermanentTaskError("no plan")

    monkeypatch.setattr(reported.rig.registry.get_job("shapes"), "create_tasks_for_stage", staticmethod(fail))
    job_id = reported.rig.run(n=3)
    assert reported.rig.job(job_id).status == "failed"
    assert reported.span("job shapes").status.status_code.name == "ERROR"
    assert reported.span("stage 1 list").attributes["coremachine.status"] == "failed"
    assert reported.total("coremachine.jobs.ended", status="failed") == 1


@pytest.mark.breaks_invariants
def test_a_cancelled_job_is_reported_once(reported):
    job_id = reported.rig.submit(n=3)
    assert reported.rig.machine.cancel_job(job_id, "wrong") == "cancelled"
    assert reported.span("job shapes").attributes["coremachine.status"] == "cancelled"
    reported.rig.engine.execute("update app.jobs set finished_at = finished_at - interval '10 seconds'")
    assert reported.rig.machine.cancel_job(job_id, "again") == "cancelled"
    assert len(reported.spans("job shapes")) == 1
    assert reported.total("coremachine.jobs.ended", status="cancelled") == 1


def test_a_rerun_has_a_job_span_of_its_own_in_the_same_trace(reported):
    job_id = reported.rig.run(n=2)
    reported.rig.machine.rerun_job(job_id, RerunRequest(RerunMode.ALL))
    reported.rig.queues.run(reported.rig.machine)
    first, second = reported.spans("job shapes")
    assert first.context.trace_id == second.context.trace_id
    assert first.context.span_id != second.context.span_id
    assert [span.attributes["coremachine.run"] for span in (first, second)] == [1, 2]
    assert len({span.context.span_id for span in reported.spans("task ")}) == len(reported.spans("task "))


def test_what_waits_is_measured_after_each_sweep(reported):
    reported.rig.submit(n=3)
    reported.rig.queues.run(reported.rig.machine)
    reported.rig.submit(n=3)
    reported.observer.sweep_ended(reported.rig.janitor.sweep())
    assert reported.total("coremachine.unannounced", kind="jobs") == 0
    assert reported.total("coremachine.queue.tasks") == 0
    assert reported.total("coremachine.pool.connections") >= 1


def test_repairs_are_counted_by_what_was_done(reported):
    """What a sweep deletes because it is old is no repair."""
    report = SweepReport(taken_back=2, announced_tasks=3, pruned_jobs=5, errors={"announce_jobs": "no queue"})
    reported.observer.sweep_ended(report)
    assert reported.total("coremachine.janitor.repairs") == 5
    assert reported.total("coremachine.janitor.repairs", repair="taken_back") == 2
    assert reported.total("coremachine.janitor.failures", step="announce_jobs") == 1


def test_an_observer_that_fails_costs_no_task_its_result(reported, monkeypatch, caplog):
    """Providers and exporters are anybody's code."""

    class Broken:
        def start_span(self, *_, **__):
            raise RuntimeError("no span")

    monkeypatch.setattr(reported.observer, "tracer", Broken())
    monkeypatch.setattr(reported.observer, "_instruments", {})
    job_id = reported.rig.run(n=3)
    assert reported.rig.job(job_id).status == "completed"
    assert "telemetry_failed" in {record.message for record in caplog.records}
