"""Runs contenders in turn, again and again, so that what disturbs the machine disturbs all of them alike."""

import contextlib
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from statistics import median
from typing import Any

from bench import growth, measures
from bench.contender import ContenderFailed, ContenderProcess, running
from bench.latency import cloud_broker, cloud_database
from bench.peers import CONTENDERS
from bench.servers import database, postgres, redis, settings_of

# A contender whose run is expected to last longer has one run of that kind; much longer, none.
LONG_SECONDS, TOO_LONG_SECONDS = 45.0, 400.0
# What the lone chains of one contender may last in a repetition.
CHAINS_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """What is to be run. `chains` single ones in all, `many` at once a repetition."""

    contenders: Sequence[str]
    sizes: Sequence[int]
    repeats: int
    chains: int
    many: int
    with_measures: bool = True
    # The database and the brokers as far away as in a cloud: bench.latency.
    is_cloud: bool = False


@dataclass
class Outcome:
    """What one contender did: seconds of each run."""

    versions: dict[str, str] = field(default_factory=dict)
    fan: dict[int, list[float]] = field(default_factory=dict)
    chain: list[float] = field(default_factory=list)
    many: dict[int, list[float]] = field(default_factory=dict)
    problem: str | None = None


@dataclass
class Report:
    """Everything that was found; written as JSON."""

    machine: dict[str, Any]
    postgres: dict[str, str]
    plan: Plan
    outcomes: dict[str, Outcome]
    measures: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed_measures: dict[str, str] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)
    repetitions: int = 0


def run(plan: Plan, tell: Callable[[str], None], keep: Callable[[Report], object]) -> Report:
    """All of the plan; `keep` gets what there is after each repetition.

    A contender that fails is left out from there on, with its reason; the others go on. So with a figure of our own.
    """
    with contextlib.ExitStack() as started:
        url = started.enter_context(postgres())
        if plan.is_cloud:
            url = started.enter_context(cloud_database(url))
        report = Report(_machine(), settings_of(url), plan, {name: Outcome() for name in plan.contenders})
        for name in plan.contenders:
            absent = [need for need in CONTENDERS[name].needs if shutil.which(need) is None]
            if absent:
                report.missing[name] = absent[0]
        for repetition in range(1, plan.repeats + 1):
            # In an order of its own each time: nobody always comes after the same neighbour, or last on a warm machine.
            for name in random.sample(plan.contenders, len(plan.contenders)):
                if name in report.missing or report.outcomes[name].problem:
                    continue
                report.loads.append(getloadavg()[0])
                tell(f"repetition {repetition} of {plan.repeats}: {CONTENDERS[name].label}")
                try:
                    _run_contender(name, url, plan, report.outcomes[name], is_first=repetition == 1)
                except ContenderFailed as error:
                    report.outcomes[name].problem = str(error)
                    tell(f"  left out: {error}")
            if plan.with_measures:
                tell(f"repetition {repetition} of {plan.repeats}: CoreMachine's own figures and the limits")
                _run_measures(url, plan, report, tell)
            report.repetitions = repetition
            report.loads.append(getloadavg()[0])
            keep(report)
    return report


def _run_measures(url: str, plan: Plan, report: Report, tell: Callable[[str], None]) -> None:
    for name, call in _measures(url, plan, is_first=report.repetitions == 0).items():
        if name in report.failed_measures:
            continue
        try:
            found = call()
        except Exception as error:  # noqa: BLE001 - an hour of other figures is worth more; it is told
            report.failed_measures[name] = f"{type(error).__name__}: {error}"
            tell(f"  {name} left out: {report.failed_measures[name]}")
            continue
        for key, value in found.items():
            report.measures.setdefault(key, []).append(value)


def _run_contender(name: str, server_url: str, plan: Plan, outcome: Outcome, *, is_first: bool) -> None:
    with contextlib.ExitStack() as started:
        environment: dict[str, str] = {}
        if "redis-server" in CONTENDERS[name].needs:
            port = started.enter_context(redis())
            if plan.is_cloud:
                port = started.enter_context(cloud_broker(port))
            environment["BENCH_REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        if plan.is_cloud:
            environment["BENCH_CLOUD"] = "1"
        url = started.enter_context(database(server_url, f"bench_{name}"))
        process = started.enter_context(running(name, url, environment))
        outcome.versions = process.versions
        # Before the fans: what large ones leave in a store slows down some peers' chains.
        _run_chains(process, plan, outcome)
        _run_many(process, plan, outcome, is_first=is_first)
        for n in plan.sizes:
            if n <= CONTENDERS[name].largest and _is_worthwhile(outcome.fan, n, is_first=is_first):
                outcome.fan.setdefault(n, []).append(process.call("run_fan", n))


def _run_chains(process: ContenderProcess, plan: Plan, outcome: Outcome) -> None:
    """A repetition's share of the lone chains; fewer of those that last long."""
    until = time.monotonic() + CHAINS_SECONDS
    for _ in range(-(-plan.chains // plan.repeats)):
        outcome.chain.append(process.call("run_chain"))
        if time.monotonic() > until:
            break


def _run_many(process: ContenderProcess, plan: Plan, outcome: Outcome, *, is_first: bool) -> None:
    """Chains at once; fewer for those to whom so many would be a long time."""
    expected = median(outcome.chain) * plan.many
    count = plan.many if expected < 3 * LONG_SECONDS else plan.many // 10
    if is_first or median(outcome.many[count]) < LONG_SECONDS:
        outcome.many.setdefault(count, []).append(process.call("run_many", count))


def _is_worthwhile(fan: dict[int, list[float]], n: int, *, is_first: bool) -> bool:
    if n in fan:
        return median(fan[n]) < LONG_SECONDS
    smaller = max((size for size in fan if size < n), default=None)
    expected = median(fan[smaller]) / smaller * n if smaller else 0.0
    return is_first and expected < TOO_LONG_SECONDS


def _measures(url: str, plan: Plan, *, is_first: bool) -> dict[str, Callable[[], dict[str, float]]]:
    if plan.is_cloud:
        return {"waits": lambda: measures.measure_waits(url, is_cloud=True)} if is_first else {}
    found: dict[str, Callable[[], dict[str, float]]] = {
        "cold start": measures.measure_cold_start,
        "limits": lambda: measures.measure_limits(url),
        "single-task messages": lambda: measures.measure_single_messages(url, 2_000),
        "failing tasks, eight jobs": lambda: measures.measure_engine_variants(url, 8_000),
        "planning": lambda: measures.measure_planning(url, max(plan.sizes)),
    }
    # They take a minute each.
    if is_first:
        found["waits"] = lambda: measures.measure_waits(url, is_cloud=False)
        found["HTTP"] = lambda: measures.measure_stack(url, 10_000)
        found["costs that grow"] = lambda: growth.measure_growth(url)
        found["planning of large parameters"] = lambda: growth.measure_heavy_plan(url)
    return found


def _machine() -> dict[str, Any]:
    return {
        "cores": cpu_count(),
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load_before": round(getloadavg()[0], 2),
        "started": time.time(),
    }
