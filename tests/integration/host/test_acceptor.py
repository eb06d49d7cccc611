"""Who takes a new connection, when one of those that listen has no interpreter to answer with."""

import os
import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import wait_until

ROOT = Path(__file__).resolve().parents[3]

# argv: the listener's descriptor, a pipe to say that the interpreter is held, a pipe to wait for meanwhile. One call in
# C does both: between two the loop could have its turn.
WORKER = """
import asyncio, ctypes, socket, sys, threading
import uvloop
from coremachine.local.host.acceptor import Acceptor

descriptor, held, gate = sys.argv[1:]

class Greeter(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()

def hold():
    sys.stdin.readline()
    ctypes.PyDLL(None).system(f"echo > {held}; read line < {gate}".encode())

async def main():
    acceptor = Acceptor(asyncio.get_running_loop(), socket.socket(fileno=int(descriptor)), Greeter)
    acceptor.start()
    threading.Thread(target=hold, daemon=True).start()
    await asyncio.Event().wait()

uvloop.run(main())
"""


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener


def connect(opened, listener):
    return opened.enter_context(socket.create_connection(listener.getsockname(), timeout=20))


def turns(pid):
    """How often the process's first thread has waited for something."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell whether a loop wakes")
def test_process_without_its_interpreter_accepts_nothing(listener, tmp_path):
    """uvloop accepts first, and waits for the interpreter with the connection in its hands."""
    held, gate = tmp_path / "held", tmp_path / "gate"
    os.mkfifo(held)
    os.mkfifo(gate)
    command = [sys.executable, "-c", WORKER, str(listener.fileno()), str(held), str(gate)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    worker = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stdin=subprocess.PIPE, text=True)
    try:
        with ExitStack() as opened:
            assert connect(opened, listener).recv(10) == b"hello"
        worker.stdin.write("now\n")
        worker.stdin.flush()
        held.read_text()
        with ExitStack() as opened:
            before = turns(worker.pid)
            clients = [connect(opened, listener) for _ in range(4)]
            # Its loop has heard of them: it asks for the interpreter again and again.
            wait_until(lambda: turns(worker.pid) > before + 5, "the loop to wake")
            accepted = [opened.enter_context(listener.accept()[0]).getpeername() for _ in clients]
            assert accepted == [client.getsockname() for client in clients]
            gate.write_text("go on\n")
            assert connect(opened, listener).recv(10) == b"hello"
    finally:
        worker.kill()
        worker.communicate()
