"""When a silent worker is reported, and one that sends what nobody can read."""

import asyncio
import logging
import socket
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coremachine.local.host.protocol import Channel
from coremachine.local.host.supervisor import HostSupervisor
from coremachine.local.host.timer import TimerRunner
from coremachine.local.host.worker_slot import WorkerSlot

HOST = cast(
    "Any", SimpleNamespace(_appoint_leader=lambda: None, _settings=SimpleNamespace(function_timeout_seconds=60))
)


def silent_slot(age_seconds: float) -> WorkerSlot:
    slot = WorkerSlot(0)
    slot.process, slot.is_ready = cast("Any", SimpleNamespace(pid=7)), True
    slot.started_at = time.monotonic() - age_seconds
    return slot


@pytest.mark.parametrize(("age_seconds", "level"), [(1.0, logging.INFO), (3600.0, logging.WARNING)])
def test_a_new_worker_s_silence_is_no_warning(caplog: pytest.LogCaptureFixture, age_seconds: float, level: int) -> None:
    """It imports what its first functions need: a person who starts the stack on a busy machine can't help that."""
    slot = silent_slot(age_seconds)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            HostSupervisor._on_silence(HOST, slot, 9.0)
        HostSupervisor._hear(HOST, slot)
    found = [(record.levelno, record.message.split()[0]) for record in caplog.records]
    assert found == [(level, "worker_blocked"), (level, "worker_at_work_again")]


def test_a_worker_that_cannot_report_its_endless_import_is_given_up() -> None:
    """Something holds the interpreter: no thread of it can send the place."""
    slot = silent_slot(200.0)
    slot.is_ready = False
    slot.process = cast("Any", SimpleNamespace(pid=7, poll=lambda: None, kill=lambda: ended.append(7)))
    ended: list[int] = []
    host = cast("Any", SimpleNamespace(_load_seconds=100.0))
    host._give_up_loading = lambda *arguments: HostSupervisor._give_up_loading(host, *arguments)
    for _ in range(2):
        HostSupervisor._look_after(host, slot, is_quiet=True)
    assert ended == [7]
    assert "did not end within 100 s" in str(slot.broken)


def test_a_worker_that_stays_silent_is_ended_after_function_timeout(caplog: pytest.LogCaptureFixture) -> None:
    slot = silent_slot(1.0)
    HostSupervisor._on_silence(HOST, slot, 600.0)
    assert "killing it" in caplog.text
    assert slot.kill_at is not None


@pytest.mark.parametrize("line", [b"null", b"{}", b"no JSON", b'{"event": "ready"}', b"\xff"], ids=repr)
def test_a_worker_that_sends_what_nobody_can_read_is_replaced(caplog: pytest.LogCaptureFixture, line: bytes) -> None:
    """`json.dumps = lambda *a: "null"` in a handler ended the supervisor's thread, and with it the whole host."""
    ended: list[str] = []
    process = SimpleNamespace(pid=7, terminate=lambda: ended.append("asked"), kill=lambda: ended.append("killed"))
    process.poll = lambda: None
    host = cast("Any", SimpleNamespace(_grace_seconds=0.0, _load_seconds=100.0))
    host._on_event = lambda *arguments: HostSupervisor._on_event(host, *arguments)
    host._on_nonsense = lambda *arguments: HostSupervisor._on_nonsense(host, *arguments)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        slot = silent_slot(1.0)
        slot.process, slot.channel = cast("Any", process), Channel(ours)
        for _ in range(2):
            theirs.sendall(line + b"\n")
            HostSupervisor._read(host, slot)
        HostSupervisor._look_after(host, slot, is_quiet=False)
    assert ended == ["asked", "killed"]
    assert caplog.text.count("worker_not_understood worker=0 pid=7") == 1


def test_records_name_the_app_where_there_are_several() -> None:
    assert [WorkerSlot(1).label, WorkerSlot(1, "worker-heavy").label] == ["1", "worker-heavy/1"]


