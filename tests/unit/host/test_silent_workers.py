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


def test_a_worker_that_stays_silent_is_ended_after_function_timeout(caplog: pytest.LogCaptureFixture) -> None:
    slot = silent_slot(1.0)
    HostSupervisor._on_silence(HOST, slot, 600.0)
    assert "killing it" in caplog.text
    assert slot.kill_at is not None
