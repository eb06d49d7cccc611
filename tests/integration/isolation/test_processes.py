"""Attempts in processes of their own: what comes back, and what becomes of one that crashes, hangs or grows."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from core.authors.author_code import call_author
from core.context import TaskContext
from core.errors import AuthorError, TaskCancelled, TaskTimedOut
from core.fan_in import fan_in_reader
from core.isolation import function as isolated
from core.isolation.function import ProcessFunction
from core.isolation.limits import Limits
from core.isolation.pool import ProcessPool
from core.isolation.target import name_of
from core.models.context import CompletedTask, FailedTask
from jobs.typed import with_types
from tests.integration.isolation import handlers

LEASE_ID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture
def pool(monkeypatch):
    pool = ProcessPool(2)
    monkeypatch.setattr(isolated, "process_pool", lambda: pool)
    yield pool
    pool.end()


def context(**changes):
    fields = {"job_id": "j", "job_type": "x", "stage": 1, "task_id": "t", "task_index": 0, "attempt": 2}
    return TaskContext(**{**fields, "job_parameters": {"message": "hi"}, "lease_id": LEASE_ID, **changes})


def call(function, params=None, around=None, store=None, through=None, **limits):
    with fan_in_reader(store or SimpleNamespace()):
        isolated_function = ProcessFunction("x", function, Limits(**limits), through=through)
        return json.loads(isolated_function(params or {}, around or context()))


def wait_until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_result_comes_back_from_a_process_that_is_used_again(pool):
    first = call(handlers.answer, {"number": 4})
    assert (first["twice"], first["context"]) == (8, ["t", 2])
    assert first["pid"] != os.getpid()
    assert [process.pid for process in pool._idle] == [first["pid"]]
    assert call(handlers.answer, {"number": 5})["pid"] == first["pid"]


def test_decorated_functions_and_static_methods_are_found(pool):
    assert call(handlers.decorated, {"number": 3}) == {"wrapped": 3}
    assert call(handlers.Holder.method) == {"method": True}


def test_parameters_with_a_type_are_validated_in_the_process(pool):
    assert name_of(handlers.typed, with_types) == f"jobs.typed:with_types({handlers.__name__}:typed)"
    params = {"number": 3, "day": "2026-01-31"}
    assert call(handlers.typed, params, through=with_types) == {"type": "Tile", "year": 2026, "number": 3}
    with pytest.raises(AuthorError, match="number: expected int, found str 'x'"):
        call(handlers.typed, params | {"number": "x"}, through=with_types)


def test_progress_logs_and_prints_come_back(pool, caplog):
    reports = []
    caplog.set_level(logging.INFO)
    result = call(handlers.tell, around=context(_report=reports.append))
    assert result == {"message": "hi", "lease_id": str(LEASE_ID)}
    assert reports == [{"percent": 25, "message": "a quarter"}]
    (record,) = [record for record in caplog.records if record.name == "a.handler"]
    assert (record.getMessage(), record.rows, record.odd) == ("loaded 7 rows", 7, "{1, 2}")
    assert record.process != os.getpid()
    printed = [record.getMessage() for record in caplog.records if record.name == "handler.output"]
    assert sorted(printed) == ["from C", "no line feed", "printed", "to stderr"]
    # Python's own prints and its records come in the order in which they were made.
    lines = [record.getMessage() for record in caplog.records if record.name in {"a.handler", "handler.output"}]
    assert [line for line in lines if line != "from C"] == ["loaded 7 rows", "printed", "to stderr", "no line feed"]


def test_failures_are_as_those_of_threads(pool):
    with pytest.raises(AuthorError) as failed:
        call(handlers.refuse)
    failure = failed.value.failure
    assert (failure.error_type, failure.message, failure.retryable) == ("PermanentTaskError", "no such tile", False)
    assert "in refuse" in failure.traceback
    with pytest.raises(AuthorError) as failed:
        call(handlers.report_failure)
    assert (failed.value.failure.error_type, failed.value.failure.retryable) == ("Told", False)
    with pytest.raises(AuthorError, match="expected it to return a mapping or None, found list"):
        call(handlers.return_nonsense)
    with pytest.raises(AuthorError, match=r"found sys\.exit\(3\)"):
        call(handlers.exit_in_order)
    # A failure is no crash: the processes wait for the next task.
    assert len(pool._idle) == 2


@pytest.mark.parametrize(
    ("handler", "how"),
    [(handlers.leave, "exit status 7"), (handlers.crash, "signal SIGSEGV"), (handlers.kill_itself, "signal SIGKILL")],
)
def test_crash_costs_its_attempt_and_says_how(pool, caplog, handler, how):
    caplog.set_level(logging.INFO)
    with pytest.raises(AuthorError, match=how) as failed:
        call(handler)
    failure = failed.value.failure
    assert (failure.error_type, failure.retryable, failure.traceback) == ("ProcessEnded", True, None)
    assert pool._idle == []
    printed = [record.getMessage() for record in caplog.records if record.name == "handler.output"]
    if handler is handlers.leave:
        assert printed == ["about to leave"]
    if handler is handlers.crash:
        assert any("in crash" in line for line in printed)


@pytest.mark.parametrize("reason", [TaskCancelled, TaskTimedOut])
def test_stop_ends_a_handler_that_never_looks(pool, tmp_path, monkeypatch, reason):
    monkeypatch.setattr("core.isolation.attempt.STOP_GRACE_SECONDS", 0.1)
    pid_file = tmp_path / "pid"
    asked = context(_stop_requested=pid_file.exists, _timed_out=lambda: reason is TaskTimedOut and pid_file.exists())
    with pytest.raises(reason) as stopped:
        call(handlers.sleep_on, {"pid_file": str(pid_file)}, asked)
    assert type(stopped.value) is reason
    assert not is_alive(int(pid_file.read_text()))


def test_handler_that_looks_may_leave_in_order(pool, tmp_path):
    pid_file, heeded_file = tmp_path / "pid", tmp_path / "heeded"
    with pytest.raises(TaskCancelled):
        call(
            handlers.heed_cancel,
            {"pid_file": str(pid_file), "heeded_file": str(heeded_file)},
            context(_stop_requested=pid_file.exists),
        )
    assert heeded_file.read_text() == "heeded"


def test_memory_beyond_the_limit_ends_the_attempt(pool):
    with pytest.raises(AuthorError, match=r"at most 200 MB of memory, found [23]") as failed:
        call(handlers.grow, {"megabytes": 250, "wait": True}, memory_limit_mb=200)
    assert (failed.value.failure.error_type, failed.value.failure.retryable) == ("MemoryLimitExceeded", False)
    assert call(handlers.grow, {"megabytes": 10}, memory_limit_mb=200) == {"size": 10 << 20}


def test_process_is_not_used_for_ever(pool):
    pids = [call(handlers.answer, {"number": 1}, tasks_per_process=2)["pid"] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]


def test_process_that_grew_is_not_used_again(pool):
    pids = [call(handlers.leak, {"megabytes": 60}, memory_limit_mb=200)["pid"] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]


def test_process_that_died_while_it_waited_costs_nothing(pool):
    pid = call(handlers.answer, {"number": 1})["pid"]
    os.kill(pid, signal.SIGKILL)
    assert call(handlers.answer, {"number": 2})["twice"] == 4


def test_results_of_earlier_stages_are_read_through_the_worker(pool):
    rows = [CompletedTask(f"t{n}", n, None, {}, {"n": n, "text": "x" * 5000}) for n in range(500)]
    read = []

    def stream(ref):
        for row in rows:
            read.append(ref)
            yield row

    failed = [FailedTask("f", 500, None, {}, {"type": "E"})]
    store = SimpleNamespace(stream_results=stream, stream_failures=lambda _: iter(failed))
    source = {"job_id": "a" * 64, "run": 1, "stage": 1, "expected_count": 501}
    found = call(handlers.fan_in, {"fan_in_source": source}, store=store)
    assert found == {"total": sum(range(500)), "failed": 1}
    assert len(read) == 500


def test_streams_that_are_read_at_once_are_not_mixed(pool):
    """Each page goes to who asked for it: a result in the place of another would be wrong in silence."""
    values = [{"n": n, "text": "x" * 20_000} for n in range(150)]
    store = SimpleNamespace(
        stream_results=lambda _: (CompletedTask("t", n, None, {}, value) for n, value in enumerate(values)),
        stream_failures=lambda _: (FailedTask("f", n, None, {}, value) for n, value in enumerate(values)),
    )
    source = {"job_id": "a" * 64, "run": 1, "stage": 1, "expected_count": 300}
    found = call(handlers.read_several_at_once, {"fan_in_source": source}, store=store)
    assert found == {"numbers": list(range(150)), "failures": list(range(150))}


def test_thread_that_was_left_behind_speaks_for_no_later_attempt(pool):
    reports = []
    rows = [CompletedTask("t", 0, None, {}, {"n": 0})]
    store = SimpleNamespace(stream_results=lambda _: iter(rows), stream_failures=lambda _: iter(()))
    params = {"fan_in_source": {"job_id": "a" * 64, "run": 1, "stage": 1, "expected_count": 1}}
    assert call(handlers.leave_a_thread_behind, params, store=store) == {}
    found = call(handlers.leave_a_thread_behind, params, context(_report=reports.append), store=store)
    assert found == {"seen": ["TaskCancelled", "ContractViolationError"]}
    assert reports == []


def test_answer_comes_whatever_the_handler_changed(pool, monkeypatch):
    monkeypatch.syspath_prepend(Path("not text"))
    assert "pid" in call(handlers.change_json_and_close_output)


def test_next_task_finds_streams_and_folder_as_they_were(pool, tmp_path, caplog):
    """They were closed for all that came later in the same process, which failed for it."""
    before = call(handlers.print_where_it_is)
    call(handlers.print_where_it_is, {"folder": str(tmp_path)})
    with caplog.at_level(logging.INFO, "handler.output"):
        assert call(handlers.print_where_it_is) == before
    assert {record.getMessage() for record in caplog.records} >= {"written", "printed"}


def test_process_that_closed_its_answers_is_not_taken_for_one_that_was_killed(pool):
    with pytest.raises(AuthorError) as failed:
        call(handlers.close_every_file)
    assert "must not close files that it did not open" in failed.value.failure.message


def test_answer_that_is_none_fails_its_attempt_and_says_so(pool):
    with pytest.raises(
        AuthorError, match="AnswerUnreadable: expected an answer of the attempt's process, found b'no ans"
    ):
        call_author(call, handlers.write_to_every_file)


def test_result_beyond_what_can_be_stored_stays_in_its_process(pool):
    with pytest.raises(AuthorError, match="expected at most 33,554,432 bytes of JSON, found 33,554,444"):
        call(handlers.return_too_much, {"size": 32 * 1024 * 1024 + 1})


def test_everything_ends_with_a_worker_that_dies(tmp_path):
    """C code that holds the interpreter keeps its process from seeing that nobody waits for it any more."""
    script = f"""
        from core.fan_in import fan_in_reader
        from core.isolation.function import ProcessFunction
        from core.isolation.limits import Limits
        from tests.integration.isolation import handlers
        from tests.integration.isolation.test_processes import context
        with fan_in_reader(object()):
            function = ProcessFunction("x", handlers.hold_the_interpreter, Limits())
            function({{"pid_file": {str(tmp_path / "pid")!r}, "child_file": {str(tmp_path / "child")!r}}}, context())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    try:
        wait_until((tmp_path / "pid").exists, "the handler")
    finally:
        worker.kill()
        worker.wait()
    pids = [int((tmp_path / name).read_text()) for name in ("pid", "child")]
    wait_until(lambda: not any(map(is_alive, pids)), "the end of the process and of what it started")
