"""Spans and durations of the attempts at the tasks of one message."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    Status,
    StatusCode,
    set_span_in_context,
    use_span,
)

from core.models import JobRecord, Parallelism, StageDefinition
from core.models.transition import ClaimedRow
from core.telemetry.instruments import ATTEMPT_DURATION
from infrastructure.telemetry.ids import ChosenIds, attempt_span, stage_span, submission_of
from infrastructure.telemetry.links import message_links, previous_stage_links

if TYPE_CHECKING:
    from infrastructure.telemetry.observer import OpenTelemetryObserver

_LONGEST_REASON = 1000


class WatchedAttempts:
    """An `AttemptWatch`. Threads that run tasks call it at once; it raises only what an attempt raises."""

    def __init__(
        self, observer: "OpenTelemetryObserver", ids: ChosenIds, job: JobRecord, stage: StageDefinition
    ) -> None:
        self._observer, self._ids = observer, ids
        self._job, self._stage = job, stage
        self._submission = submission_of(job.ref, job.traceparent)
        parent = stage_span(self._submission, job.ref.at_stage(stage.number))
        self._parent = set_span_in_context(NonRecordingSpan(parent))
        # Here, since the threads of the tasks do not know what message they are from.
        self._links = message_links()
        if stage.parallelism is Parallelism.FAN_IN:
            self._links += previous_stage_links(self._submission, job.ref, stage.number)

    def __call__(self, attempt: Callable[[ClaimedRow], Any], task: ClaimedRow) -> Any:
        span = None
        with suppress(Exception):
            span = self._start(task)
        if span is None:
            return attempt(task)
        outcome = None
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                outcome = attempt(task)
        finally:
            with suppress(Exception):
                self._end(span, task, outcome)
        return outcome

    def _start(self, task: ClaimedRow) -> Span:
        links = list(self._links)
        if task.attempt > 1:
            before = attempt_span(self._submission, self._job.ref, task.task_id, task.attempt - 1)
            links.append(Link(before, {"coremachine.link": "previous_attempt"}))
        with self._ids.choosing(attempt_span(self._submission, self._job.ref, task.task_id, task.attempt)):
            return self._observer.tracer.start_span(
                f"task {task.task_type}", self._parent, SpanKind.CONSUMER, self._attributes(task), links
            )

    def _attributes(self, task: ClaimedRow) -> dict[str, Any]:
        return {
            "coremachine.job_id": self._job.job_id,
            "coremachine.run": self._job.run,
            "coremachine.job_type": self._job.job_type,
            "coremachine.stage": self._stage.number,
            "coremachine.task_id": task.task_id,
            "coremachine.task_type": task.task_type,
            "coremachine.attempt": task.attempt,
            "coremachine.correlation_id": self._job.correlation_id,
        }

    def _end(self, span: Span, task: ClaimedRow, outcome: Any) -> None:
        """`outcome` is a `core.running.attempts.TaskOutcome`; None if the attempt raised."""
        word = "failed"
        if outcome is not None and outcome.failure is None:
            word = "completed"
        elif outcome is not None and outcome.stopped:
            word = "stopped"
        span.set_attribute("coremachine.outcome", word)
        if outcome is not None and outcome.failure is not None:
            span.set_attribute("error.type", outcome.failure.error_type)
            span.set_status(Status(StatusCode.ERROR, outcome.failure.message[:_LONGEST_REASON]))
        span.end()
        names = {"job_type": self._job.job_type, "stage": self._stage.name, "task_type": task.task_type}
        seconds = outcome.duration_seconds if outcome is not None else 0.0
        self._observer.measure(ATTEMPT_DURATION, seconds, **names, outcome=word)
