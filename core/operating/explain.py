"""Why a job does not move, and what would help: facts about its rows in, findings out."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from core.app_queues import JOBS_QUEUE, how_to_add_queue
from core.basics.words import in_times
from core.models.insight import (
    Finding,
    InterruptedTask,
    JobFacts,
    LeaseFacts,
    Severity,
    StepLeaseFacts,
    UnknownFacts,
    UnwrittenFacts,
)
from core.models.limit import LimitFacts
from core.models.status import JobStatus
from core.operating.fleet import find_missing_app, unread_queues
from core.safety.safe_text import brief_text

# A sweep runs every half minute by default; a row that waits this much longer shows that there is none.
SWEEP_OVERDUE_SECONDS = 300.0
# A message that waits this long, while no worker is seen on its queue, is worth a look.
QUEUE_PATIENCE_SECONDS = 60.0
# What waits this long without a confirmed message is sent by the janitor, by default.
_ANNOUNCE_SECONDS = 20.0
_SHOWN_FAILURES = 5
# What helps where a limit of time was passed, by the stored error's type. A rerun that keeps results keeps the limits.
_NEW_LIMIT = "(`rerun --all` takes the new one, `--failed` keeps the old one)"
_TIMEOUTS = {
    "TaskTimedOut": f"raise the stage's task_timeout_seconds {_NEW_LIMIT}, or give one task less to do",
    "JobTimedOut": f"raise the job's timeout_seconds {_NEW_LIMIT}, or find out what was slow",
    "StageTimedOut": f"raise the stage's timeout_seconds {_NEW_LIMIT}, or find out what was slow",
    "QueueTimeExpired": "see whether a worker reads the stage's queue, or raise its queue_timeout_seconds "
    f"{_NEW_LIMIT}",
}
# A lease is renewed when a third of it is over; beyond that and this margin, its process is silent.
_BEAT_MARGIN_SECONDS = 5.0
# As that of `bring_times_back`.
_CLOCK_MARGIN_SECONDS = 60.0
# Why the holder of a lease does not renew it.
_WHY_SILENT = "its process died, cannot reach the database, or waits there for a row that somebody has locked"
_WHY_DIED = "usual causes: the memory was used up (the system kills the process), a signal, a crash in native code,"


def explain(facts: JobFacts) -> list[Finding]:
    """Why the job does not move, the most telling first; at least one finding."""
    found = [finding for rule in _RULES for finding in rule(facts)]
    if not found:
        message = f"the job is {facts.status}; its rows show nothing that it waits for"
        found = [Finding("no_reason_found", Severity.WARNING, message, since=facts.updated_at)]
    order = [Severity.ERROR, Severity.WARNING, Severity.INFO]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def first_reason(facts: JobFacts) -> dict[str, str]:
    """The most telling finding as texts: code, severity, message, and advice where there is one."""
    found = explain(facts)[0]
    texts = {"code": found.code, "severity": found.severity.value, "message": found.message, "advice": found.advice}
    return {name: text for name, text in texts.items() if text is not None}


def _finished(facts: JobFacts) -> Iterator[Finding]:
    if not facts.status.is_terminal:
        return
    at = _at(facts.finished_at, facts.now)
    reason = _error_text(facts.error, f"coremachine status {facts.job_id[:12]} -o json")
    words: dict[JobStatus, tuple[Severity, str, str | None]] = {
        JobStatus.COMPLETED: (Severity.INFO, f"ended {at}", None),
        JobStatus.COMPLETED_WITH_ERRORS: (
            Severity.WARNING,
            f"ended {at}; tasks failed, and the stage's failure policy lets that pass",
            f"see what failed below; if it matters: {_rerun(facts)}",
        ),
        JobStatus.FAILED: (
            Severity.ERROR,
            f"failed {at}: {reason}",
            f"{_timeout_advice((facts.error or {}).get('type')) or 'fix the cause, '}then: {_rerun(facts)}",
        ),
        JobStatus.CANCELLED: (
            Severity.WARNING,
            f"cancelled {at}: {reason}",
            f"to go on where it stopped: {_rerun(facts)}",
        ),
    }
    severity, message, advice = words[facts.status]
    yield Finding(str(facts.status), severity, message, since=facts.finished_at, advice=advice)


def _timeout_advice(error_type: str | None) -> str:
    advice = _TIMEOUTS.get(error_type or "")
    return f"{advice}; " if advice else ""


def _failed_tasks(facts: JobFacts) -> Iterator[Finding]:
    ended_badly = facts.status is JobStatus.FAILED
    for group in facts.failures[:_SHOWN_FAILURES]:
        examples = ", ".join(example.task_id for example in group.examples)
        stages = ", ".join(map(str, group.stages))
        yield Finding(
            "tasks_failed",
            Severity.ERROR if ended_badly else Severity.WARNING,
            f"{_tasks(group.count)} of stage {stages} failed with "
            f"{_error_text({'type': group.error_type, 'message': group.message}, _all_tasks(facts))} (for example "
            f"{examples})",
            since=group.first_at,
            advice=f"{_timeout_advice(group.error_type)}all of them: coremachine failures {facts.job_id[:12]} "
            f"--fingerprint {group.fingerprint}",
            about={"fingerprint": group.fingerprint},
        )
    rest = facts.failures[_SHOWN_FAILURES:]
    if rest:
        count = sum(group.count for group in rest)
        message = f"{_tasks(count)} failed in {_count(len(rest), 'other way', 'other ways')}"
        yield Finding("more_failures", Severity.INFO, message, advice=f"coremachine failures {facts.job_id[:12]}")


def _dead_letters(facts: JobFacts) -> Iterator[Finding]:
    for group in facts.dead_letters[:_SHOWN_FAILURES]:
        queues = ", ".join(group.queues)
        reason = ": ".join(part for part in (group.reason, group.description) if part) or "the broker gave no reason"
        reason = brief_text(reason, see=f"`coremachine dead list --job {facts.job_id[:12]} -o json`")
        message = f"{group.count} of its messages on queue {queues} ended as dead letters ({reason})"
        if facts.status.is_terminal:
            advice = "nothing waits for them; `coremachine dead redrive` marks them as obsolete"
        else:
            advice = (
                "the rows are not lost: the janitor announces them again after their hold. Look into the log of the "
                f"app that reads {queues} for the error that it raised; to go on at once: coremachine dead redrive "
                f"--job {facts.job_id[:12]}"
            )
        severity = Severity.INFO if facts.status.is_terminal else Severity.WARNING
        about = {"fingerprint": group.fingerprint}
        yield Finding("dead_lettered", severity, message, since=group.first_at, advice=advice, about=about)


def _paused(facts: JobFacts) -> Iterator[Finding]:
    if facts.paused_at is None or facts.status.is_terminal:
        return
    by = f" by {facts.paused_by}" if facts.paused_by else ""
    why = f" ({_told_reason(facts, facts.pause_reason)})" if facts.pause_reason else ""
    message = f"paused{by} {_at(facts.paused_at, facts.now)}{why}: nothing new is planned or claimed"
    if facts.parked:
        message += f"; messages came for {_tasks(facts.parked)} and are sent again when it goes on"
    advice = f"coremachine resume {facts.job_id[:12]}"
    yield Finding("paused", Severity.WARNING, message, since=facts.paused_at, advice=advice)


def _cancelling(facts: JobFacts) -> Iterator[Finding]:
    if facts.status is not JobStatus.CANCELLING:
        return
    held = sum(lease.count for lease in facts.leases)
    examples = [task_id for lease in facts.leases for task_id in lease.examples]
    why = f" ({_told_reason(facts, facts.cancel_reason)})" if facts.cancel_reason else ""
    message = (
        f"cancelling since {_at(facts.cancel_requested_at or facts.updated_at, facts.now)}{why}; waits for "
        f"{_tasks(held)} to stop"
        f"{': ' + ', '.join(examples[:_SHOWN_FAILURES]) if examples else ''}"
    )
    advice = (
        "a handler learns of it from its context (check_cancelled); one that does not ask runs to its end. "
        "If its process is dead, its lease runs out and the janitor ends the job"
    )
    deadline = facts.cancel_deadline_at
    if deadline is not None:
        message += f"; the job ends without them at the first sweep after {_at(deadline, facts.now)}"
    yield Finding(
        "cancelling", Severity.INFO, message, since=facts.cancel_requested_at, next_at=deadline, advice=advice
    )


def _deadlines(facts: JobFacts) -> Iterator[Finding]:
    """What ends by itself if nothing else ends it."""
    if facts.status.is_terminal:
        return
    if facts.deadline_at is not None:
        message = f"fails if it has not ended by {_at(facts.deadline_at, facts.now)}, as it declares"
        yield Finding("deadline", Severity.INFO, message, next_at=facts.deadline_at)
    waits = facts.open_count > 0 or facts.status is JobStatus.QUEUED
    if facts.queue_deadline_at is not None and facts.queue_deadline_at > facts.now and waits:
        message = f"tasks of stage {facts.stage} fail that have not begun by {_at(facts.queue_deadline_at, facts.now)}"
        yield Finding("queue_deadline", Severity.INFO, message, next_at=facts.queue_deadline_at)


def _strange(facts: JobFacts) -> Iterator[Finding]:
    """What a release that is not here would know."""
    if not facts.status.is_known:
        yield Finding(
            "status_not_known",
            Severity.WARNING,
            f"the job is {facts.status}, which this app does not know: a newer release wrote it",
            since=facts.updated_at,
            advice="ask an app of that release",
        )
    if facts.paused_at is not None:
        return
    if facts.unknown_step is not None:
        yield _wait_for_release(facts, facts.step, facts.unknown_step)
    for unknown in facts.unknown_tasks:
        yield _wait_for_release(facts, f"{_tasks(unknown.count)} of stage {facts.stage}", unknown)
    for queue in facts.unnamed_queues:
        yield Finding(
            "queue_not_known",
            Severity.WARNING,
            f"this app has no queue {queue!r} in its settings, and tasks of stage {facts.stage} come through it",
            advice=f"an app of a release that has it announces them at its next sweep; or {how_to_add_queue(queue)}",
            about={"queue": queue},
        )


def _wait_for_release(facts: JobFacts, what: str, unknown: UnknownFacts) -> Finding:
    """No attempt is counted meanwhile, and nothing is wrong if a newer release is about to come."""
    left = timedelta(seconds=max(0.0, unknown.patience_seconds - unknown.waited_seconds))
    return Finding(
        "waits_for_release",
        Severity.WARNING,
        f"waiting for an app that knows the {unknown.kind} {unknown.name}: {what}; postponed {in_times(unknown.times)} "
        f"since {_at(unknown.since, facts.now)}, last by {unknown.by}; offered again {_at(unknown.next_at, facts.now)}",
        since=unknown.since,
        next_at=unknown.next_at,
        advice=f"deploy or start the release that knows the {unknown.kind} {unknown.name}; beside apps that do not "
        "know it it gets its share of the offers, without them all within half a minute. No "
        f"attempt is counted. It fails after {_span(left)} more of this",
    )


def _waiting_for_step(facts: JobFacts) -> Iterator[Finding]:
    """Queued or finalizing: a message on the jobs queue is what moves the job."""
    if facts.status not in {JobStatus.QUEUED, JobStatus.FINALIZING} or facts.paused_at is not None:
        return
    if facts.unknown_step is not None:
        return
    if facts.step_unwritten is not None:
        yield _unwritten_step(facts, facts.step_unwritten)
    if facts.step_lease is not None and facts.step_lease.interruptions:
        yield _interrupted_step(facts, facts.step_lease)
    if facts.step_lease is not None and not facts.step_lease.has_ended:
        yield _taken_step(facts, facts.step_lease)
    elif facts.attempt > 0:
        yield Finding(
            "step_retry",
            Severity.WARNING,
            f"{facts.step} failed {in_times(facts.attempt)} (last: "
            f"{_error_text(facts.step_error, f'coremachine events {facts.job_id[:12]} -o json')}); next attempt "
            f"{_at(facts.due_at, facts.now)}",
            since=facts.updated_at,
            next_at=facts.due_at,
            advice="the error is the job class's own: create_tasks_for_stage when planning, finalize_job at the end",
        )
    elif facts.start_at is not None and facts.start_at > facts.now:
        message = f"begins at the first sweep after {_at(facts.start_at, facts.now)}, as it was submitted"
        advice = f"to begin now: coremachine cancel {facts.job_id[:12]}, and rerun it"
        yield Finding(
            "starts_later", Severity.INFO, message, since=facts.created_at, next_at=facts.start_at, advice=advice
        )
    elif facts.announced_at is not None:
        yield from _announced_step(facts)
    elif facts.due_at is not None and facts.due_at > facts.now:
        message = f"waits for {facts.step}; its message is held until {_at(facts.due_at, facts.now)}"
        yield Finding("step_held", Severity.INFO, message, since=facts.updated_at, next_at=facts.due_at)
    else:
        yield Finding(
            "step_not_announced",
            Severity.INFO,
            f"waits for {facts.step}; no message for it is confirmed since {_at(facts.updated_at, facts.now)}",
            since=facts.updated_at,
            advice="the janitor sends it at its next sweep",
        )


def _unwritten_step(facts: JobFacts, unwritten: UnwrittenFacts) -> Finding:
    """It repeats until somebody changes something."""
    return Finding(
        "step_not_written",
        Severity.ERROR,
        f"{facts.step} has ended, and the database refuses to write that since {_at(unwritten.since, facts.now)} "
        f"(last {_at(unwritten.at, facts.now)}: {_told_reason(facts, unwritten.reason)})",
        since=unwritten.since,
        advice="remove what refuses it: a trigger or a constraint that is not the engine's, a right that its role "
        "lacks, a limit of time or room. The step is repeated with each delivery of its message; to retry at once: "
        f"coremachine dead redrive --job {facts.job_id[:12]}",
    )


def _interrupted_step(facts: JobFacts, lease: StepLeaseFacts) -> Finding:
    """The author's code may end its process each time."""
    return Finding(
        "step_interrupted",
        Severity.WARNING,
        f"{facts.step} was interrupted {lease.interruptions} of {facts.max_interruptions} times; its process died each "
        f"time, or lost the database (last in {lease.lost})",
        advice=f"{_WHY_DIED} or os._exit in the job class; see the log of that process and of its host. From half of "
        f"max_interruptions ({facts.max_interruptions}) on the step runs alone in its worker, above that the job fails",
    )


