"""Commands that handlers run: their output, their end, and what ends them."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from core.errors import TaskCancelled
from core.isolation import command
from core.isolation.command import CommandFailed, run_command
from tests.integration.isolation.test_processes import context, is_alive, wait_until


def python(text):
    return [sys.executable, "-c", textwrap.dedent(text)]


def test_output_is_returned_and_what_it_reports_is_logged(caplog, tmp_path):
    caplog.set_level(logging.INFO)
    code = """
        import os, sys
        print("result", os.environ["COLOUR"], os.getcwd())
        sys.stderr.write("one\\ntwo")
    """
    found = run_command(python(code), context(), cwd=tmp_path, env={"COLOUR": "blue"})
    assert found == f"result blue {tmp_path}\n"
    assert [record.getMessage() for record in caplog.records if record.name == "handler.output"] == ["one", "two"]


def test_large_output_comes_whole():
    assert len(run_command(python("print('x' * 3_000_000)"), context())) == 3_000_001


@pytest.mark.parametrize(
    ("code", "status", "how"),
    [
        ("import sys; sys.exit('no such file')", 1, "exit status 1"),
        ("import os; os.kill(os.getpid(), 6)", -signal.SIGABRT, "signal SIGABRT"),
    ],
)
def test_status_other_than_0_is_a_failure_with_the_last_lines(code, status, how):
    with pytest.raises(CommandFailed, match=how) as failed:
        run_command(python(code), context())
    assert failed.value.status == status
    assert failed.value.last_lines == (("no such file",) if status == 1 else ())


def test_command_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        run_command(["no-such-command"], context())


STUBBORN = """
    import signal, subprocess, sys, time
    from pathlib import Path
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    Path({pids!r}).with_suffix(".new").write_text(f"{{child.pid}} {{__import__('os').getpid()}}")
    Path({pids!r}).with_suffix(".new").replace({pids!r})
    time.sleep(600)
"""


def test_cancel_ends_the_command_and_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GRACE_SECONDS", 0.1)
    pids = tmp_path / "pids"
    with pytest.raises(TaskCancelled):
        run_command(python(STUBBORN.format(pids=str(pids))), context(_stop_requested=pids.exists))
    found = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: not any(map(is_alive, found)), "the end of the command")


def test_command_may_end_in_order(tmp_path):
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    code = f"""
        import signal, sys, time
        from pathlib import Path
        def end(*_):
            Path({str(ended)!r}).touch()
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        Path({str(ready)!r}).touch()
        time.sleep(600)
    """
    with pytest.raises(TaskCancelled):
        run_command(python(code), context(_stop_requested=ready.exists))
    assert ended.exists()


def test_command_ends_with_a_worker_that_dies(tmp_path):
    pids = tmp_path / "pids"
    code = python(STUBBORN.format(pids=str(pids)))
    script = f"""
        from core.isolation.command import run_command
        from tests.integration.isolation.test_processes import context
        run_command({code!r}, context())
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    try:
        wait_until(pids.exists, "the command")
    finally:
        worker.kill()
        worker.wait()
    found = [int(pid) for pid in Path(pids).read_text().split()]
    wait_until(lambda: not any(map(is_alive, found)), "the end of the command and of what it started")
