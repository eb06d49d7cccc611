"""What CoreMachine set out to reach, beside what a run found."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.measures import percentile
from bench.peers import CONTENDERS
from bench.runner import Report

LARGE = 10_000
# Celery's results are in a Redis that may lose them, those of the Durable Task SDK in memory.
NOT_DURABLE = frozenset({"celery", "celery_chunks", "durabletask"})
# A crash repeats what has ended, too: they are to be compared with a hundred tasks per message.
BATCHED = frozenset({"pgqueuer"})
ORCHESTRATORS = frozenset(
    {"dbos_steps", "dbos_queue", "absurd_steps", "absurd_tasks", "prefect", "durabletask", "restate"}
)


@dataclass(frozen=True)
class Goal:
    """One line: `is_reached` is None for what was not measured."""

    measure: str
    goal: str
    found: str
    is_reached: bool | None


def goal_lines(report: Report) -> Iterator[str]:
    """The table, as Markdown."""
    yield "| measure | goal | found | reached |"
    yield "|---|---|---|---|"
    words = {True: "yes", False: "**no**", None: "not measured"}
    for goal in find_goals(report):
        # What a run with the latency of a cloud leaves out was not missed by it.
        if report.plan.is_cloud and goal.is_reached is None:
            continue
        yield f"| {goal.measure} | {goal.goal} | {goal.found} | {words[goal.is_reached]} |"


def find_goals(report: Report) -> Iterator[Goal]:
    """All of them, from the medians of one run."""
    yield from _throughput(report)
    yield from _paths(report)
    yield from _latency(report)
    yield from _own(report)


def _throughput(report: Report) -> Iterator[Goal]:
    rates = {
        name: LARGE / median(outcome.fan[LARGE]) for name, outcome in report.outcomes.items() if LARGE in outcome.fan
    }
    peers = {name: rate for name, rate in rates.items() if not CONTENDERS[name].is_ours}
    durable = {name: rate for name, rate in peers.items() if name not in NOT_DURABLE}
    best = _best(durable)
    best_single = _best({name: rate for name, rate in durable.items() if name not in BATCHED})
    orchestrator = _best({name: rate for name, rate in peers.items() if name in ORCHESTRATORS})
    stack, engine, floor = (rates.get(name) for name in ("stack", "engine2", "floor"))
    stage = "whole stack, stage of 10,000"
    yield _at_least(f"{stage}, against the best durable peer", stack, best, 3, "x")
    yield _at_least(f"{stage}, one task per message, the same", rates.get("stack1"), best, 1, "x")
    yield _at_least(
        f"{stage}, one task per message, against the best that repeats only what runs",
        rates.get("stack1"),
        best_single,
        1,
        "x",
    )
    yield _at_least(f"{stage}, against the best durable orchestrator", stack, orchestrator, 8, "x")
    yield _at_least(f"{stage}, against the floor", stack, ("floor", floor) if floor else None, 0.35)
    yield _at_least(
        "engine alone, stage of 10,000, against the floor", engine, ("floor", floor) if floor else None, 0.6
    )
    for name in ("engine2", "stack"):
        yield _flat(report, name)


def _flat(report: Report, name: str) -> Goal:
    label = f"{CONTENDERS[name].label}: one more task of 100,000 against one of 100"
    ratio = flatness(report, name)
    found = "-" if ratio is None else f"{ratio:.2f}"
    return Goal(label, "at most 1.10", found, None if ratio is None else ratio <= 1.1)


def flatness(report: Report, name: str) -> float | None:
    """What one more task costs a large stage, against a small one: what a job costs whatever its size drops out."""
    fan = {n: median(runs) for n, runs in report.outcomes[name].fan.items()} if name in report.outcomes else {}
    if not {100, 1_000, 10_000, 100_000} <= fan.keys():
        return None
    return ((fan[100_000] - fan[10_000]) / 90_000) / ((fan[1_000] - fan[100]) / 900)


def _paths(report: Report) -> Iterator[Goal]:
    pairs = (
        ("completion path, 100 a call, 1 connection, against bare updates", "completions_1", "bare_batches_1", 0.7),
        ("the same, 8 connections, one stage", "completions_8", "bare_batches_8", 0.7),
        ("completion of one task per call, 8 connections, one stage", "single_completions_8", "bare_updates_8", 0.6),
    )
    for label, above, below, least in pairs:
        ratio = _ratio(report, above, below)
        found = "-" if ratio is None else f"{ratio:.2f}"
        yield Goal(label, f"at least {least:.2f}", found, None if ratio is None else ratio >= least)


def _latency(report: Report) -> Iterator[Goal]:
    chains = {name: outcome.chain for name, outcome in report.outcomes.items() if outcome.chain}
    durable = {name: runs for name, runs in chains.items() if not CONTENDERS[name].is_ours and name not in NOT_DURABLE}
    if "stack" in chains and durable:
        fastest = min(durable, key=lambda name: median(durable[name]))
        ours, theirs = _spread(chains["stack"]), _spread(durable[fastest])
        yield Goal(
            "whole stack, three-stage job, p50 / p95",
            f"no slower than {CONTENDERS[fastest].label}: {_milliseconds(theirs)}",
            _milliseconds(ours),
            all(a <= b for a, b in zip(ours, theirs, strict=True)),
        )
    if "engine1" in chains and "floor" in chains:
        ours, floor = _spread(chains["engine1"]), _spread(chains["floor"])
        yield Goal(
            "engine alone (queue in memory, 1 process), the same",
            f"at most twice the floor: {_milliseconds(floor)}",
            _milliseconds(ours),
            ours[0] <= 2 * floor[0],
        )
    rates = {
        name: max(count / median(runs) for count, runs in outcome.many.items())
        for name, outcome in report.outcomes.items()
        if outcome.many
    }
    best = _best({name: rate for name, rate in rates.items() if not CONTENDERS[name].is_ours})
    yield _at_least("200 such jobs at once, over HTTP", rates.get("stack"), best, 2, "x")
    producer = report.measures.get("many_from_producer")
    yield _at_least(
        "the same, submitted by a process of the app, as the peers' are",
        median(producer) if producer else None,
        best,
        2,
        "x",
    )


def _own(report: Report) -> Iterator[Goal]:
    for label, name, least in (
        ("1,000 tasks of 100 ms: share of the slots", "share_100_ms", 0.9),
        ("200 tasks of 1 s: share of the slots", "share_1_s", 0.9),
    ):
        values = report.measures.get(name)
        found = f"{median(values):.2f}" if values else "-"
        yield Goal(label, f"at least {least}", found, median(values) >= least if values else None)
    for label, name, most, form in (
        ("a job of 3 tasks behind 1,200 of 100 ms", "small_behind_ms", 1_000, "{:,.0f} ms"),
        ("the same after 20,000 single messages were cancelled", "small_after_cancel_ms", 1_000, "{:,.0f} ms"),
        (
            "the same, 3 s after the begin of 8,000 of 100 ms, 100 tasks per message",
            "small_behind_batched_ms",
            1_000,
            "{:,.0f} ms",
        ),
        # Each slot may have just begun a task of a second.
        (
            "the same after 1,500 of 1 ms and 1,500 of 1 s without `tasks_per_message`",
            "small_behind_mixed_ms",
            1_500,
            "{:,.0f} ms",
        ),
        ("plan and announce 100,000 tasks", "plan_seconds", 15, "{:.1f} s"),
        ("memory that it adds", "plan_megabytes", 200, "{:.0f} MB"),
        ("connections a worker process", "connections_per_worker", 4, "{:.1f}"),
        ("list of jobs beside 1,000,000 task rows, over HTTP, p95", "read_list_p95_ms", 50, "{:.1f} ms"),
        ("detail of a job of 100,000 tasks, p95", "read_large_detail_p95_ms", 50, "{:.1f} ms"),
        ("a waiting client sees the end, p95", "end_lag_p95_ms", 100, "{:.1f} ms"),
        ("detail of a running job of 100,000 tasks, p50", "look_large_ms", 20, "{:.1f} ms"),
        ("retention of 100,000 jobs of one task", "prune_jobs_seconds", 20, "{:.0f} s"),
        ("idle stack, of a core", "idle_share", 0.01, "{:.1%}"),
        ("memory of planning 1,000 tasks with 100 KB each", "heavy_plan_megabytes", 64, "{:.0f} MB"),
    ):
        values = report.measures.get(name)
        found = form.format(median(values)) if values else "-"
        yield Goal(label, f"at most {form.format(most)}", found, median(values) <= most if values else None)
    waits = _ratio(report, "middle_behind_ms", "middle_alone_ms")
    found = "-" if waits is None else f"{waits:.2f}"
    yield Goal(
        "200 tasks of 10 ms behind 20,000, against alone", "at most 2", found, None if waits is None else waits <= 2
    )
    for label, above, below in (
        ("three-stage job beside 1,000,000 task rows, against none", "chain_million_ms", "chain_empty_ms"),
        ("stage of 10,000, the same", "fan_million_seconds", "fan_empty_seconds"),
        ("`db verify`, per job of 10,000, against of 1,000", "verify_many_ms", "verify_few_ms"),
    ):
        ratio = _ratio(report, above, below)
        found = "-" if ratio is None else f"{ratio:.2f}"
        yield Goal(label, "at most 1.10", found, None if ratio is None else ratio <= 1.1)


def _at_least(label: str, ours: float | None, other: tuple[str, float] | None, least: float, unit: str = "") -> Goal:
    goal = f"at least {least:g}{unit}"
    if ours is None or other is None:
        return Goal(label, goal, "-", None)
    name, rate = other
    return Goal(label, goal, f"{ours / rate:.2f}{unit} ({CONTENDERS[name].label})", ours / rate >= least)


def _best(rates: dict[str, float]) -> tuple[str, float] | None:
    return max(rates.items(), key=lambda item: item[1], default=None)


def _ratio(report: Report, above: str, below: str) -> float | None:
    """The median over repetitions of one by the other."""
    if above not in report.measures or below not in report.measures:
        return None
    return median(a / b for a, b in zip(report.measures[above], report.measures[below], strict=True))


def _spread(seconds: Sequence[float]) -> tuple[float, float]:
    return median(seconds), percentile(list(seconds), 0.95)


def _milliseconds(spread: tuple[float, float]) -> str:
    return " / ".join(f"{seconds * 1e3:.1f}" for seconds in spread) + " ms"
