"""Compares this checkout with another one in a single run: what does a change cost?

The two take turns, so that whatever disturbs the machine disturbs both. Processor time is disturbed the least: it is
that of the contender's processes and the database's together. The other checkout has its own environment
(`make .venv/.ready` there). Example, for the release before:

    git worktree add ../before v0.1.0 && make -C ../before .venv/.ready
    python -m bench.against ../before
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg

from bench import measures
from bench.contender import ContenderProcess, python_of, running
from bench.servers import DATA, ROOT, database, postgres

# Tasks in a stage -> how often: 5,000 tasks and more, since processor time is known to 10 ms only.
SIZES = {100: 50, 1_000: 20, 10_000: 3}
CHAINS, MANY, SINGLES = 40, 200, 2_000
# A ratio above this counts as slower.
TOLERANCE = 1.05

# Measure -> seconds, in which less is better.
Found = dict[str, float]
_MEASURE = (
    "import json, sys; from bench import measures; "
    "print(json.dumps(getattr(measures, sys.argv[1])(*json.loads(sys.argv[2]))))"
)


def measure(root: Path, server_url: str) -> Found:
    """Every measure once, on the code of one checkout."""
    found: Found = {}
    for name in ("engine1", "engine2", "stack"):
        with _running(name, server_url, root) as (process, url):
            roots = [process.pid, server_pid(url)]
            for n, times in SIZES.items():
                found |= _timed(f"{name}: stage of {n:,}", roots, times, lambda n=n: process.call("run_fan", n))
            found |= _timed(f"{name}: chain", roots, CHAINS, lambda: process.call("run_chain"))
            found |= _timed(f"{name}: {MANY} chains", roots, 4, lambda: process.call("run_many", MANY))
            if name == "stack":
                singles = f"stack: {SINGLES:,} single messages"
                found |= _timed(singles, roots, 1, lambda: process.call("run_job", "bench_fan_single", SINGLES))
                found |= _measure_load(str(process.call("address")), url)
    with _running("engine8", server_url, root) as (process, url):
        single = f"engine8: {SINGLES:,} single messages"
        roots = [process.pid, server_pid(url)]
        found |= _timed(single, roots, 1, lambda: process.call("run_job", "bench_fan_single", SINGLES))
    limits = _ask(root, "measure_limits", server_url)
    found |= {f"limits: {name}": 1 / rate for name, rate in limits.items()}
    found["planning of 20,000"] = _ask(root, "measure_planning", server_url, 20_000)["plan_seconds"]
    return found | _ask(root, "measure_cold_start")


def _timed(name: str, roots: list[int], times: int, call: Callable[[], Any]) -> Found:
    """The median of what the call returns, in seconds, and the processor time of a call on average."""
    before = processor_seconds(roots)
    seconds = [float(call()) for _ in range(times)]
    return {name: median(seconds), f"{name}, processor": (processor_seconds(roots) - before) / times}


def processor_seconds(roots: list[int]) -> float:
    """Of these processes and all below them, with those that have ended."""
    spent = 0.0
    for root in map(psutil.Process, roots):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                spent += sum(process.cpu_times()[:4])
    return spent


def server_pid(url: str) -> int:
    """The first process of the PostgreSQL that has the database."""
    with psycopg.connect(url) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()


def _measure_load(address: str, url: str) -> Found:
    """Jobs submitted by several clients at once, from the first submission until the last job has ended.

    How many submissions are answered meanwhile is no measure: it is higher where fewer of the jobs are run.
    """
    start = time.perf_counter()
    if not (rates := measures.measure_submissions(address)):
        return {}
    measures.wait_until_idle(url)
    return {"stack: one job of many, submitted and run": (time.perf_counter() - start) / rates["submitted"]}


@contextmanager
def _running(name: str, server_url: str, root: Path) -> Iterator[tuple[ContenderProcess, str]]:
    with database(server_url, f"against_{name}") as url, running(name, url, {}, root) as process:
        yield process, url


def _ask(root: Path, function: str, *arguments: object) -> Found:
    """A function of the checkout's `bench.measures`."""
    command = [python_of(root), "-c", _MEASURE, function, json.dumps(arguments)]
    ran = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ran.stdout))


def table(before: list[Found], after: list[Found]) -> str:
    """A row for each measure: both medians, and the ratio of each repetition's pair."""
    lines = ["| measure | before | after | after / before | of each pair |  |", "|---|---|---|---|---|---|"]
    for name in after[0]:
        if name not in before[0]:
            continue
        old, new = median(one[name] for one in before), median(one[name] for one in after)
        pairs = sorted(second[name] / first[name] for first, second in zip(before, after, strict=True))
        verdict = "**slower**" if new / old > TOLERANCE and median(pairs) > TOLERANCE else ""
        shown = f"{old * 1e3:,.3f} ms | {new * 1e3:,.3f} ms"
        lines.append(f"| {name} | {shown} | {new / old:.2f} | {pairs[0]:.2f} to {pairs[-1]:.2f} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    checkouts = {"before": asked.before.resolve(), "after": ROOT}
    found: dict[str, list[Found]] = {name: [] for name in checkouts}
    start = time.monotonic()
    with postgres() as url:
        for repetition in range(asked.repeats):
            # Neither is always the first.
            for name in list(checkouts)[:: -1 if repetition % 2 else 1]:
                print(f"{time.monotonic() - start:7.0f} s  {repetition + 1}: {name}", file=sys.stderr, flush=True)
                found[name].append(measure(checkouts[name], url))
            (DATA / "against.json").write_text(json.dumps(found))
            print(table(found["before"], found["after"]), flush=True)


if __name__ == "__main__":
    main()
