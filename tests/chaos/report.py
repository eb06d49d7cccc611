"""Figures of a run: how soon work went on after each fault, and what the rows, the events and the logs count."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from coremachine.local.stack import LocalStack
from tests.chaos.faults import FaultRecord

# What the host's log says of things that the rows do not keep.
_LOG_LINES = (
    "tasks_not_claimed",
    "job_message_without_effect",
    "task_message_without_rows",
    "stale_lease_refused",
    "lease_lost",
    "message_kept",
    "database_away",
    "database_back",
    "message_not_confirmed",
    "janitor_step_failed",
    "entity_unavailable",
    "lock_renewal_failed",
    "settle_failed",
    "worker_died",
    "postgres_died",
    "broker_died",
    "operation_failed",
)


# What a janitor's sweep did: tasks taken back from the dead, rows announced again by the reason, stages ended.
_REPAIRS = """
select case event when 'janitor_announced_tasks' then 'tasks announced, ' || (detail ->> 'reason')
    when 'janitor_announced_job' then 'jobs announced, ' || (detail ->> 'reason') else event end,
  sum(coalesce((detail ->> 'count')::integer, 1))
from app.job_events where event like 'janitor%' or event = 'task_interrupted' group by 1 order by 1
"""


@dataclass
class Figures:
    """Seconds by the name of the fault, and counts by name."""

    next_completion: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    handed_on: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    log_lines: dict[str, int] = field(default_factory=dict)
    longest_pause_seconds: float = 0.0


def read_figures(stack: LocalStack, faults: Iterable[FaultRecord]) -> Figures:
    """Read them while the database is still there."""
    figures = Figures()
    with psycopg.connect(stack.info.database_url) as connection:
        for fault in faults:
            _add_recovery(connection, fault, figures)
        figures.events = dict(
            connection.execute("select event, count(*) from app.job_events group by event order by event").fetchall()
        )
        figures.counts = _counts(connection)
        figures.repairs = dict(connection.execute(_REPAIRS).fetchall())
        figures.longest_pause_seconds = _longest_pause(connection)
    log = (stack.data_dir / "logs" / "host.log").read_text(encoding="utf-8", errors="replace")
    seen = Counter(word for line in log.splitlines() for word in _LOG_LINES if word in line)
    figures.log_lines = {word: seen[word] for word in _LOG_LINES if seen[word]}
    return figures


def _add_recovery(connection: "psycopg.Connection[Any]", fault: FaultRecord, figures: Figures) -> None:
    row = connection.execute(
        "select extract(epoch from min(finished_at) - %(at)s)::float8 from app.tasks where finished_at > %(at)s "
        "and exists (select from app.tasks where created_at < %(at)s and finished_at > %(at)s)",
        {"at": fault.at},
    ).fetchone()
    if row is not None and row[0] is not None:
        figures.next_completion[fault.name].append(row[0])
    row = connection.execute(
        """
        select max(extract(epoch from least(t.finished_at, handed.at) - %(at)s))::float8
        from unnest(%(jobs)s::text[], %(tasks)s::text[]) held(job_id, task_id)
        join app.tasks t using (job_id, task_id)
        left join lateral (
          select min(e.at) at from app.job_events e
          where e.job_id = t.job_id and e.task_id = t.task_id and e.at > %(at)s
            and e.event in ('task_interrupted', 'retry_scheduled')
        ) handed on true
        """,
        {"at": fault.at, "jobs": [job for job, _ in fault.held], "tasks": [task for _, task in fault.held]},
    ).fetchone()
    if row is not None and row[0] is not None:
        figures.handed_on[fault.name].append(row[0])


def _counts(connection: "psycopg.Connection[Any]") -> dict[str, int]:
    statements = {
        "jobs": "select count(*) from app.jobs",
        "tasks": "select count(*) from app.tasks",
        "attempts with an effect": "select count(*) from chaos.effects",
        "tasks with more than one effect": (
            "select count(*) from (select from chaos.effects group by job_id, task_id having count(*) > 1) more"
        ),
        "interruptions": "select coalesce(sum(interruptions), 0) from app.tasks",
        "most interruptions of a task": "select coalesce(max(interruptions), 0) from app.tasks",
        "most attempts of a task": "select coalesce(max(attempt), 0) from app.tasks",
        "dead letters": "select count(*) from app.dead_letters",
    }
    return {name: int(connection.execute(text).fetchone()[0]) for name, text in statements.items()}  # type: ignore[index]


def _longest_pause(connection: "psycopg.Connection[Any]") -> float:
    """Between two tasks that ended one after the other."""
    row = connection.execute(
        "select coalesce(max(extract(epoch from pause)), 0)::float8 from (select finished_at - "
        "lag(finished_at) over (order by finished_at) pause from app.tasks where finished_at is not null) pauses"
    ).fetchone()
    return 0.0 if row is None else float(row[0])


def report_lines(figures: Figures) -> list[str]:
    """For people to read."""
    lines = [
        "seconds from a fault until the next task ended, and until all tasks in work then had ended or were handed on:"
    ]
    lines.append(f"  {'fault':20} {'n':>3}  {'p50':>6} {'p95':>6} {'max':>6}    {'p50':>6} {'p95':>6} {'max':>6}")
    names = sorted(figures.next_completion.keys() | figures.handed_on.keys())
    for name in names:
        first, held = figures.next_completion[name], figures.handed_on[name]
        lines.append(f"  {name:20} {len(first):3}  {_spread(first)}    {_spread(held)}")
    every = [seconds for name in names for seconds in figures.next_completion[name]]
    held = [seconds for name in names for seconds in figures.handed_on[name]]
    lines.append(f"  {'all':20} {len(every):3}  {_spread(every)}    {_spread(held)}")
    lines.append(f"longest time without an end of a task: {figures.longest_pause_seconds:.1f} s")
    titled = {
        "rows": figures.counts,
        "events": figures.events,
        "repairs": figures.repairs,
        "log": figures.log_lines,
    }
    for title, counts in titled.items():
        lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return lines


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return f"{'-':>6} {'-':>6} {'-':>6}"
    ordered = sorted(seconds)
    return f"{statistics.median(ordered):6.2f} {ordered[math.ceil(0.95 * len(ordered)) - 1]:6.2f} {ordered[-1]:6.2f}"