def test_timers_that_fail_in_one_worker_are_fired_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that replaced `threading.Lock` broke each sweep of its worker: no row of any job was looked after."""
    sent: list[tuple[int, str]] = []
    slots = [silent_slot(60.0) for _ in range(3)]
    for index, slot in enumerate(slots):
        slot.index = index
        send = partial(lambda index, message: sent.append((index, message["command"])) or True, index)
        slot.channel = cast("Any", SimpleNamespace(send=send))
    slots[2].is_blocked = True
    host = cast("Any", SimpleNamespace(_slots=slots, _leader=1))
    host._pass_timers_on = partial(HostSupervisor._pass_timers_on, host)
    caplog.set_level(logging.INFO)
    told = {"event": "timer_failing", "function": "janitor_sweep"}
    HostSupervisor._on_event(host, slots[1], told)
    HostSupervisor._on_event(host, slots[1], told)  # it leads no more
    assert sent == [(0, "lead_timers"), (1, "leave_timers")]
    assert host._leader == 0
    assert caplog.text.count("timers_passed_on worker=1 function=janitor_sweep to=0") == 1
    slots[1].is_ready = False
    HostSupervisor._on_event(host, slots[0], told)  # nobody else can
    assert (host._leader, len(sent)) == (0, 2)


def test_a_worker_that_ends_by_itself_fires_no_more_timers() -> None:
    """It stopped its timers, and waited for its functions; until it had ended, no other one fired them."""
    sent: list[tuple[int, str]] = []
    slots = [silent_slot(60.0) for _ in range(2)]
    for index, slot in enumerate(slots):
        slot.index = index
        send = partial(lambda index, message: sent.append((index, message["command"])) or True, index)
        slot.channel = cast("Any", SimpleNamespace(send=send))
    host = cast("Any", SimpleNamespace(_slots=slots, _leader=0, _timers_started=True))
    host._appoint_leader = partial(HostSupervisor._appoint_leader, host)
    HostSupervisor._on_event(host, slots[0], {"event": "stopping"})
    assert sent == [(1, "lead_timers"), (0, "leave_timers")]
    assert host._leader == 1


def test_a_supervisor_that_could_not_start_a_worker_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread ended: no worker that died was replaced any more."""
    monkeypatch.setattr("coremachine.local.host.supervisor._AGAIN_SECONDS", 0.0, raising=False)
    stopping, waking, _waker = threading.Event(), *socket.socketpair()
    looks: list[None] = []

    def look_after(*_slot: object, **_options: object) -> None:
        looks.append(None)
        if len(looks) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        stopping.set()

    host = cast("Any", SimpleNamespace(_slots=[WorkerSlot(0)], _stopping=stopping, _waking=waking))
    host._changed, host._seconds_to_look, host._look_after = threading.Condition(), lambda: 0.0, look_after
    host._end_replaced = lambda _now: None
    host._watch_once = lambda: HostSupervisor._watch_once(host)
    with waking, _waker:
        HostSupervisor._watch(host)
    assert len(looks) == 2
    assert "workers_not_watched" in caplog.text


def test_the_next_worker_fires_the_timers_as_soon_as_theirs_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here as `process_broken` ends it; where no other is ready, the first that is."""
    monkeypatch.setattr("coremachine.local.host.supervisor.end_process", lambda _process, _seconds: 73)
    sent: list[tuple[int, str, bool]] = []

    def send(index: int, message: dict[str, Any]) -> bool:
        sent.append((index, message["command"], message["is_host_start"]))
        return True

    slots = [silent_slot(60.0) for _ in range(2)]
    for index, slot in enumerate(slots):
        slot.index = index
        slot.channel = cast("Any", SimpleNamespace(send=partial(send, index), close=lambda: None))
    host = cast("Any", SimpleNamespace(_slots=slots, _leader=0, _timers_started=True))
    host._appoint_leader = partial(HostSupervisor._appoint_leader, host)
    HostSupervisor._on_death(host, slots[0])
    assert (host._leader, sent) == (1, [(1, "lead_timers", False)])
    HostSupervisor._on_death(host, slots[1])
    assert (host._leader, len(sent)) == (None, 1)
    slots[0].is_ready, slots[0].channel = True, cast("Any", SimpleNamespace(send=partial(send, 0)))
    host._appoint_leader()
    assert (host._leader, sent[1:]) == (0, [(0, "lead_timers", False)])


@pytest.mark.parametrize(
    ("outcomes", "seconds", "reports"),
    [("ffffff", 0, 2), ("ffsff", 0, 0), ("fff", 0, 1), ("s", 0, 0), ("ff", 8, 1), ("f", 30, 1), ("ss", 30, 0)],
)
def test_a_worker_reports_timers_that_fail_each_time(outcomes: str, seconds: float, reports: int) -> None:
    """Three sweeps in a row that each wait for a broken pool of connections take minutes."""
    told: list[None] = []
    left = list(outcomes)
    time_passed = [datetime(2026, 1, 1, tzinfo=UTC)]

    def submit(_call: object, _what: str) -> Future[None]:
        time_passed[0] += timedelta(seconds=seconds)
        ended: Future[None] = Future()
        if left.pop(0) == "f":
            ended.set_exception(TypeError("'NoneType' object is not callable"))
        else:
            ended.set_result(None)
        return ended

    function = cast("Any", SimpleNamespace(name="sweep", retry=None))
    dispatcher = cast("Any", SimpleNamespace(submit=submit))
    runner = TimerRunner(
        function,
        cast("Any", None),
        dispatcher,
        cast("Any", None),
        UTC,
        on_failing=lambda: told.append(None),
        now=lambda: time_passed[0],
    )
    for _ in outcomes:
        asyncio.run(runner._fire(past_due=False, status=None))
    assert len(told) == reports