def _taken_step(facts: JobFacts, lease: StepLeaseFacts) -> Finding:
    """The author's code is at work on it, or its process was lost."""
    took = f"{facts.step} by {lease.owner} since {_at(lease.since, facts.now)}"
    ends = _at(lease.expires_at, facts.now)
    if facts.is_step_taken:
        message = f"under way: {took}; the lease ends {ends} unless renewed"
        return Finding("step_running", Severity.INFO, message, since=lease.since)
    return Finding(
        "step_lost",
        Severity.WARNING,
        f"begun and not ended: {took}; its lease ran out {ends}: {_WHY_SILENT}",
        since=lease.expires_at,
        advice="the janitor announces the step again at its next sweep, and another process takes it",
    )


def _announced_step(facts: JobFacts) -> Iterator[Finding]:
    waited = _seconds(facts.announced_at, facts.now)
    is_long = waited > QUEUE_PATIENCE_SECONDS
    yield Finding(
        "step_announced",
        Severity.WARNING if is_long else Severity.INFO,
        f"waits for {facts.step}; its message went to the jobs queue {_at(facts.announced_at, facts.now)} and was not "
        "taken yet",
        since=facts.announced_at,
        advice="see whether an app of mode standalone or platform runs, whether its function process_jobs is enabled, "
        "and how many messages stand before this one; the janitor sends one that was lost again once nothing as old is "
        "left there"
        if is_long
        else None,
    )


