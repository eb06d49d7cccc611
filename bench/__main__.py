"""`make bench` and `make bench-quick`; `python -m bench --help` says what else can be asked for."""

import argparse
import time

from bench.peers import CONTENDERS
from bench.report import write
from bench.runner import Plan, run


def read_plan(arguments: list[str] | None = None) -> tuple[Plan, str, bool]:
    """The plan, its name, and whether it is the whole of it, which the document is written from."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="CoreMachine beside its peers.")
    parser.add_argument("--quick", action="store_true", help="two minutes: ours, the floor and one peer; small n")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repetitions (default 3)")
    parser.add_argument("--only", help=f"contenders with commas between, of {', '.join(CONTENDERS)}")
    parser.add_argument("--sizes", default="100,1000,10000,100000", help="tasks of the fan-out stage")
    parser.add_argument("--chains", type=int, default=500, help="lone chains of each contender, in all (default 500)")
    parser.add_argument("--no-measures", action="store_true", help="contenders alone, not our own figures and limits")
    parser.add_argument("--cloud", action="store_true", help="2 ms to the database, 3 ms a commit, 5 ms to the broker")
    asked = parser.parse_args(arguments)
    if asked.quick:
        only = ("floor", "engine1", "engine2", "stack1", "stack", "pgqueuer")
        return Plan(only, (100, 1_000), 2, chains=10, many=20, with_measures=False), "quick", False
    only = tuple(asked.only.split(",")) if asked.only else tuple(CONTENDERS)
    unknown = set(only) - set(CONTENDERS)
    if unknown:
        parser.error(f"--only: expected some of {', '.join(CONTENDERS)}, found {', '.join(sorted(unknown))}")
    sizes = tuple(int(size) for size in asked.sizes.split(","))
    with_measures = not asked.no_measures
    is_whole = asked.only is None and with_measures
    plan = Plan(
        only, sizes, asked.repeats, chains=asked.chains, many=200, with_measures=with_measures, is_cloud=asked.cloud
    )
    name = "cloud" if asked.cloud else "bench"
    return plan, name if is_whole else f"{name}_part", is_whole


def main() -> None:
    plan, name, is_whole = read_plan()
    start = time.monotonic()
    report = run(
        plan,
        tell=lambda text: print(f"{time.monotonic() - start:7.0f} s  {text}", flush=True),
        keep=lambda report: write(report, name, is_full=is_whole),
    )
    print(write(report, name, is_full=is_whole))


if __name__ == "__main__":
    main()
