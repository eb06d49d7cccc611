"""When a silent worker is reported."""

import logging
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coremachine.local.host.supervisor import HostSupervisor
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


def test_records_name_the_app_where_there_are_several() -> None:
    assert [WorkerSlot(1).label, WorkerSlot(1, "worker-heavy").label] == ["1", "worker-heavy/1"]
