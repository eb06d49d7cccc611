"""Sources on servers that accept and say nothing: submissions get their answer, and nothing else waits."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import httpx
import pytest

from core.advancing.submission import _detail
from core.advancing.unchecked import note_unchecked
from jobs import validators
from jobs.outside import OUTSIDE, OutsideChecks, Unknown
from jobs.parameters import ParameterErrors
from jobs.validators import ResourceInvalid, resource_validator, run_resource_validators


class SilentServer:
    """Accepts, reads nothing, says nothing, until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self.accepted = threading.Semaphore(0)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.accepted.release()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


@resource_validator("answers")
def answers(parameters, config) -> None:
    """Connects and waits for a byte, without a timeout: what a library does that thinks of none."""
    port = int(parameters[config["param"]].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        try:
            data = connection.recv(1)
        except ConnectionError:
            data = b""
        if not data:
            raise ResourceInvalid(config["param"], "an answer", "none")


CHECK = {"type": "answers", "param": "source"}


@pytest.fixture
def bounds() -> Iterator[OutsideChecks]:
    threads, seconds = OUTSIDE.threads, OUTSIDE.seconds
    OUTSIDE.configure(threads=4, seconds=0.3)
    yield OUTSIDE
    OUTSIDE.configure(threads=threads, seconds=seconds)


def settle(checks: OutsideChecks) -> None:
    """Until the checks of this test have ended."""
    with checks._changed:
        assert checks._changed.wait_for(lambda: checks._count() == 0, 30)


def test_source_that_does_not_answer_is_accepted_and_said_to_be_unchecked(silent, bounds, caplog) -> None:
    with note_unchecked() as notes, caplog.at_level(logging.WARNING):
        run_resource_validators([CHECK], {"source": f"tcp://x:{silent.port}"})
    assert [note["parameter"] for note in notes] == ["source"]
    assert "resource_not_checked" in caplog.messages
    assert _detail("ada", notes) == {"actor": "ada", "unchecked": list(notes)}
    silent.close()
    settle(bounds)


def test_a_hundred_of_them_hold_half_of_the_threads_and_other_places_are_checked(silent, bounds) -> None:
    """Each held a thread of the request pool for a minute; the whole API stood still."""
    source = {"source": f"tcp://x:{silent.port}"}
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: run_resource_validators([CHECK], source), range(100)))
    assert bounds.running == 2
    assert "nothing at" in str(refused({"type": "source_exists", "param": "source"}, {"source": "/none/such"}))
    silent.close()
    settle(bounds)


def test_from_several_servers_they_hold_all_threads_and_no_more(bounds) -> None:
    servers = [SilentServer() for _ in range(5)]
    for server in servers:
        run_resource_validators([CHECK], {"source": f"tcp://{server.port}:{server.port}"})
    assert bounds.running == bounds.threads
    with note_unchecked() as notes:
        run_resource_validators([{"type": "source_exists", "param": "source"}], {"source": "/none/such"})
    assert "too many checks" in notes[0]["reason"]
    for server in servers:
        server.close()
    settle(bounds)


def test_burst_of_quick_checks_is_checked_whole(tmp_path, caplog) -> None:
    """More at once than there are threads: each waits its turn of a millisecond."""
    config = {"type": "source_exists", "param": "source"}
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda n: str(refused(config, {"source": str(tmp_path / str(n))})), range(200)))
    assert len([text for text in found if "nothing at" in text]) == 200
    assert "resource_not_checked" not in caplog.messages


def test_deadline_is_for_all_checks_of_a_submission(silent, bounds) -> None:
    names = ["source", "second", "third"]
    with note_unchecked() as notes:
        checks = [{**CHECK, "param": name} for name in names]
        run_resource_validators(checks, dict.fromkeys(names, f"tcp://x:{silent.port}"))
    assert [note["parameter"] for note in notes] == names
    assert silent.accepted.acquire(timeout=30)
    silent.close()
    settle(bounds)


