"""Reports spans and measures through OpenTelemetry.

submit -> job -> stage -> attempt: a job and its stages are reported when its run has ended, from their rows; attempts
and steps when they end, below the span that their stage is going to have.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from opentelemetry import context as contexts
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.basics.version import VERSION
from core.models import JobRecord, JobRef, JobStatus, StageDefinition
from core.models.upkeep import SweepReport
from core.safety.safe_log import safe_logger
from core.safety.safe_text import text_of, type_name
from core.telemetry import instruments
from core.telemetry.instruments import Instrument, Kind
from core.telemetry.reports import AttemptWatch, Observer
from infrastructure.postgresql import Pool
from infrastructure.telemetry.attempts import WatchedAttempts
from infrastructure.telemetry.ids import ChosenIds, job_span, stage_span, submission_of
from infrastructure.telemetry.links import message_links, previous_stage_links
from infrastructure.telemetry.providers import Providers
from infrastructure.telemetry.rows import EndedRun, TelemetryRows

log = safe_logger(__name__)

SCOPE = "coremachine"
_PROPAGATOR = TraceContextTextMapPropagator()
# Messages of Azure's own SDKs have it under this name.
_OTHER_NAME = "Diagnostic-Id"


class OpenTelemetryObserver(Observer):
    """One per process.

    Args:
        providers: Where spans and measures go.
        ids: Those of the provider of spans.
    """

    def __init__(self, providers: Providers, ids: ChosenIds) -> None:
        self._providers, self._ids = providers, ids
        self.tracer = providers.traces.get_tracer(SCOPE, VERSION)
        meter = providers.metrics.get_meter(SCOPE, VERSION)
        self._instruments = {one.name: _make(meter, one) for one in instruments.INSTRUMENTS if not _is_observed(one)}
        self._queues: set[tuple[str, str]] = set()
        self._limits: set[str] = set()
        self._rows: TelemetryRows | None = None
        self._pool: Pool | None = None
        for one, read in (
            (instruments.POOL_CONNECTIONS, self._read_pool),
            (instruments.POOL_WAITING, self._read_waiting),
        ):
            meter.create_observable_gauge(one.name, [read], one.unit, one.meaning)

    def read_from(self, pool: Pool, schema: str) -> None:
        """The rows of this database are the ones that are reported."""
        self._rows, self._pool = TelemetryRows(pool, schema), pool

    def measure(self, instrument: Instrument, value: float, **attributes: str) -> None:
        # Without `_quietly`, which would take longer than the rest.
        try:
            self._instruments[instrument.name](value, attributes)
        except Exception as error:  # noqa: BLE001 - see there
            _tell_failure("measure", error)

    @contextmanager
    def submission(self, job_type: str) -> Iterator[str | None]:
        with self._span(f"submit {job_type}", SpanKind.PRODUCER, {"coremachine.job_type": job_type}) as span:
            yield _traceparent(span)

    @contextmanager
    def step(self, job: JobRecord) -> Iterator[None]:
        submission, name = submission_of(job.ref, job.traceparent), job.step_name
        parent = stage_span(submission, job.stage_ref) if name == "plan_stage" else job_span(submission, job.ref)
        links = [*message_links(), *previous_stage_links(submission, job.ref, job.stage if name == "plan_stage" else 1)]
        with self._span(name, SpanKind.CONSUMER, _job_attributes(job), parent=parent, links=links):
            yield

    def attempts_of(self, job: JobRecord, stage: StageDefinition) -> AttemptWatch | None:
        try:
            return WatchedAttempts(self, self._ids, job, stage)
        except Exception as error:  # noqa: BLE001 - see `_quietly`
            _tell_failure("attempts_of", error)
            return None

    def job_ended(self, ref: JobRef, status: str) -> None:
        with _quietly("job_ended"):
            self.measure(instruments.JOBS_ENDED, 1, status=status)
            run = self._rows.find_ended_run(ref) if self._rows is not None else None
            if run is not None:
                self._report_run(ref, run)

    def job_cancelled(self, job_id: str) -> None:
        with _quietly("job_cancelled"):
            run = self._rows.find_cancelled_run(job_id) if self._rows is not None else None
            if run is not None:
                self.job_ended(JobRef(job_id, run), JobStatus.CANCELLED)

    def sweep_ended(self, report: SweepReport) -> None:
        with _quietly("sweep_ended"):
            self.measure(instruments.SWEEP_DURATION, report.duration_seconds)
            for name, count in report.repairs_by_kind.items():
                if count:
                    self.measure(instruments.JANITOR_REPAIRS, count, repair=name)
            for step in report.errors:
                self.measure(instruments.SWEEP_FAILURES, 1, step=step)
            if self._rows is not None and not report.outages:
                self._report_backlog(self._rows)

    def outgoing_headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        with _quietly("outgoing_headers"):
            _PROPAGATOR.inject(headers)
        return headers

    @contextmanager
    def receiving(self, headers: Mapping[str, Any]) -> Iterator[None]:
        token = None
        with _quietly("receiving"):
            token = _attach(headers)
        try:
            yield
        finally:
            if token is not None:
                contexts.detach(token)

    def flush(self) -> None:
        with _quietly("flush"):
            late = self._providers.flush()
            if late:
                log.warning("telemetry_not_flushed", extra={"checkpoint": "TELEMETRY", "signals": late})

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        *,
        parent: SpanContext | None = None,
        links: Sequence[Link] = (),
    ) -> Iterator[Span]:
        """An exception is reported by its type alone: its text may hold what is nobody's business."""
        context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        span: Span = INVALID_SPAN
        with _quietly("start_span"):
            span = self.tracer.start_span(name, context, kind, attributes, links)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            span.set_attribute("error.type", type_name(error))
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            with _quietly("end_span"):
                span.end()

    def _report_run(self, ref: JobRef, run: EndedRun) -> None:
        submission = submission_of(ref, run.traceparent)
        where = {"coremachine.job_id": ref.job_id, "coremachine.run": ref.run, "coremachine.job_type": run.job_type}
        job = job_span(submission, ref)
        told = {**where, "coremachine.status": run.status, "coremachine.correlation_id": run.correlation_id}
        self._report_past(f"job {run.job_type}", job, submission, (run.began_at, run.finished_at), told)
        seconds = (run.finished_at - run.began_at).total_seconds()
        self.measure(instruments.JOB_DURATION, seconds, job_type=run.job_type, status=run.status)
        for one in run.stages:
            told = {**where, "coremachine.stage": one.stage, "coremachine.status": one.status}
            told |= {"coremachine.tasks": one.tasks, "coremachine.failed_tasks": one.failed}
            span = stage_span(submission, ref.at_stage(one.stage))
            self._report_past(f"stage {one.stage} {one.name}", span, job, (one.began_at, one.finished_at), told)
            seconds = (one.finished_at - one.began_at).total_seconds()
            attributes = {"job_type": run.job_type, "stage": one.name, "status": one.status}
            self.measure(instruments.STAGE_DURATION, seconds, **attributes)

    def _report_past(
        self,
        name: str,
        chosen: SpanContext,
        parent: SpanContext,
        times: tuple[datetime, datetime],
        attributes: Mapping[str, Any],
    ) -> None:
        began, ended = times
        context = set_span_in_context(NonRecordingSpan(parent), contexts.Context())
        with self._ids.choosing(chosen):
            span = self.tracer.start_span(name, context, attributes=attributes, start_time=_nanoseconds(began))
        if attributes["coremachine.status"] == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(ended))

    def _report_backlog(self, rows: TelemetryRows) -> None:
        found = {(one.queue, one.status): one for one in rows.read_queues()}
        # What was there before and is not any more is 0, and not what it was.
        self._queues |= set(found)
        for queue, status in self._queues:
            one = found.get((queue, status))
            self.measure(instruments.QUEUE_DEPTH, one.tasks if one else 0, queue=queue, status=status)
            if status == "queued":
                self.measure(instruments.QUEUE_AGE, one.age_seconds if one else 0.0, queue=queue)
        for kind, count in rows.count_unannounced().items():
            self.measure(instruments.UNANNOUNCED, count, kind=kind)
        limits = {one.name: one for one in rows.read_waited_for_limits()}
        for name in self._limits | set(limits):
            limit = limits.get(name)
            self.measure(instruments.LIMIT_PLACES, limit.places if limit else 0, limit=name)
            self.measure(instruments.LIMIT_WAITING, limit.stages if limit else 0, limit=name)
        self._limits = set(limits)

    def _read_pool(self, _options: CallbackOptions) -> Iterator[Observation]:
        if self._pool is not None:
            found = self._pool.get_stats()
            idle = found.get("pool_available", 0)
            yield Observation(idle, {"state": "idle"})
            yield Observation(found.get("pool_size", 0) - idle, {"state": "used"})

    def _read_waiting(self, _options: CallbackOptions) -> Iterator[Observation]:
        if self._pool is not None:
            yield Observation(self._pool.get_stats().get("requests_waiting", 0))