def _missing_queues(facts: JobFacts) -> Iterator[Finding]:
    """A queue that is not there takes no message; nothing but making it helps."""
    needed = dict.fromkeys(facts.waiting_queues, f"tasks of stage {facts.stage} can only come through it")
    if facts.status in {JobStatus.QUEUED, JobStatus.FINALIZING}:
        needed[JOBS_QUEUE] = f"{facts.step} can only be asked for through it"
    for queue, why in needed.items():
        if queue in facts.missing_queues:
            yield Finding(
                "queue_missing",
                Severity.ERROR,
                f"the queue {queue!r} is not there, and {why}",
                advice=f"{facts.missing_queues[queue]}; the janitor then sends what waits",
                about={"queue": queue},
            )


def _running(facts: JobFacts) -> Iterator[Finding]:
    for lease in facts.leases:
        alive = lease.count - lease.expired
        if alive:
            yield _running_tasks(facts, lease, alive)
        if lease.expired:
            yield Finding(
                "lease_expired",
                Severity.WARNING,
                f"claimed by {lease.owner}: {_tasks(lease.expired)} of stage {facts.stage}, whose lease ran "
                f"out {_at(lease.first_expires_at, facts.now)}: {_WHY_SILENT}",
                since=lease.first_expires_at,
                advice="the janitor takes them back at its next sweep; that is an interruption and spends no retry; if "
                "that does not come, somebody has their rows locked (`locked_by_session` names that session)",
            )


