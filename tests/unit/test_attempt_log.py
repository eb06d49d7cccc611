"""What a handler logs and prints carries its job, stage, task and attempt; the last lines are kept."""

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from core.authors import attempt_log as module
from core.authors.attempt_log import AttemptLog
from core.basics.log_fields import log_fields
from core.errors import MOST_LOG_BYTES, Failure
from core.models import StageDefinition
from core.models.lease import LeaseOutcome
from core.models.transition import ClaimedRow, ClaimOutcome
from core.running.attempts import Attempts
from core.running.leases import LeaseKeeper
from core.safety.safe_text import MOST_TEXT_BYTES

ROOT = Path(__file__).resolve().parents[2]
log = logging.getLogger("an.author")


@contextmanager
def attempt_log(**fields):
    with log_fields(**fields), AttemptLog() as kept:
        yield kept


def lines_of(kept):
    """Without their times."""
    return [line.partition(" ")[2] for line in (kept.text() or "").splitlines()]


def test_long_texts_are_cut_for_every_listener(caplog):
    """To search all of it for credentials would hold the interpreter for as long as that takes."""
    caplog.set_level(logging.INFO)
    with attempt_log() as kept:
        log.warning("%s", "x" * 1_000_000)
        print("y" * 1_000_000)
        for _ in range(1000):
            print("\rhalf", end="")
    logged, printed, bar = (record.getMessage() for record in caplog.records)
    assert len(logged) <= MOST_TEXT_BYTES
    assert logged.endswith("x [cut here: 1,000,000 characters in all]")
    assert printed.endswith("y [cut here: 1,000,000 characters in all]")
    assert bar == "half"
    assert lines_of(kept)[-1] == "INFO handler.output: half"


def test_records_carry_the_fields_of_their_attempt(caplog):
    with attempt_log(job_id="j", task_id="t", attempt=2):
        log.warning("inside", extra={"task_id": "its own"})
    log.warning("outside")
    inside, outside = caplog.records
    assert (inside.job_id, inside.task_id, inside.attempt) == ("j", "its own", 2)
    assert not hasattr(outside, "job_id")


def test_engines_own_records_keep_their_field_names(caplog):
    with attempt_log(job_id="j"):
        module.log.warning("from the engine", extra={"job_id": "another"})
    assert caplog.records[0].job_id == "another"


def test_what_looks_like_a_credential_is_blanked_for_every_listener(caplog):
    caplog.set_level(logging.INFO)
    with attempt_log() as kept:
        print("password=hunter2hunter2 and postgresql://u:s3cr3tpw@h/db")
        log.info("with %s", "https://u:s3cr3tpw@h/db")
        try:
            int("postgresql://u:s3cr3tpw@h/db")
        except ValueError:
            log.exception("it failed")
    shown = caplog.text + (kept.text() or "")
    assert "it failed" in shown
    assert "***" in shown
    for secret in ("hunter2", "s3cr3tpw"):
        assert secret not in shown


def test_last_lines_are_kept_with_the_trace_of_an_exception(caplog):
    caplog.set_level(logging.INFO)
    with attempt_log() as kept:
        for number in range(module.MOST_LINES):
            log.info("line %d", number)
        try:
            int("broken")
        except ValueError:
            log.exception("it failed")
    lines = kept.text().splitlines()
    assert len(lines) == module.MOST_LINES
    assert lines[-1].startswith("    ValueError: invalid literal")
    assert any(line.endswith("ERROR an.author: it failed") for line in lines)
    assert not any(line.endswith("line 0") for line in lines)


def test_what_is_printed_becomes_records_line_by_line(caplog, capsys):
    caplog.set_level(logging.INFO)
    with attempt_log(job_id="j") as kept:
        print("one\ntwo")
        sys.stderr.write("three")
    assert [(record.name, record.getMessage(), record.job_id) for record in caplog.records] == [
        ("handler.output", "one", "j"),
        ("handler.output", "two", "j"),
        ("handler.output", "three", "j"),
    ]
    assert lines_of(kept) == [f"INFO handler.output: {text}" for text in ("one", "two", "three")]
    assert capsys.readouterr() == ("", "")


def test_what_is_printed_stays_a_print_where_records_are_not_wanted(caplog, capsys):
    caplog.set_level(logging.WARNING)
    with attempt_log() as kept:
        print("one")
    print("outside")
    assert capsys.readouterr().out == "one\noutside\n"
    assert lines_of(kept) == ["one"]


def test_handler_of_logging_that_prints_does_not_print_for_ever(caplog):
    class Printing(logging.Handler):
        def emit(self, record):
            print(self.format(record))

    caplog.set_level(logging.INFO)
    handler = Printing()
    log.addHandler(handler)
    try:
        with attempt_log() as kept:
            log.info("once")
            log.info("twice")
    finally:
        log.removeHandler(handler)
    assert lines_of(kept) == ["INFO an.author: once", "INFO an.author: twice"]


