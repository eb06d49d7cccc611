"""Waiting for the end of a job, by long polls that carry a body only where something has changed."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.models.status import JobStatus
from coremachine.client.call import TIMEOUT_SECONDS
from coremachine.client.errors import UnexpectedAnswer, WaitTimeout
from coremachine.client.exchange import Limits, Reply, Script, Session, Sleep, exchange, read_answer
from coremachine.client.operations import get_job

if TYPE_CHECKING:
    from coremachine.client import models

# Azure's front ends cut a silent request after 230 s; 20 is far below and rarely asks.
LONGEST_POLL_SECONDS = 20.0
# A wait without a deadline goes on over an outage of this length.
OUTAGE_SECONDS = 600.0
_FOLLOW_SECONDS = 0.25
_SLOW_POLL_SECONDS = 1.0
# Near a deadline the wait for an answer is shorter, but never shorter than this.
_LEAST_TIMEOUT_SECONDS = 5.0


def wait_for_job(
    session: Session,
    job_id: str,
    *,
    timeout_seconds: float | None = None,
    on_change: "Callable[[models.JobAnswer], None] | None" = None,
) -> "Script[models.JobAnswer]":
    """Wait until a job has ended, and answer with it; read its `status` for how it did.

    An outage of the server does not end the wait before its deadline; without one, it may last 10 minutes.

    Args:
        timeout_seconds: None: as long as it takes.
        on_change: Called with each state that is seen, several times a second at most; the last is the end.

    Raises:
        WaitTimeout: It has not ended in time; it goes on.
    """
    call = get_job(job_id)
    seen = None if on_change is None else lambda reply: on_change(read_answer(call, reply))
    reply = yield from watch_job(session, job_id, timeout_seconds=timeout_seconds, on_change=seen)
    answer: models.JobAnswer = read_answer(call, reply)
    return answer


def watch_job(
    session: Session,
    job_id: str,
    *,
    timeout_seconds: float | None = None,
    on_change: Callable[[Reply], None] | None = None,
    on_look: Callable[[], None] | None = None,
) -> Script[Reply]:
    """As `wait_for_job`, with the answers as they come.

    Args:
        on_look: Called after each look, also where nothing has changed.
    """
    deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    longest_poll = LONGEST_POLL_SECONDS if on_change is None else 0.0
    last: Reply | None = None
    counts = LatestCounts()
    while True:
        asked_at = time.monotonic()
        reply = yield from _look(session, job_id, deadline, longest_poll, last)
        if last is None or reply.document is not None:
            last = replace(reply, document=counts.keep(reply.document))
            if on_change is not None:
                on_change(last)
        if on_look is not None:
            on_look()
        status = _status_of(last)
        if status.is_terminal:
            return last
        now = time.monotonic()
        if now >= deadline:
            raise WaitTimeout(job_id, status, timeout_seconds or 0.0)
        pause = _FOLLOW_SECONDS if on_change is not None else _SLOW_POLL_SECONDS
        # A server that answers at once knows no long polls.
        if on_change is not None or now - asked_at < _FOLLOW_SECONDS:
            yield Sleep(min(pause, deadline - now))


class LatestCounts:
    """Of what a watched job's answers count, the latest.

    Each process of the server counts large stages for itself, so an answer's count may be older than that before it.
    """

    def __init__(self) -> None:
        self._stages: dict[tuple[Any, Any], Any] = {}

    def keep(self, document: Any) -> Any:
        """The answer, in which no count is older than in those before it."""
        stages = document.get("stages") if isinstance(document, dict) else None
        if not isinstance(stages, list):
            return document
        return {**document, "stages": [self._later(document.get("run"), stage) for stage in stages]}

    def _later(self, run: Any, stage: Any) -> Any:
        if not isinstance(stage, dict):
            return stage
        place = (run, stage.get("stage"))
        known = self._stages.get(place)
        if known is not None and _is_later(known, stage):
            return {**stage, "counts": known["counts"], "counted_at": known["counted_at"]}
        self._stages[place] = stage
        return stage


def _is_later(known: Any, stage: Any) -> bool:
    """Whether the known count was made after this one; a count without a time is that of now."""
    times = known.get("counted_at"), stage.get("counted_at")
    return all(times) and datetime.fromisoformat(times[0]) > datetime.fromisoformat(times[1])


def _status_of(reply: Reply) -> JobStatus:
    status = reply.document.get("status")
    if not isinstance(status, str):
        raise UnexpectedAnswer(f"expected the status of a job from {reply.url}, found none: is it CoreMachine?")
    return JobStatus.stored(status)


def _look(session: Session, job_id: str, deadline: float, longest_poll: float, last: Reply | None) -> Script[Reply]:
    left = max(0.0, deadline - time.monotonic())
    call = get_job(job_id, wait=min(longest_poll, left))
    timeout = max(_LEAST_TIMEOUT_SECONDS, min(TIMEOUT_SECONDS, left)) + min(longest_poll, left)
    limits = Limits(
        # Before a deadline, an outage may last until it.
        retry_seconds=OUTAGE_SECONDS if deadline == math.inf else math.inf,
        timeout_seconds=timeout,
        deadline=deadline,
    )
    tag = None if last is None else last.headers.get("ETag")
    headers = {} if tag is None else {"If-None-Match": tag}
    return (yield from exchange(session, call, limits, headers))