def _running_tasks(facts: JobFacts, lease: LeaseFacts, alive: int) -> Finding:
    """Whether their process is heard of: what it last renewed, it renewed a lease's time before that ends."""
    message = f"claimed by {lease.owner}: {_tasks(alive)} of stage {facts.stage}"
    ends_at = lease.next_expires_at
    if ends_at is None or facts.lease_seconds is None:
        # Not renewed on purpose: a heartbeat would not be seen.
        message += ", beyond the time that their stage allows"
        return Finding("tasks_running", Severity.INFO, message, since=lease.oldest_started_at)
    beat_at = ends_at - timedelta(seconds=facts.lease_seconds)
    silent = facts.now - beat_at
    due = f"due every {facts.lease_seconds / 3:g} s"
    end = f"the first lease ends {_at(ends_at, facts.now)} unless renewed"
    if silent.total_seconds() < -_CLOCK_MARGIN_SECONDS:
        message += (
            f"; {end}, later than a lease lasts: the database's clock was ahead, and the next sweep corrects that"
        )
        return Finding("tasks_running", Severity.WARNING, message, since=lease.oldest_started_at)
    if silent.total_seconds() <= facts.lease_seconds / 3 + _BEAT_MARGIN_SECONDS:
        heard = "now" if silent.total_seconds() < 1 else f"{_span(silent)} ago"
        message += f"; last heartbeat {heard}, one is {due}; {end}"
        return Finding("tasks_running", Severity.INFO, message, since=lease.oldest_started_at)
    return Finding(
        "process_silent",
        Severity.WARNING,
        f"{message}; silent for {_span(silent)}, a heartbeat is {due}; {end}",
        since=beat_at,
        advice="its process may be dead, stopped, or without the database; if it stays silent, the janitor takes the "
        "tasks back when their lease has run out, and another process has them",
    )