def test_what_could_not_be_checked_is_not_looked_at_further(silent, bounds) -> None:
    """The check that it is an allowed place may be what got no answer."""
    with note_unchecked() as notes:
        run_resource_validators([CHECK, CHECK], {"source": f"tcp://x:{silent.port}"})
    assert len(notes) == 1
    assert silent.accepted.acquire(timeout=30)
    silent.close()
    settle(bounds)


def refused(config, parameters) -> ParameterErrors:
    with pytest.raises(ParameterErrors) as caught:
        run_resource_validators([config], parameters)
    return caught.value


class BadError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RuntimeError("password=hunter2 refused"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        BadError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        RecursionError(),
        RuntimeError("x" * 10_000_000),
        TimeoutError("its own"),
    ],
)
def test_whatever_a_backend_raises_is_a_reason_that_can_be_read(monkeypatch, error) -> None:
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    text = str(refused({"type": "source_exists", "param": "source"}, {"source": "memory://x"}))
    assert type(error).__name__ in text
    assert "hunter2" not in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    "text", ["x" * 5000, "/" + "x/" * 3000, "\x00", "file://" + "x" * 5000, "://", "a://", "\ud800", ""]
)
@pytest.mark.parametrize("config", [{"type": "source_exists", "param": "p"}, {"type": "folder_writable", "param": "p"}])
def test_texts_that_are_no_paths_are_refused_or_pass_but_raise_nothing_else(config, text) -> None:
    text_of_refusal = ""
    try:
        run_resource_validators([config], {"p": text})
    except ParameterErrors as errors:
        text_of_refusal = str(errors)
    assert len(text_of_refusal.encode("utf-8", "backslashreplace")) < 2000


def test_process_ends_while_a_check_is_stuck() -> None:
    script = (
        "import threading; from jobs.outside import OutsideChecks, Unknown\n"
        "found = OutsideChecks(seconds=0.1).run('x', threading.Event().wait, 0.1)\n"
        "assert isinstance(found, Unknown), found; print('end')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "end"


def test_check_that_gets_no_thread_cannot_tell_and_holds_no_place(monkeypatch) -> None:
    """The place stayed taken, and after eight of them nothing was checked any more; the submission failed too."""
    checks = OutsideChecks(threads=2)

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(checks._reserve, "start", no_thread)
        for _ in range(3):
            assert checks.run("x", bool, 5) == Unknown("no thread could be started: can't start new thread")
    assert checks.running == 0
    assert checks.run("x", lambda: None, 60) is None


def test_readyz_and_other_submissions_answer_while_a_hundred_wait_for_a_silent_source(silent, monkeypatch) -> None:
    """The order tells it: a hundred are on their way, and what is asked after them is answered before they are."""
    from jobs.hello_world import HANDLERS, HelloWorldJob
    from jobs.registry import Registry
    from tests.unit.triggers.fakes import FakeServices
    from triggers.api import create_api

    class Looking(HelloWorldJob):
        job_type = "looking"
        parameters_schema = {"source": {"type": "str", "required": True}}
        resource_validators = ({"type": "answers", "param": "source"},)

    monkeypatch.setattr(validators, "OUTSIDE", checks := OutsideChecks(threads=8, seconds=60))
    services = FakeServices(registry=Registry([HelloWorldJob, Looking], HANDLERS, ["tasks"]))
    app = create_api(lambda: services)

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://h", timeout=120) as http:
            source = {"source": f"tcp://x:{silent.port}"}
            many = [asyncio.create_task(http.post("/api/jobs/submit/looking", json=source)) for _ in range(100)]
            while checks.running < 4:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
            for path in ("/api/readyz", "/api/jobs", "/api/livez"):
                assert (await http.get(path)).status_code == 200
            assert (await http.post("/api/jobs/submit/hello_world", json={})).status_code == 202
            # Those that found no room were accepted at once; the four that ask the server still do.
            waiting = set(many)
            while len(waiting) > 4:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                assert {task.result().status_code for task in done} == {202}
            assert checks.running == 4
            silent.close()
            assert {(await task).status_code for task in waiting} == {400}

    asyncio.run(scenario())
    assert isinstance(checks.run("x", lambda: None, 0.0), Unknown)
