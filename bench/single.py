"""What a message of one task costs, by process, and how full the slots are: the whole stack over HTTP.

Run: python -m bench.single [--repeat 3] [--before FOLDER]   # another checkout, in turns with this one
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.fairness import BatchedRestJob, Jobs, RestJob, measure_in
from core.context import TaskContext
from coremachine.local.stack import LocalStack
from jobs.registry import Handler, Registry

ROOT = Path(__file__).parents[1]
WORKERS, SLOTS = 2, 8
SINGLES = 3_000
# Tasks, and milliseconds that each lasts.
LASTING = ((1_000, 100), (200, 1_000))
_KINDS = (("broker", "local.broker"), ("workers", "host.worker"), ("PostgreSQL", "postgres"))


def rest(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    del params
    if milliseconds := context.job_parameters["milliseconds"]:
        time.sleep(milliseconds / 1000)
    return {}


def build_registry(queues: Iterable[str]) -> Registry:
    return Registry([RestJob, BatchedRestJob], [Handler("rest", rest, queue="tasks")], queues)


def processor_seconds() -> Mapping[str, float]:
    """Of the stack's processes, by kind; this process is its supervisor and its client."""
    spent: dict[str, float] = defaultdict(float)
    own = psutil.Process()
    spent["host and client"] = sum(own.cpu_times()[:2])
    for process in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            kind = next((kind for kind, sign in _KINDS if sign in command), "other")
            spent[kind] += sum(process.cpu_times()[:2])
    return spent


def measure(jobs: Jobs, sizes: Mapping[str, int]) -> dict[str, float]:
    """Seconds and shares, by what was measured."""
    found: dict[str, float] = {}
    jobs.seconds("bench_rest", 300, 1)
    jobs.seconds("bench_rest", 300, 0)
    before = processor_seconds()
    seconds = jobs.seconds("bench_rest", sizes["singles"], 0)
    after = processor_seconds()
    found["single messages: tasks per second"] = sizes["singles"] / seconds
    for kind in after:
        found[f"{kind}: processor seconds per 1,000"] = (after[kind] - before[kind]) * 1000 / sizes["singles"]
    found["all: processor seconds per 1,000"] = (sum(after.values()) - sum(before.values())) * 1000 / sizes["singles"]
    for tasks, milliseconds in LASTING if sizes["lasting"] else ():
        for job_type in ("bench_rest", "bench_rest_batched"):
            seconds = jobs.seconds(job_type, tasks, milliseconds)
            ideal = tasks * milliseconds / 1000 / (WORKERS * SLOTS)
            found[f"{job_type}: {tasks:,} of {milliseconds} ms, share of the slots"] = ideal / seconds
    return found


def measure_here(sizes: Mapping[str, int]) -> dict[str, float]:
    environment = {"COREMACHINE_JOBS": "bench.single:build_registry", "COREMACHINE_HTTP_AUTH": "anonymous"}
    ports = {"http_port": 0, "amqp_port": 0, "admin_port": 0}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalStack(Path(folder), workers=WORKERS, environment=environment, **ports) as stack,
        httpx.Client(base_url=stack.url, timeout=120) as http,
    ):
        return measure(Jobs(http), sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--before", type=Path, help="a checkout to compare with; this file is to be in it, too")
    parser.add_argument("--singles", type=int, default=SINGLES, help="tasks of the job of single messages")
    parser.add_argument("--lasting", action="store_true", help="also tasks that last")
    parser.add_argument("--here", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        print(json.dumps(measure_here(options.here)))
        return
    sizes = {"singles": options.singles, "lasting": options.lasting}
    roots = [ROOT] if options.before is None else [options.before, ROOT]
    runs: dict[Path, list[dict[str, float]]] = {root: [] for root in roots}
    for _ in range(options.repeat):
        for root in roots:
            runs[root].append(measure_in(root, "bench.single", "--here", json.dumps(sizes)))
    for name in runs[ROOT][0]:
        medians = [statistics.median(run[name] for run in runs[root]) for root in roots]
        ratio = f"  {medians[-1] / medians[0]:6.2f} x" if len(medians) > 1 and medians[0] else ""
        print(f"{name:55}" + "".join(f"{median:9.3f}" for median in medians) + ratio)


if __name__ == "__main__":
    main()
