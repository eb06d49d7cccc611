"""Why a schedule submits nothing, and what would help: facts about its rows in, findings out."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from core.models.insight import Finding, Severity
from core.models.schedule import ScheduleFacts, TickRecord, TickStatus
from core.operating.explain import SWEEP_OVERDUE_SECONDS
from core.safety.safe_text import brief_text


def explain_schedule(facts: ScheduleFacts) -> list[Finding]:
    """Why it submits nothing, the most telling first; at least one finding."""
    found = [finding for rule in _RULES for finding in rule(facts)]
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _paused(facts: ScheduleFacts) -> Iterator[Finding]:
    schedule, change = facts.schedule, facts.schedule.last_change
    if schedule.paused_at is None:
        return
    is_latest = change.get("action") == "paused"
    by = f" by {change['actor']}" if is_latest and change.get("actor") else ""
    why = f": {change['reason']}" if is_latest and change.get("reason") else ""
    advice = f"coremachine schedules resume {schedule.name}; ticks that passed are skipped"
    yield Finding("paused", Severity.WARNING, f"it is paused{by}{why}", since=schedule.paused_at, advice=advice)


def _next(facts: ScheduleFacts) -> Iterator[Finding]:
    schedule, at = facts.schedule, facts.schedule.next_tick_at
    if schedule.paused_at is not None:
        return
    if at is None:
        message = "it has no tick any more" + (f": it ended {_text(schedule.ends_at)}" if schedule.ends_at else "")
        advice = "write it again with a later ends_at, or delete it"
        yield Finding("ended", Severity.WARNING, message, since=schedule.ends_at, advice=advice)
    elif at < facts.now - timedelta(seconds=SWEEP_OVERDUE_SECONDS):
        message = f"its tick of {_text(at)} is due, and nothing was decided about it: no janitor looks at schedules"
        advice = "see whether an app that moves jobs runs (not a worker app), and its log of janitor_sweep"
        yield Finding("not_swept", Severity.ERROR, message, since=at, advice=advice)
    elif schedule.starts_at is not None and schedule.starts_at > facts.now:
        yield Finding("not_started", Severity.INFO, f"it starts {_text(schedule.starts_at)}", next_at=at)
    else:
        yield Finding("next_tick", Severity.INFO, f"its next tick is {_text(at)}", next_at=at)


def _job_type(facts: ScheduleFacts) -> Iterator[Finding]:
    if not facts.is_known_job_type:
        message = f"this app does not know its job type {facts.schedule.job_type}; another release or app may"
        advice = "deploy an app that knows it: a tick waits an hour, then it fails"
        yield Finding("unknown_job_type", Severity.WARNING, message, advice=advice)


def _open(facts: ScheduleFacts) -> Iterator[Finding]:
    if facts.open_job_id is not None:
        then = {"skip": "ticks until then are skipped", "wait": "ticks wait for that"}
        effect = then.get(str(facts.schedule.overlap))
        message = f"job {facts.open_job_id[:12]} of it has not ended" + (f"; {effect}" if effect else "")
        advice = f"coremachine explain {facts.open_job_id[:12]}"
        about = {"job_id": facts.open_job_id}
        yield Finding("job_is_open", Severity.INFO, message, advice=advice, about=about)
    if facts.waiting:
        ticks = "1 tick waits" if facts.waiting == 1 else f"{facts.waiting} ticks wait"
        message = f"{ticks} for the end of an earlier job"
        yield Finding("ticks_wait", Severity.INFO, message)
    if facts.due:
        latest = next((tick for tick in facts.latest if tick.status is TickStatus.DUE), None)
        why = f": {_why(latest)}" if latest is not None and latest.reason else ""
        severity = Severity.WARNING if why else Severity.INFO
        jobs = "1 job is" if facts.due == 1 else f"{facts.due} jobs are"
        message = f"{jobs} still to be submitted{why}"
        yield Finding("ticks_are_due", severity, message, since=facts.oldest_due_at)


def _latest(facts: ScheduleFacts) -> Iterator[Finding]:
    tick = next((tick for tick in facts.latest if not tick.is_manual and not tick.status.is_open), None)
    if tick is None:
        return
    history = f"coremachine schedules show {facts.schedule.name}"
    if tick.status is TickStatus.FAILED:
        message = f"its tick of {_text(tick.tick_at)} got no job: {_why(tick)}"
        yield Finding("tick_failed", Severity.ERROR, message, since=tick.decided_at, advice=f"fix it; see {history}")
    elif tick.status is TickStatus.SKIPPED:
        until = f" to {_text(tick.until_at)}" if tick.until_at else ""
        message = f"its tick of {_text(tick.tick_at)}{until} was skipped: {_why(tick)}"
        yield Finding("tick_skipped", Severity.WARNING, message, since=tick.decided_at, advice=f"see {history}")
    elif tick.status is TickStatus.SUBMITTED and tick.submitted_job_id is not None:
        message = f"its tick of {_text(tick.tick_at)} got job {tick.submitted_job_id[:12]}"
        about = {"job_id": tick.submitted_job_id}
        yield Finding("tick_submitted", Severity.INFO, message, since=tick.decided_at, about=about)


def _why(tick: TickRecord) -> str:
    text = ": ".join(part for part in (tick.reason, tick.detail) if part)
    text = _LONG_ID.sub(r"\1", " ".join(text.split()))
    return brief_text(text, see=f"`coremachine schedules show {tick.schedule} -o json`")


def _text(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


# The database writes ids of jobs whole; people know the beginning.
_LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_RULES = (_paused, _next, _job_type, _open, _latest)
