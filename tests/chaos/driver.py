"""One chaos run: a stack, jobs that come in over its length, faults meanwhile, and the wait for the end."""

import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from coremachine.local.broker.config import default_config_path
from coremachine.local.stack import LocalStack
from tests.chaos.checks import SubmittedJob, find_hanging, find_violations, shares
from tests.chaos.faults import FaultRecord, Faults
from tests.chaos.jobs import EFFECTS_TABLE, LEASE_SECONDS, ChaosJob, SingleChaosJob, TolerantChaosJob
from tests.chaos.report import Figures, read_figures

# Messages, of three workers together: there is nearly always something in work, and often something that waits.
AT_ONCE = 12
PROJECT_ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "COREMACHINE_JOBS": "tests.chaos.jobs:build_registry",
    "COREMACHINE_HTTP_AUTH": "anonymous",
    "COREMACHINE_SWEEP_SCHEDULE": "*/2 * * * * *",
    "AzureFunctionsJobHost__extensions__serviceBus__maxConcurrentCalls": str(AT_ONCE),
}
# How often a fault is taken, in comparison with the others.
WEIGHTS = {
    "kill_worker": 5,
    "kill_all_workers": 1,
    "freeze_worker": 2,
    "postgres_fast": 1,
    "postgres_immediate": 1,
    "kill_broker": 1,
    "terminate_backends": 3,
    "expire_leases": 4,
    "duplicate_messages": 5,
    "reject_sends": 3,
    "drop_connections": 2,
    "expire_locks": 3,
}
PAUSES_SECONDS = (1.0, 6.0)
# The first so many faults have each of them among them.
DECK = 24


@dataclass(frozen=True)
class Options:
    """What a run is.

    Args:
        tasks: Of all jobs together.
        seconds: Jobs are submitted over four fifths of it, and faults happen until its end.
        end_seconds: How long jobs may take to end after the last fault.
        script: Faults with the second that each begins at; without one they are taken at random.
        down_seconds: How long PostgreSQL is away, once.
        keep: Leave the stack's folder behind even if all is well.
    """

    seed: int
    tasks: int = 10_000
    seconds: float = 240.0
    jobs: int = 16
    workers: int = 3
    end_seconds: float = 360.0
    script: Sequence[tuple[float, str]] | None = None
    down_seconds: float = 10.0
    keep: bool = False

    @property
    def work_seconds(self) -> float:
        """What a task lasts on average, so that there is work over the whole time, and an end of it."""
        return min(1.0, AT_ONCE * self.seconds / self.tasks)


@dataclass
class Run:
    """What came of it; `violations` is empty when all is well."""

    options: Options
    jobs: list[SubmittedJob] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    figures: Figures | None = None
    folder: Path | None = None


def run_chaos(options: Options) -> Run:
    """Run it. The stack's folder is kept, for its logs, when something is wrong."""
    run = Run(options, folder=Path(tempfile.mkdtemp(prefix="chaos-")))
    assert run.folder is not None
    broker_config = run.folder / "Config.json"
    # A message in the hands of a process that was killed comes back as soon as that one's leases end.
    text = default_config_path().read_text(encoding="utf-8")
    broker_config.write_text(text.replace('"LockDuration": "PT1M"', f'"LockDuration": "PT{LEASE_SECONDS}S"'))
    stack = LocalStack(
        run.folder / "stack",
        broker_config=broker_config,
        http_port=0,
        amqp_port=0,
        admin_port=0,
        workers=options.workers,
        app_dir=PROJECT_ROOT,
        environment=ENVIRONMENT,
    )
    with stack:
        _make_effects_table(stack.info.database_url)
        _drive(stack, run)
    if not run.violations and not options.keep:
        shutil.rmtree(run.folder)
        run.folder = None
    return run


def _drive(stack: LocalStack, run: Run) -> None:
    options = run.options
    began = time.monotonic()
    faults = Faults(stack, options.seed, options.down_seconds)
    run.faults = faults.records
    with ThreadPoolExecutor(1, "submit") as submitter:
        submitted = submitter.submit(_submit_all, stack.url, run, began)
        for at, name in options.script or _random_script(options):
            time.sleep(max(0.0, began + at - time.monotonic()))
            record = faults.do(name)
            say(f"{time.monotonic() - began:6.1f} s  {name}: {record.detail} ({len(record.held)} tasks in work)")
        submitted.result()
    if not _wait_for_end(stack, run):
        run.violations = [f"not ended: {line}" for line in find_hanging(stack.info.database_url)]
    run.violations += find_violations(stack.info.database_url, run.jobs)
    run.figures = read_figures(stack, faults.records)


def _random_script(options: Options) -> Iterator[tuple[float, str]]:
    """Faults until the time is over; PostgreSQL is away for a while once, in the middle."""
    rng = random.Random(f"{options.seed}:script")
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    deck = names + rng.choices(names, weights, k=DECK - len(names))
    rng.shuffle(deck)
    at, was_down = 1.0, False
    while at < options.seconds:
        if not was_down and at > options.seconds * 0.4:
            was_down = True
            yield at, "postgres_down"
            at += options.down_seconds
        else:
            yield at, deck.pop() if deck else rng.choices(names, weights)[0]
        at += rng.uniform(*PAUSES_SECONDS)


def _submit_all(url: str, run: Run, began: float) -> None:
    """One job after the other, whatever the state of the stack: an answer that was lost is asked for again."""
    options = run.options
    rng = random.Random(f"{options.seed}:jobs")
    pause = 0.8 * options.seconds / options.jobs
    with httpx.Client(base_url=f"{url}/api/", timeout=30) as http:
        for place, n in enumerate(shares(options.tasks, options.jobs)):
            time.sleep(max(0.0, began + place * pause - time.monotonic()))
            # The first three are one of each kind.
            kind = place if place < 3 else rng.randrange(8)
            job_type = {1: SingleChaosJob, 2: TolerantChaosJob}.get(kind, ChaosJob).job_type
            fail_every = 37 if kind in {2, 3} else 0
            parameters = {
                "name": f"{options.seed}-{place}",
                "n": n,
                "fail_every": fail_every,
                "work_seconds": options.work_seconds,
            }
            run.jobs.append(SubmittedJob(_submit(http, job_type, parameters), job_type, n, fail_every))


def _submit(http: httpx.Client, job_type: str, parameters: dict[str, object]) -> str:
    deadline = time.monotonic() + 300
    while True:
        problem: object
        try:
            answer = http.post(f"jobs/submit/{job_type}", json=parameters)
        except httpx.TransportError as error:
            problem = error
        else:
            if answer.is_success:
                return str(answer.json()["job_id"])
            problem = answer.text
            assert answer.status_code >= 500, problem
        assert time.monotonic() < deadline, f"not submitted within five minutes: {problem}"
        time.sleep(0.2)


def _wait_for_end(stack: LocalStack, run: Run) -> bool:
    deadline = time.monotonic() + run.options.end_seconds
    while time.monotonic() < deadline:
        with _unless_away(), psycopg.connect(stack.info.database_url, connect_timeout=5) as connection:
            (open_jobs,) = connection.execute("select count(*) from app.jobs where finished_at is null").fetchone()
            if open_jobs == 0:
                return True
        time.sleep(0.25)
    return False


@contextmanager
def _unless_away() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError:
        time.sleep(0.5)


def _make_effects_table(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(EFFECTS_TABLE)


_output = threading.Lock()


def say(line: str) -> None:
    """To people who wait."""
    with _output:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