def _interrupted(facts: JobFacts) -> Iterator[Finding]:
    for task in facts.interrupted:
        if task.unwritten:
            yield _unwritten(facts, task)
        else:
            yield _lost_process(facts, task) if task.released < task.interruptions else _released(facts, task)
    rest = facts.interrupted_count - len(facts.interrupted)
    if facts.interrupted and rest > 0:
        message = f"{_tasks(rest)} more of stage {facts.stage} were interrupted"
        yield Finding("more_interrupted", Severity.INFO, message, advice=_all_tasks(facts))


def _lost_process(facts: JobFacts, task: InterruptedTask) -> Finding:
    how = "its process died each time, or lost the database"
    if task.released:
        lost = task.interruptions - task.released
        how = f"its process died, or lost the database, {lost} of these times, and was asked to end the others"
    return Finding(
        "interrupted",
        Severity.WARNING,
        f"{task.name or task.task_id} was interrupted {task.interruptions} of {facts.max_interruptions} times; "
        f"{how}{_last_owner(task)}",
        advice=f"{_WHY_DIED} or os._exit in the handler; see the log of that process and of its host. From half of "
        f"max_interruptions ({facts.max_interruptions}) on the task runs alone in its worker, above that it fails",
        about={"task_id": task.task_id},
    )


def _unwritten(facts: JobFacts, task: InterruptedTask) -> Finding:
    return Finding(
        "interrupted",
        Severity.WARNING,
        f"{task.name or task.task_id} was interrupted {task.interruptions} of {facts.max_interruptions} times; "
        f"{task.unwritten} times it had ended, and the database did not take its outcome: {task.reason}",
        advice="its process was not lost: look at the database, such as the room on its disk, its own triggers on our "
        "tables, and statement_timeout. The task runs again when its lease has run out, above max_interruptions "
        f"({facts.max_interruptions}) it fails",
        about={"task_id": task.task_id},
    )


def _released(facts: JobFacts, task: InterruptedTask) -> Finding:
    return Finding(
        "interrupted",
        Severity.INFO,
        f"{task.name or task.task_id} was interrupted {task.interruptions} of {facts.max_interruptions} times, each by "
        f"a process that was asked to end, as in a deployment or a scale-in{_last_owner(task)}",
        advice="it begins anew in another process, which spends no retry. A longer time to end lets tasks finish",
        about={"task_id": task.task_id},
    )


def _last_owner(task: InterruptedTask) -> str:
    return f" (last in {task.owner})" if task.owner else ""


def _retries(facts: JobFacts) -> Iterator[Finding]:
    if facts.retries is None:
        return
    examples: dict[str, list[str]] = {}
    for task in facts.retries.examples:
        failed = f"after attempt {task.attempt}: {_error_text(task.error, _all_tasks(facts))}"
        examples.setdefault(failed, []).append(task.name or task.task_id)
    shown = "; ".join(f"{', '.join(names)} {failed}" for failed, names in examples.items())
    message = (
        f"waiting for another attempt: {_tasks(facts.retries.count)}, the next {_at(facts.retries.next_at, facts.now)}"
    )
    yield Finding(
        "waiting_for_retry",
        # While others are at work, the job moves: the retry is not what it waits for.
        Severity.INFO if _is_at_work(facts) else Severity.WARNING,
        f"{message} ({shown})" if shown else message,
        next_at=facts.retries.next_at,
        advice="nothing is to be done if the cause passes by itself",
        about={"task_id": facts.retries.examples[0].task_id} if facts.retries.examples else {},
    )
    if facts.retries.unannounced:
        yield Finding(
            "retry_not_announced",
            Severity.INFO,
            f"due again, and no message for it is confirmed: {_tasks(facts.retries.unannounced)}",
            since=facts.retries.next_at,
            advice="the janitor sends it at its next sweep",
        )


def _is_at_work(facts: JobFacts) -> bool:
    """Whether tasks of its stage run, or one began a moment ago."""
    starts = (queue.last_start for queue in facts.queues if queue.last_start is not None)
    return any(lease.count > lease.expired for lease in facts.leases) or any(
        _seconds(start, facts.now) <= QUEUE_PATIENCE_SECONDS for start in starts
    )


