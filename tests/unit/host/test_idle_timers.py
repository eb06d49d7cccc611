"""What wakes an idle worker, and what a spare one imports."""

import asyncio
import importlib
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coremachine.local.app_modules import MODULES
from coremachine.local.host import dispatcher as dispatchers
from coremachine.local.host.dispatcher import Dispatcher
from coremachine.local.host.server import HttpServer
from coremachine.local.host.worker_slot import WorkerSlot
from coremachine.local.host.worker_starter import import_ahead


def test_the_watchdog_looks_when_the_oldest_call_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(dispatchers, "time", SimpleNamespace(monotonic=lambda: now))
    invoker = cast("Any", SimpleNamespace(submit=lambda _call: Future()))
    dispatcher = Dispatcher(invoker, timeout_seconds=30.0)
    assert 30.0 < dispatcher.seconds_to_overdue() < 30.1
    for name in ("first", "second"):
        call = SimpleNamespace(function=SimpleNamespace(name=name), invocation_id=name)
        dispatcher.submit(cast("Any", call), "test")
        now += 10.0
    assert 10.0 < dispatcher.seconds_to_overdue() < 10.1
    assert dispatcher.overdue() is None
    now += dispatcher.seconds_to_overdue()
    overdue = dispatcher.overdue()
    assert overdue is not None
    assert overdue.invocation_id == "first"
    assert dispatcher.seconds_to_overdue() < 0.1


def test_the_server_ends_when_it_is_asked_to() -> None:
    """It looks once a second otherwise."""
    looks: list[int] = []

    class Counting(HttpServer):
        def __init__(self) -> None:
            self.should_exit, self._ending = False, asyncio.Event()

        async def on_tick(self, counter: int) -> bool:
            looks.append(counter)
            return self.should_exit

    async def run() -> None:
        server = Counting()
        serving = asyncio.create_task(server.main_loop())
        await asyncio.sleep(0)
        server.end()
        await serving

    asyncio.run(run())
    assert looks == [0, 0]


def test_the_supervisor_looks_when_something_is_due() -> None:
    slot = WorkerSlot(0, restart_at=5.0, kill_at=7.0)
    assert slot.due_at == 5.0
    slot.process = cast("Any", object())
    assert slot.due_at == 7.0
    slot.kill_at = None
    assert slot.due_at is None


def test_a_spare_worker_imports_until_it_is_wanted(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "lib" / "site-packages"
    installed.mkdir(parents=True)
    for file in (tmp_path / "spare_own.py", installed / "spare_first.py", installed / "spare_second.py"):
        file.touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path), str(installed)])
    answers = iter([False, True])
    try:
        assert import_ahead(["spare_first", "spare_second"], lambda: next(answers), tmp_path) == []
        assert "spare_first" in sys.modules
        assert "spare_second" not in sys.modules
        assert import_ahead(["spare_own"], lambda: False, tmp_path) == ["spare_own"]
    finally:
        for name in ("spare_first", "spare_own"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("name", MODULES)
def test_what_spare_workers_import_is_there(name: str) -> None:
    """A wrong name would end each of them."""
    importlib.import_module(name)
