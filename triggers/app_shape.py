"""Which functions this app has: read from its settings with the standard library alone, as cold start wants it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.app_queues import (
    DEFAULT_JOBS_QUEUE,
    DEFAULT_SWEEP_SCHEDULE,
    DEFAULT_TASK_QUEUES,
    JOBS_QUEUE,
    JOBS_QUEUE_SETTING,
    TASK_QUEUES_SETTING,
    TASK_ROUTES_SETTING,
    WORKER_QUEUES_SETTING,
    find_queue_problems,
    find_route_problems,
    read_names,
    read_task_queues,
    read_task_routes,
)
from core.running.task_slots import DEFAULT_SLOTS

MODES = ("standalone", "platform", "worker")
HTTP_AUTH_LEVELS = ("function", "anonymous")
THREADS_SETTING = "PYTHON_THREADPOOL_THREAD_COUNT"
SLOTS_SETTING = "COREMACHINE_TASK_THREADS"
PROCESSES_SETTING = "FUNCTIONS_WORKER_PROCESS_COUNT"
# As Azure has it.
DEFAULT_PROCESSES = 1
# For the janitor, requests, and what else runs beside messages.
RESERVE_THREADS = 8
_CALLS_OVERRIDE = "azurefunctionsjobhost__extensions__servicebus__maxconcurrentcalls"


@dataclass(frozen=True)
class AppShape:
    """What this app serves.

    Args:
        jobs_queue: The real name; None when this app does not read it.
        task_queues: Logical to real name of the task queues that this app reads.
        sweep_schedule: NCRONTAB of the janitor; None when this app has none.
        dead_letter_queues: Logical to real name of the queues whose dead letters this app keeps: all of them where it
            moves jobs, since messages of a worker app expire just when that app is down.
        problems: Why the settings cannot be used, a sentence each. The app then serves HTTP alone, to say so.
    """

    serves_http: bool = True
    http_auth: str = "function"
    jobs_queue: str | None = None
    task_queues: Mapping[str, str] = field(default_factory=dict)
    sweep_schedule: str | None = None
    dead_letter_queues: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_shape(environment: Mapping[str, str]) -> AppShape:
    """What the COREMACHINE_ settings ask for; problems are part of the answer, so that the app can tell them."""
    problems: list[str] = []
    environment = {name: value.strip() for name, value in environment.items() if name.startswith("COREMACHINE_")}
    mode = _one_of(environment, "COREMACHINE_APP_MODE", MODES, problems)
    http_auth = _one_of(environment, "COREMACHINE_HTTP_AUTH", HTTP_AUTH_LEVELS, problems)
    queues, queue_problems = read_task_queues(environment.get(TASK_QUEUES_SETTING) or DEFAULT_TASK_QUEUES)
    jobs_queue = environment.get(JOBS_QUEUE_SETTING) or DEFAULT_JOBS_QUEUE
    served = read_names(environment.get(WORKER_QUEUES_SETTING) or "") or tuple(queues)
    problems += queue_problems or find_queue_problems(jobs_queue, queues, served)
    routes, route_problems = read_task_routes(environment.get(TASK_ROUTES_SETTING) or "")
    problems += route_problems or find_route_problems(routes, queues)
    if problems:
        return AppShape(http_auth=http_auth, problems=tuple(problems))
    advances_jobs = mode != "worker"
    return AppShape(
        serves_http=advances_jobs,
        http_auth=http_auth,
        jobs_queue=jobs_queue if advances_jobs else None,
        task_queues={} if mode == "platform" else {name: queues[name] for name in served},
        sweep_schedule=(environment.get("COREMACHINE_SWEEP_SCHEDULE") or DEFAULT_SWEEP_SCHEDULE)
        if advances_jobs
        else None,
        dead_letter_queues={JOBS_QUEUE: jobs_queue, **queues} if advances_jobs else {},
    )


def threads_needed(shape: AppShape, concurrent_calls: int) -> int:
    """The number of threads for every message that the host delivers at once, and for timers and requests.

    Args:
        concurrent_calls: `maxConcurrentCalls` of host.json, which counts for each queue function.
    """
    queues = len(shape.task_queues) + len(shape.dead_letter_queues) + (shape.jobs_queue is not None)
    return queues * concurrent_calls + RESERVE_THREADS


def find_thread_shortage(shape: AppShape, environment: Mapping[str, str], host_json: Path) -> str | None:
    """What to do about a pool that messages can fill, so that the janitor waits for handlers; None for one of its size.

    Nothing is guessed: without the file, or its `maxConcurrentCalls`, nothing is said.
    """
    calls = _concurrent_calls(environment, host_json)
    if calls is None or shape.problems:
        return None
    # The host deals them out to the processes in turn.
    share = -(-calls // _positive(environment.get(PROCESSES_SETTING), DEFAULT_PROCESSES))
    needed = threads_needed(shape, share)
    is_set = _positive(environment.get(THREADS_SETTING), 0) > 0
    # The default of Python's pools, which the worker leaves as it is.
    found = _positive(environment.get(THREADS_SETTING), min(32, (os.cpu_count() or 1) + 4))
    if found >= needed:
        return None
    return (
        f"{THREADS_SETTING}: expected at least {needed} ({share} of maxConcurrentCalls {calls} for each queue function "
        f"and {RESERVE_THREADS} for the rest), found {found}{'' if is_set else ' (the default)'}; raise it, or lower "
        "maxConcurrentCalls in host.json: while handlers have all threads, the janitor and requests wait"
    )


def find_slot_shortage(shape: AppShape, environment: Mapping[str, str], host_json: Path) -> str | None:
    """What to do about processes that get fewer messages at once than they have slots; None if they get enough."""
    calls = _concurrent_calls(environment, host_json)
    if calls is None or not shape.task_queues:
        return None
    slots = _positive(environment.get(SLOTS_SETTING), DEFAULT_SLOTS)
    processes = _positive(environment.get(PROCESSES_SETTING), DEFAULT_PROCESSES)
    if calls >= slots * processes:
        return None
    return (
        f"maxConcurrentCalls: expected at least {slots * processes} ({SLOTS_SETTING} {slots} in each of {processes} "
        f"processes), found {calls}; raise it, or messages of one task each do not use all slots"
    )


def _positive(text: str | None, default: int) -> int:
    text = (text or "").strip()
    return int(text) if text.isdecimal() and int(text) > 0 else default


def _concurrent_calls(environment: Mapping[str, str], host_json: Path) -> int | None:
    overrides = {name.lower(): value for name, value in environment.items()}
    try:
        document = json.loads(host_json.read_text(encoding="utf-8-sig"))
        calls = overrides.get(_CALLS_OVERRIDE) or document["extensions"]["serviceBus"]["maxConcurrentCalls"]
        return max(1, int(calls))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _one_of(environment: Mapping[str, str], name: str, known: tuple[str, ...], problems: list[str]) -> str:
    """The setting's value; the first known one when it is not set, or not known."""
    value = environment.get(name) or known[0]
    if value in known:
        return value
    problems.append(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    return known[0]