def _unannounced(facts: JobFacts) -> Iterator[Finding]:
    if facts.unannounced is None:
        return
    since = facts.unannounced.since
    # The stage moves, and these were taken a moment ago: their messages are on their way.
    is_moving = _is_at_work(facts) or facts.in_line > 0
    is_on_its_way = is_moving and since is not None and _seconds(since, facts.now) <= _ANNOUNCE_SECONDS
    if facts.unannounced.count and not is_on_its_way:
        yield Finding(
            "tasks_not_announced",
            Severity.INFO,
            f"no message is confirmed for {_tasks(facts.unannounced.count)} of stage {facts.stage}"
            f"{f' since {_at(since, facts.now)}' if since else ''}",
            since=since,
            advice="the planner is still sending them, or could not: the janitor sends what has waited for "
            f"{_ANNOUNCE_SECONDS:g} s",
        )
    if facts.unannounced.held:
        until = facts.unannounced.held_until
        yield Finding(
            "tasks_held",
            Severity.INFO,
            f"held before another message is sent: {_tasks(facts.unannounced.held)} of stage {facts.stage}, the first "
            f"until {_at(until, facts.now)}",
            next_at=until,
            advice="a janitor is sending them, or their message died before",
        )


def _in_line(facts: JobFacts) -> Iterator[Finding]:
    """Tasks that wait in line: as it should be, if others of the stage are worked on."""
    if facts.in_line == 0 or facts.limits or facts.paused_at is not None:
        return
    taken = facts.open_count - facts.in_line
    what = f"{_tasks(facts.in_line)} of stage {facts.stage}"
    if facts.max_parallel is not None and taken >= facts.max_parallel:
        holders = ", ".join(f"{lease.owner} ({lease.count})" for lease in facts.leases[:_SHOWN_FAILURES])
        held = f", held by {holders}" if holders else ", none of which a worker has now"
        yield Finding(
            "waits_for_limit",
            Severity.INFO,
            f"waiting for the limit max_parallel {facts.max_parallel} of the stage: {what}; {_tasks(taken)} announced"
            f"{held}",
            advice=f"to let more of them run at a time: coremachine adjust {facts.job_id[:12]} --max-parallel N; in "
            "later jobs, a larger max_parallel in the stage's declaration",
        )
        return
    yield Finding(
        "waits_for_turn",
        Severity.INFO,
        f"waiting in line: {what}; "
        + (
            f"{_tasks(taken)} announced or running, and more as those end"
            if taken
            # Of short tasks that is often so, between the end of some and the claim of the next.
            else "none was announced or running at the moment of this look; if that stays so, the janitor's next sweep "
            "announces more"
        ),
        advice=_advice_in_line(facts),
    )


def _advice_in_line(facts: JobFacts) -> str:
    adjust = f"coremachine adjust {facts.job_id[:12]}"
    if facts.max_parallel is not None:
        return f"max_parallel lets {facts.max_parallel} of them run at a time; to change it: {adjust} --max-parallel N"
    return (
        "large stages are announced in windows, so that other jobs can use the queue, too; for a larger share: "
        f"{adjust} --priority high"
    )


def _limits(facts: JobFacts) -> Iterator[Finding]:
    """Tasks that wait for a limit which all jobs share."""
    waiting = facts.in_line + facts.held_back
    if not facts.limits or waiting == 0 or facts.paused_at is not None:
        return
    what = f"{_tasks(waiting)} of stage {facts.stage}"
    full = [limit for limit in facts.limits if limit.is_full]
    for limit in full:
        yield _full_limit(facts, limit, what)
    if not full:
        names = ", ".join(limit.name for limit in facts.limits)
        # Its own stage is one of them.
        others = max(limit.waiting for limit in facts.limits) - 1
        message = f"waiting for its turn at the limit {names}: {what}; "
        if others > 0:
            message += f"{_count(others, 'other stage waits', 'other stages wait')} there"
            advice = "stages that share a limit are served in turn, by their priority: coremachine adjust changes it"
        else:
            message += "no other stage waits there, and there is room: more begin as others end, or at the next sweep"
            advice = None
        about = {"limit": facts.limits[0].name}
        yield Finding("waits_for_turn", Severity.INFO, message, advice=advice, about=about)