@contextmanager
def _quietly(what: str) -> Iterator[None]:
    """What goes wrong with a report is nobody else's matter."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - exporters and providers are anybody's code
        _tell_failure(what, error)


def _tell_failure(what: str, error: Exception) -> None:
    log.warning("telemetry_failed", extra={"checkpoint": "TELEMETRY", "operation": what, "error": text_of(error)})


def _attach(headers: Mapping[str, Any]) -> Any:
    """The sender's span as the current one; where the worker itself has put one there, that is it."""
    if get_current_span().get_span_context().is_valid:
        return None
    carrier = {name: _text(headers[name]) for name in ("traceparent", "tracestate") if headers.get(name)}
    if "traceparent" not in carrier and headers.get(_OTHER_NAME):
        carrier["traceparent"] = _text(headers[_OTHER_NAME])
    return contexts.attach(_PROPAGATOR.extract(carrier)) if carrier else None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else text_of(value)


def _traceparent(span: Span) -> str | None:
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, set_span_in_context(span))
    return headers.get("traceparent")


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


def _job_attributes(job: JobRecord) -> dict[str, Any]:
    return {
        "coremachine.job_id": job.job_id,
        "coremachine.run": job.run,
        "coremachine.job_type": job.job_type,
        "coremachine.stage": job.stage,
        "coremachine.correlation_id": job.correlation_id,
    }


def _is_observed(instrument: Instrument) -> bool:
    return instrument in {instruments.POOL_CONNECTIONS, instruments.POOL_WAITING}


def _make(meter: Meter, one: Instrument) -> Any:
    """What takes a value and attributes."""
    if one.kind is Kind.COUNTER:
        return meter.create_counter(one.name, one.unit, one.meaning).add
    if one.kind is Kind.HISTOGRAM:
        return meter.create_histogram(one.name, one.unit, one.meaning).record
    return meter.create_gauge(one.name, one.unit, one.meaning).set
