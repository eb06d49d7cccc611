"""Which app can run what waits: rows about processes and work in, findings out. Nothing here decides about work."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from core.models.app import AppInstanceRecord, FleetFacts, InstanceState, WaitingWork
from core.models.insight import Finding, Severity

# One that has not registered for this long counts as silent: it missed three times (`triggers/presence.py`).
LIVE_SECONDS = 65.0
# Rows of processes that are gone stay for a day, to show who was here.
KEPT_SECONDS = 86_400.0
# An app that scales to zero needs this long to come back when a message is there.
PATIENCE_SECONDS = 60.0


def live_instances(facts: FleetFacts) -> list[AppInstanceRecord]:
    """The processes that were heard of lately."""
    return [each for each in facts.instances if each.state(facts.now, LIVE_SECONDS) is InstanceState.LIVE]


def find_fleet_problems(facts: FleetFacts) -> list[Finding]:
    """Work that no live process can take, and releases that run side by side; the warnings first."""
    live = live_instances(facts)
    found = [finding for work in facts.waiting if (finding := _without_app(work, facts, live)) is not None]
    mix = _several_releases(live)
    return [*sorted(found, key=lambda finding: finding.severity is not Severity.WARNING), *mix]


def find_missing_app(work: WaitingWork, facts: FleetFacts) -> Finding | None:
    """Why no live process can take this work; None if one can."""
    return _without_app(work, facts, live_instances(facts))


def unread_queues(facts: FleetFacts) -> frozenset[str]:
    """Queues with waiting work that no live process reads; none where nobody registers itself."""
    live = live_instances(facts)
    read = {queue for each in live for queue in each.queues}
    return frozenset(work.queue for work in facts.waiting if live and work.queue not in read)


def _without_app(work: WaitingWork, facts: FleetFacts, live: Sequence[AppInstanceRecord]) -> Finding | None:
    if not live:
        # Nobody registers itself: apps of a release that does not, or a database nobody could write to.
        return None
    readers = [each for each in live if work.queue in each.queues]
    if any(work.task_type in each.task_types for each in readers):
        return None
    is_long = (facts.now - work.since).total_seconds() > PATIENCE_SECONDS
    severity = Severity.WARNING if is_long else Severity.INFO
    return _no_handler(work, live, readers, severity) if readers else _no_reader(work, facts, severity)


def _no_reader(work: WaitingWork, facts: FleetFacts, severity: Severity) -> Finding:
    return Finding(
        "queue_without_app",
        severity,
        f"no live app reads the queue {work.queue!r}; tasks of type {work.task_type!r} wait on it "
        f"({_last_reader(work.queue, facts)})",
        since=work.since,
        advice=f"start an app that reads {work.queue!r}: COREMACHINE_APP_MODE standalone, or worker with "
        f"{work.queue} among COREMACHINE_WORKER_QUEUES (or without that setting). An app that scales to zero comes by "
        "itself. The work waits, and no attempt is counted",
        about={"queue": work.queue},
    )


def _last_reader(queue: str, facts: FleetFacts) -> str:
    gone = [each for each in facts.instances if queue in each.queues]
    if not gone:
        return "no app that reads it was seen in the last day"
    last = max(gone, key=lambda each: each.ended_at or each.seen_at)
    how = "ended" if last.ended_at is not None else "was last heard of"
    return f"the last one, {last.app_name}, {how} at {_clock(last.ended_at or last.seen_at)}"


def _no_handler(
    work: WaitingWork, live: Sequence[AppInstanceRecord], readers: Sequence[AppInstanceRecord], severity: Severity
) -> Finding:
    return Finding(
        "task_type_without_app",
        severity,
        f"no live app that reads the queue {work.queue!r} has a handler for task type {work.task_type!r}, and tasks of "
        f"it wait ({_names(readers)} read the queue)",
        since=work.since,
        advice=f"{_where_a_handler_is(work, live)}. The work waits, and no attempt is counted",
        about={"queue": work.queue},
    )


def _where_a_handler_is(work: WaitingWork, live: Sequence[AppInstanceRecord]) -> str:
    """What to do; a platform app has the handlers of its release, and runs no tasks."""
    has_handler = [each for each in live if work.task_type in each.task_types]
    runs_tasks = sorted({each.app_name for each in has_handler if each.slots})
    if runs_tasks:
        return (
            f"{', '.join(runs_tasks)} has the handler and does not read {work.queue!r}: let it read that queue, or "
            f"send the task type to a queue that it reads (COREMACHINE_TASK_ROUTES)"
        )
    if has_handler:
        releases = sorted({f"{each.app_name} ({release_of(each)})" for each in has_handler})
        return (
            f"{', '.join(releases)} has the handler and runs no tasks: deploy its release to an app that reads "
            f"{work.queue!r}"
        )
    return f"deploy a release with a handler for {work.task_type!r} to an app that reads {work.queue!r}"


def _several_releases(live: Sequence[AppInstanceRecord]) -> Iterator[Finding]:
    by_release: dict[str, list[AppInstanceRecord]] = {}
    for each in live:
        by_release.setdefault(release_of(each), []).append(each)
    if len(by_release) > 1:
        told = "; ".join(f"{release}: {_names(found)}" for release, found in sorted(by_release.items()))
        yield Finding(
            "several_releases",
            Severity.INFO,
            f"{len(by_release)} releases run side by side ({told})",
            advice="as it should be during a deployment; otherwise deploy the apps that were left behind",
        )


def release_of(instance: AppInstanceRecord) -> str:
    """The release in words: that of the app's own code if it is known, with that of CoreMachine."""
    engine = f"CoreMachine {instance.version}"
    return f"{instance.release} on {engine}" if instance.release else engine


def _names(instances: Iterable[AppInstanceRecord]) -> str:
    counts: dict[str, int] = {}
    for each in instances:
        counts[each.app_name] = counts.get(each.app_name, 0) + 1
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in sorted(counts.items()))


def _clock(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")