def _full_limit(facts: JobFacts, limit: LimitFacts, what: str) -> Finding:
    numbers = ", ".join(
        text for text in (None if limit.at_once is None else f"{limit.at_once} at once", str(limit.rate or "")) if text
    )
    holders = [
        f"{'this job' if each.job_id == facts.job_id else f'job {each.job_id[:12]}'} stage {each.stage} ({each.count})"
        for each in limit.holders[:_SHOWN_FAILURES]
    ]
    rest = limit.held - sum(each.count for each in limit.holders[:_SHOWN_FAILURES])
    held = ", ".join([*holders, *([f"others ({rest})"] if rest > 0 else [])])
    message = f"waiting for the limit {limit.name} ({numbers}): {what}"
    message += f"; held by {held}" if held else ""
    message += f"; kept for {_tasks(limit.reserved)} whose message was sent" if limit.reserved else ""
    until = facts.held_back_until or limit.next_at
    if limit.is_rate_used_up and until is not None:
        message += f"; next start by the rate {_at(until, facts.now)}"
    if limit.is_closed:
        message += f"; it lets none begin{_chosen(limit, facts.now) if limit.is_edited else ''}"
    return Finding(
        "waits_for_limit",
        Severity.WARNING if limit.is_closed else Severity.INFO,
        message,
        next_at=until if limit.is_rate_used_up else None,
        advice=_other_numbers(limit),
        about={"limit": limit.name},
    )


def _chosen(limit: LimitFacts, now: datetime) -> str:
    who = f" by {limit.edited_by}" if limit.edited_by else ""
    why = f": {limit.reason}" if limit.reason else ""
    return f", as was chosen{who} {_at(limit.edited_at, now)}{why}"


def _other_numbers(limit: LimitFacts) -> str:
    """With each number that it has: what a command leaves out is not limited."""
    name = shlex.quote(limit.name)
    declared = f"; for those that stages declare: coremachine limits forget {name}" if limit.is_edited else ""
    at_once = " --at-once N" if limit.at_once is not None or limit.rate is None else ""
    rate = " --rate N/s" if limit.rate is not None else ""
    return f"for other numbers, at once and for all jobs: coremachine limits set {name}{at_once}{rate}{declared}"


def _queued(facts: JobFacts) -> Iterator[Finding]:
    if facts.paused_at is not None:
        return
    unread = _unread_queues(facts)
    for queue in facts.queues:
        told = f"on queue {queue.queue!r}: {_tasks(queue.count)} of stage {facts.stage}, the first since "
        told += _at(queue.announced_at, facts.now)
        if queue.busy:
            message = f"{told}; it is worked on: {_tasks(queue.busy)} claimed by {', '.join(queue.owners)}"
            about = {"queue": queue.queue}
            yield Finding("waiting_in_queue", Severity.INFO, message, since=queue.announced_at, about=about)
            continue
        last = f"the last task of this job began {_at(queue.last_start, facts.now)}" if queue.last_start else "none yet"
        is_long = _seconds(queue.last_start or queue.announced_at, facts.now) > QUEUE_PATIENCE_SECONDS
        # A queue that no app reads is explained by `_without_app`.
        is_long = is_long and queue.queue not in unread
        yield Finding(
            "no_worker_seen" if is_long else "waiting_in_queue",
            Severity.WARNING if is_long else Severity.INFO,
            f"{told}; nobody holds a task of this queue now ({last})",
            since=queue.announced_at,
            advice=f"see whether an app that serves {queue.queue!r} runs (COREMACHINE_APP_MODE, "
            f"COREMACHINE_WORKER_QUEUES), whether its function process_tasks_{queue.queue} is enabled and raises "
            "nothing (log), and whether the broker's queue holds the messages; the janitor sends one that was lost "
            "again once nothing as old is left there"
            if is_long
            else None,
            about={"queue": queue.queue},
        )


def _without_app(facts: JobFacts) -> Iterator[Finding]:
    """Work that no app which registers itself can take; one that does not is seen by its leases."""
    if facts.fleet is None or facts.paused_at is not None:
        return
    busy = {queue.queue for queue in facts.queues if queue.busy}
    for work in facts.fleet.waiting:
        finding = find_missing_app(work, facts.fleet)
        if finding is not None and work.queue not in busy:
            yield finding


def _unread_queues(facts: JobFacts) -> frozenset[str]:
    return unread_queues(facts.fleet) if facts.fleet is not None else frozenset()


def _stalled(facts: JobFacts) -> Iterator[Finding]:
    if facts.status in {JobStatus.PROCESSING, JobStatus.CANCELLING} and facts.open_count == 0:
        yield Finding(
            "stage_over",
            Severity.WARNING,
            f"stage {facts.stage} has no open task, yet the job has not left it (stage {facts.stage_status})",
            since=facts.updated_at,
            advice="the janitor decides again what the last task decides, at its next sweep",
        )


def _holders(facts: JobFacts) -> Iterator[Finding]:
    """Sessions of others, in transactions that are open for long."""
    for holder in facts.holders:
        since = None if holder.open_seconds is None else facts.now - timedelta(seconds=holder.open_seconds)
        begun = f" open since {_at(since, facts.now)}" if since else ""
        waits = f"; {_count(holder.waiting, 'session waits', 'sessions wait')} for it" if holder.waiting else ""
        yield Finding(
            "locked_by_session",
            Severity.WARNING,
            f"{holder.text}, in a transaction{begun}{waits}",
            since=since,
            advice=holder.advice,
        )


