"""Handlers that a process of the pool finds by import. Some of them end it."""

import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from core.errors import PermanentTaskError
from core.fan_in import load_fan_in_results
from core.models import TaskResult

log = logging.getLogger("a.handler")


def answer(params, context):
    return {"twice": params["number"] * 2, "pid": os.getpid(), "context": [context.task_id, context.attempt]}


@dataclass
class Tile:
    number: int
    day: date


def typed(tile: Tile, context):
    return {"type": type(tile).__name__, "year": tile.day.year, "number": tile.number}


def tell(params, context):
    context.progress(25, "a quarter")
    log.warning("loaded %d rows", 7, extra={"rows": 7, "odd": {1, 2}})
    log.debug("nobody asked")
    print("printed")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from C\n")
    print("no line feed", end="")
    return {"message": context.job_parameters["message"], "lease_id": str(context.lease_id)}


def refuse(params, context):
    raise PermanentTaskError("no such tile")


def report_failure(params, context):
    return TaskResult(task_id=context.task_id, success=False, error="told", error_type="Told", retryable=False)


def return_nonsense(params, context):
    return [1]


def leave(params, context):
    print("about to leave", flush=True)
    os._exit(7)


def exit_in_order(params, context):
    sys.exit(3)


def crash(params, context):
    ctypes.string_at(0)


def kill_itself(params, context):
    os.kill(os.getpid(), signal.SIGKILL)


def _note_pid(params):
    path = Path(params["pid_file"])
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").replace(path)


def sleep_on(params, context):
    _note_pid(params)
    while True:
        time.sleep(60)


def hold_the_interpreter(params, context):
    """C code that never lets another thread of its process run."""
    sleeper = subprocess.Popen(["sleep", "600"])
    Path(params["child_file"]).write_text(str(sleeper.pid))
    _note_pid(params)
    ctypes.PyDLL(None).sleep(600)


def heed_cancel(params, context):
    _note_pid(params)
    while True:
        time.sleep(0.01)
        try:
            context.check_cancelled()
        except BaseException:
            Path(params["heeded_file"]).write_text("heeded")
            raise


def grow(params, context):
    held = [bytearray(params["megabytes"] << 20)]
    if params.get("wait"):
        time.sleep(60)
    return {"size": len(held[0])}


leaked = []


def leak(params, context):
    leaked.append(bytearray(params["megabytes"] << 20))
    return {"pid": os.getpid()}


def fan_in(params, context):
    results = load_fan_in_results(params)
    total = sum(task.result["n"] for task in results.results())
    return {"total": total, "failed": sum(1 for _ in results.failures())}


def wrapped(function):
    @functools.wraps(function)
    def call(params, context):
        return {"wrapped": function(params, context)}

    return call


@wrapped
def decorated(params, context):
    return params["number"]


class Holder:
    @staticmethod
    def method(params, context):
        return {"method": True}


def log_from_thread(params, context):
    thread = threading.Thread(target=lambda: log.warning("from a thread"))
    thread.start()
    thread.join()
    return {}


def crash_once(params, context):
    """As asked for, in the first attempt alone."""
    if context.attempt == 1 and params["number"] in context.job_parameters["crash"]:
        print("reading a damaged tile")
        ctypes.string_at(0)
    return {"number": params["number"]}


def wait_for_file(params, context):
    _note_pid({"pid_file": f"{context.job_parameters['folder']}/{context.task_id}"})
    while not Path(context.job_parameters["folder"], "go").exists():
        time.sleep(0.01)
    return {}


def read_several_at_once(params, context):
    """Threads of the handler's own, each with a stream."""
    loaded = load_fan_in_results(params)
    with ThreadPoolExecutor(2) as threads:
        numbers = threads.submit(lambda: [task.result["n"] for task in loaded.results()])
        failures = threads.submit(lambda: [task.error["n"] for task in loaded.failures()])
        return {"numbers": numbers.result(), "failures": failures.result()}


_next_attempt = threading.Event()
_left_behind = []


def leave_a_thread_behind(params, context):
    """The first attempt leaves a thread, and what that one sees during the second is its result."""
    if not _left_behind:
        _left_behind.append(_Left(load_fan_in_results(params), context))
        return {}
    next(load_fan_in_results(params).results())
    _next_attempt.set()
    (left,) = _left_behind
    left.thread.join()
    return {"seen": left.seen}


class _Left:
    def __init__(self, results, context):
        self.seen = []
        self.thread = threading.Thread(target=self._run, args=(results, context))
        self.thread.start()

    def _run(self, results, context):
        _next_attempt.wait()
        for call in (lambda: context.progress(99), context.check_cancelled, lambda: list(results.results())):
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is asked for
                self.seen.append(type(error).__name__)


def change_json_and_close_output(params, context):
    json.dumps = lambda *_, **__: "{}"
    os.close(2)
    return {"pid": os.getpid()}


def write_to_every_file(params, context):
    # The one for answers has the number that it has in the worker.
    for descriptor in range(3, 4096):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"no answer\n")
    return {}


def return_too_much(params, context):
    return {"text": "x" * params["size"]}


def change_what_all_tasks_share(params, context):
    os.chdir(params["folder"])
    os.closerange(0, 3)
    sys.stdout = sys.stderr = None
    return {}


def print_where_it_is(params, context):
    if params:
        return change_what_all_tasks_share(params, context)
    os.write(1, b"written\n")
    print("printed")
    return {"folder": str(Path.cwd()), "pid": os.getpid()}


def close_every_file(params, context):
    os.closerange(0, 256)
