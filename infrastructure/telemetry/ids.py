"""Trace and span ids of a job's parts: every process can name a part as a parent, before it is reported and after.

A stage begins in one process and ends in another, and an attempt may be reported hours before its stage is. So the ids
of jobs, stages and attempts are made from what names them.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.models import JobRef, StageRef

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()


def job_span(submission: SpanContext, ref: JobRef) -> SpanContext:
    return _part(submission, "job", *ref)


def stage_span(submission: SpanContext, ref: StageRef) -> SpanContext:
    return _part(submission, "stage", *ref)


def attempt_span(submission: SpanContext, ref: JobRef, task_id: str, attempt: int) -> SpanContext:
    return _part(submission, "attempt", *ref, task_id, attempt)


def submission_of(ref: JobRef, traceparent: str | None) -> SpanContext:
    """The span that the job's row names; a trace of the job's own where it names none."""
    if traceparent is not None:
        found = get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
        if found.is_valid:
            return found
    trace_id = _digest("trace", *ref)[:16]
    return SpanContext(int.from_bytes(trace_id), _span_id("submission", *ref), is_remote=True, trace_flags=_SAMPLED)


def _part(submission: SpanContext, *names: str | int) -> SpanContext:
    return SpanContext(
        submission.trace_id,
        _span_id(*names),
        is_remote=True,
        trace_flags=submission.trace_flags,
        trace_state=submission.trace_state,
    )


def _span_id(*names: str | int) -> int:
    return int.from_bytes(_digest(*names)[:8]) or 1


def _digest(*names: str | int) -> bytes:
    return hashlib.sha256("\n".join(map(str, names)).encode()).digest()


class ChosenIds(RandomIdGenerator):
    """The usual ids, but for a span whose id was chosen."""

    def __init__(self, usual: IdGenerator) -> None:
        self._usual = usual
        self._chosen = threading.local()

    @contextmanager
    def choosing(self, span: SpanContext) -> Iterator[None]:
        """The span that this thread begins inside gets this id. Its trace is its parent's."""
        self._chosen.span_id = span.span_id
        try:
            yield
        finally:
            self._chosen.span_id = None

    def generate_span_id(self) -> int:
        chosen: int | None = getattr(self._chosen, "span_id", None)
        return self._usual.generate_span_id() if chosen is None else chosen

    def generate_trace_id(self) -> int:
        return self._usual.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return self._usual.is_trace_id_random()