def _prepared(facts: JobFacts) -> Iterator[Finding]:
    """Transactions of others that were prepared, and whose locks outlast every session."""
    for each in facts.foreign.prepared:
        yield Finding(
            "locked_by_prepared_transaction",
            Severity.WARNING,
            f"{each.text}: what needs these rows waits until it has ended",
            since=each.prepared_at,
            advice=each.advice,
        )


def _foreign(facts: JobFacts) -> Iterator[Finding]:
    """What may keep the job's rows as they are, named while nothing of the job runs."""
    if facts.is_step_taken or facts.paused_at is not None or any(each.count > each.expired for each in facts.leases):
        return
    for each in facts.foreign.triggers:
        yield Finding(
            "foreign_trigger",
            Severity.ERROR if each.is_rule else Severity.WARNING,
            f"the {each.text} is not the engine's, and may leave out changes of this job's rows without an error",
            advice=each.advice,
        )
    for disabled in facts.foreign.disabled:
        yield Finding(
            "own_trigger_disabled",
            Severity.WARNING,
            f"the {disabled.text} should be enabled: deadlines, places of limits or refusals of wrong changes need it",
            advice=disabled.advice,
        )


def _sweep_is_late(facts: JobFacts) -> Iterator[Finding]:
    """What only a janitor repairs, and none did in time."""
    if facts.status.is_terminal or facts.paused_at is not None:
        return
    waits = [lease.first_expires_at for lease in facts.leases if lease.expired]
    if facts.retries is not None and facts.retries.unannounced:
        waits.append(facts.retries.next_at)
    if facts.unannounced is not None and facts.unannounced.count and facts.unannounced.since is not None:
        waits.append(facts.unannounced.since)
    is_waiting = facts.status in {JobStatus.QUEUED, JobStatus.FINALIZING} and not facts.is_step_taken
    if is_waiting and facts.announced_at is None:
        waits.append(max(facts.updated_at, facts.due_at or facts.updated_at))
    if facts.status in {JobStatus.PROCESSING, JobStatus.CANCELLING} and facts.open_count == 0:
        waits.append(facts.updated_at)
    since = min(waits, default=facts.now)
    if _seconds(since, facts.now) > SWEEP_OVERDUE_SECONDS:
        yield Finding(
            "janitor_late",
            Severity.ERROR,
            f"rows wait for the janitor since {_at(since, facts.now)} and none has come",
            since=since,
            advice="see whether an app of mode standalone or platform runs, whether its function janitor_sweep is "
            "enabled, and what it logs (checkpoint JANITOR); a queue that takes no messages leaves rows waiting too",
        )


_RULES: tuple[Callable[[JobFacts], Iterator[Finding]], ...] = (
    _finished,
    _missing_queues,
    _sweep_is_late,
    _strange,
    _paused,
    _cancelling,
    _waiting_for_step,
    _dead_letters,
    _without_app,
    _queued,
    _in_line,
    _limits,
    _retries,
    _unannounced,
    _stalled,
    _holders,
    _prepared,
    _foreign,
    _interrupted,
    _running,
    _deadlines,
    _failed_tasks,
)


def _seconds(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else (now - since).total_seconds()


def _at(moment: datetime | None, now: datetime) -> str:
    """`12:30:05Z (in 12 s)`; with the date when it is another day."""
    if moment is None:
        return "at a time that is not known"
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    clock = moment.strftime("%H:%M:%SZ" if moment.date() == now.date() else "%Y-%m-%d %H:%M:%SZ")
    away = moment - now
    return f"{clock} (in {_span(away)})" if away > timedelta(0) else f"{clock} ({_span(-away)} ago)"


def _span(length: timedelta) -> str:
    seconds = round(length.total_seconds())
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"  # noqa: PLR2004 - two hours


def _rerun(facts: JobFacts) -> str:
    return f"coremachine rerun {facts.job_id[:12]} --failed"


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _all_tasks(facts: JobFacts) -> str:
    return f"coremachine tasks {facts.job_id[:12]} -o json"


def _told_reason(facts: JobFacts, reason: str) -> str:
    return brief_text(reason, see=f"`coremachine events {facts.job_id[:12]} -o json`")


def _error_text(error: Mapping[str, Any] | None, command: str) -> str:
    """The error in one line; the command shows the rest of a long one."""
    if not error:
        return "no reason is kept"
    kind, message = error.get("type"), str(error.get("message")).strip()
    return brief_text(f"{kind}: {message}" if kind else message, see=f"`{command}`")