def test_threads_and_executors_belong_to_the_attempt_that_uses_them(caplog):
    class Own(threading.Thread):
        def run(self):
            log.warning("own class")

    with ThreadPoolExecutor(1) as executor:
        for attempt in (1, 2):
            with attempt_log(attempt=attempt) as kept:
                threads = [threading.Thread(target=log.warning, args=("thread",)), Own()]
                for thread in threads:
                    thread.start()
                    thread.join()
                executor.submit(log.warning, "executor").result()
            assert len(lines_of(kept)) == 3
        executor.submit(log.warning, "nobody's").result()
    assert [getattr(record, "attempt", None) for record in caplog.records] == [1, 1, 1, 2, 2, 2, None]


def test_log_of_a_failure_is_bounded_and_holds_no_credential():
    failure = Failure("E", "m", True, log="x" * 20_000 + "\npassword=hunter2secret\nthe end")
    stored = failure.to_json(1)["log"]
    assert len(stored.encode()) <= MOST_LOG_BYTES
    assert stored.endswith("the end")
    assert "hunter2secret" not in stored
    assert "log" not in Failure("E", "m", True).to_json(1)


@pytest.mark.parametrize("fails", [True, False])
def test_lines_are_kept_with_a_failed_attempt_alone(caplog, fails):
    caplog.set_level(logging.INFO)

    def work(params, context):
        print("reading tile 7")
        if fails:
            raise ValueError("no such tile")

    catalog = SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=work, queue="tasks"))
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single", lease_seconds=3600)
    renewed = SimpleNamespace(renew_leases=lambda held: {(h.lease_id, h.task_id): LeaseOutcome.RENEWED for h in held})
    tasks = [ClaimedRow("t1", ClaimOutcome.CLAIMED, 3, 0, "work", 0, None, {})]
    parts = {"catalog": catalog, "results": SimpleNamespace(), "keeper": LeaseKeeper(renewed)}
    with Attempts(job, stage, uuid4(), tasks, **parts) as attempts:
        outcome = attempts.run_next()
    printed = next(record for record in caplog.records if record.name == "handler.output")
    assert (printed.job_id, printed.stage, printed.task_id, printed.attempt) == ("j", 1, "t1", 3)
    if fails:
        assert outcome.failure.log.endswith("INFO handler.output: reading tile 7")
    else:
        assert outcome.failure is None


def test_attempts_of_one_message_have_lease_ids_of_their_own():
    """Authors name files by it, which tasks that run at the same time would overwrite."""
    seen = []
    catalog = SimpleNamespace(
        find_handler=lambda _: SimpleNamespace(function=lambda _, c: seen.append(c.lease_id) or {})
    )
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single", lease_seconds=3600)
    renewed = SimpleNamespace(renew_leases=lambda held: {(h.lease_id, h.task_id): LeaseOutcome.RENEWED for h in held})
    tasks = [ClaimedRow(f"t{n}", ClaimOutcome.CLAIMED, 1, 0, "work", n, None, {}) for n in range(20)]
    parts = {"catalog": catalog, "results": SimpleNamespace(), "keeper": LeaseKeeper(renewed)}
    for _ in range(2):
        with Attempts(job, stage, uuid4(), tasks, **parts) as attempts:
            while attempts.run_next():
                pass
    assert len(set(seen)) == 40


FULL_DISK = """
import logging, os, sys
logging.basicConfig(level=sys.argv[1])
from core.authors.attempt_log import AttemptLog
from core.basics.log_fields import log_fields
def handler():
    print("a line")
    print("flushed", flush=True)
    sys.stderr.write("more\\n")
    sys.stderr.flush()
    logging.warning("logged")
    sys.stdout.close()
    print("after close")
with AttemptLog() as kept:
    handler()
os.write(int(sys.argv[2]), "\\n".join(line.rpartition(": ")[2] for line in kept.text().splitlines()).encode())
"""


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_full_disk_of_the_log_file_fails_no_handler_that_prints(level):
    """`print` raised `No space left on device` where nobody wanted records of its level."""
    reader, writer = os.pipe()
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-c", FULL_DISK, level, str(writer)]
        subprocess.run(command, stdout=full, stderr=full, pass_fds=[writer], cwd=ROOT, check=False, timeout=60)
    os.close(writer)
    with os.fdopen(reader) as told:
        lines = told.read().splitlines()
    assert [line.split(" ")[-1] for line in lines] == ["line", "flushed", "more", "logged", "close"]
