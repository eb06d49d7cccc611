"""Each end of a process, in processes of their own: SIGTERM, SIGTERM with another handler, the interpreter's."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from triggers import services
from triggers.drain import drain_made_services, install_drain

ROOT = Path(__file__).parents[3]
BEGINNING = "import os, signal, sys, threading\nfrom triggers.drain import install_drain\n"
INSTALL = "install_drain(lambda: print('drained', threading.current_thread().name, flush=True))\n"
# Handlers run in the main thread, between two of its steps.
SIGNAL = "os.kill(os.getpid(), signal.SIGTERM)\nthreading.Event().wait(30)\n"


def run(*parts: str) -> tuple[int, list[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BEGINNING + "".join(parts)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_sigterm_drains_before_the_process_ends_of_it():
    assert run(INSTALL, SIGNAL, "print('not ended')") == (-signal.SIGTERM, ["drained drain"])


def test_end_of_the_interpreter_drains():
    assert run(INSTALL, "print('end', flush=True)") == (0, ["end", "drained MainThread"])


def test_handler_of_somebody_else_decides_how_it_ends():
    """The worker's own, say, which stops its loop: the drain goes on meanwhile and is waited for."""
    other = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    status, lines = run(other, INSTALL, SIGNAL)
    assert (status, sorted(lines)) == (3, ["drained MainThread", "drained drain"])


def test_who_takes_the_signal_over_and_calls_the_handler_is_not_ended_by_it():
    taken = (
        "ours = signal.getsignal(signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('stopping', flush=True))\n"
        "ours(signal.SIGTERM, None)\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'drain']\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('goes on', flush=True)\n"
    )
    assert run(INSTALL, taken) == (0, ["drained drain", "stopping", "goes on", "drained MainThread"])


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("", (-signal.SIGTERM, [])),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n", (3, ["drained MainThread"])),
    ],
)
def test_process_that_gets_no_thread_ends_all_the_same(other, expected):
    """The signal would be an error in the middle of the main thread, and the process would go on."""
    quiet = "import logging\nlogging.disable()\n"
    refuse = 'def refuse(_): raise RuntimeError("can\'t start new thread")\nthreading.Thread.start = refuse\n'
    assert run(quiet, other, INSTALL, refuse, SIGNAL, "print('not ended')") == expected


def test_second_signal_ends_the_process_at_once():
    stuck = "install_drain(lambda: (print('draining', flush=True), threading.Event().wait()))\n"
    again = "os.kill(os.getpid(), signal.SIGTERM)\nos.kill(os.getpid(), signal.SIGTERM)\nthreading.Event().wait(30)\n"
    status, lines = run(stuck, again)
    assert (status, lines in ([], ["draining"])) == (-signal.SIGTERM, True)


def test_drain_that_fails_keeps_no_process_from_ending():
    status, lines = run(
        "import logging; logging.disable()\n",
        "install_drain(lambda: [].pop() if threading.current_thread().name == 'drain' else None)\n",
        SIGNAL,
    )
    assert (status, lines) == (-signal.SIGTERM, [])


def test_app_loaded_in_another_thread_leaves_the_signal_alone(monkeypatch):
    registered = []
    monkeypatch.setattr("triggers.drain.atexit.register", registered.append)
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=install_drain, args=(print,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert registered == [print]


class _Services:
    class machine:  # noqa: N801 - stands for an attribute
        @staticmethod
        def drain() -> int:
            done.append("drained")
            return 4

    class presence:  # noqa: N801 - stands for an attribute
        @staticmethod
        def end() -> None:
            done.append("ended")
            raise OSError("the database is away")


done: list[str] = []


@pytest.mark.parametrize(("made", "count", "steps"), [(None, 0, []), (_Services, 4, ["drained", "ended"])])
def test_services_are_drained_if_there_are_any(monkeypatch, made, count, steps):
    done.clear()
    monkeypatch.setattr(services, "_services", made)
    assert drain_made_services() == count
    assert done == steps


def test_a_process_that_ends_while_it_is_loaded_has_nothing_to_drain(monkeypatch):
    """SIGTERM came while the module was being imported: it was there, without what it has."""
    monkeypatch.setitem(sys.modules, "triggers.services", ModuleType("triggers.services"))
    assert drain_made_services() == 0


# Ends with the child's status, or 100 and its signal's number.
FORK = """
def fork(act):
    pid = os.fork()
    if pid == 0:
        act()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print('child', status, flush=True)
"""


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ("lambda: sys.exit(4)", 4),
        ("lambda: os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("lambda: (signal.raise_signal(signal.SIGTERM), sys.exit(5))", -signal.SIGTERM),
    ],
)
def test_forked_child_neither_drains_nor_survives_its_sigterm(act, status):
    lines = [f"child {status}", "end", "drained MainThread"]
    assert run(FORK, INSTALL, f"fork({act})\n", "print('end', flush=True)") == (0, lines)


def test_signal_of_a_child_does_not_arrive_at_the_parents_event_loop():
    """Sent before the child has done anything: asyncio's handler writes to a descriptor that both have."""
    parts = (
        "import asyncio\n"
        "async def main():\n"
        "    heard = asyncio.Event()\n"
        "    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set)\n"
        "    for _ in range(50):\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n"
        "            threading.Event().wait(30)\n"
        "            os._exit(0)\n"
        "        os.kill(pid, signal.SIGTERM)\n"
        "        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM\n"
        "    await asyncio.sleep(0)\n"
        "    await asyncio.sleep(0)\n"
        "    print('heard' if heard.is_set() else 'well', flush=True)\n"
        "asyncio.run(main())\n"
    )
    assert run(INSTALL, parts) == (0, ["well", "drained MainThread"])
