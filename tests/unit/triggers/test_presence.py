"""When a process begins to register itself, and what it does when that fails."""

import logging
from types import SimpleNamespace

import pytest

from core.errors import StoreUnavailable
from triggers import functions, presence, services
from triggers.ports import ServicesNotReady


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"COREMACHINE_DATABASE_URL": "postgresql://x/y", "COREMACHINE_APP_MODE": "worker"}, 1),
        ({"COREMACHINE_DATABASE_URL": ""}, 0),
        ({"COREMACHINE_DATABASE_URL": "postgresql://x/y", "COREMACHINE_APP_MODE": "wroker"}, 0),
    ],
)
def test_app_registers_itself_from_its_start_if_it_can_at_all(monkeypatch, tmp_path, settings, count):
    started = []
    monkeypatch.setattr(functions, "start_presence", lambda: started.append(1))
    monkeypatch.setattr(functions, "install_drain", lambda: None)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    functions.load_app(tmp_path)
    assert len(started) == count


@pytest.mark.parametrize(
    ("failure", "pauses", "told"),
    [
        (None, [20, 20], []),
        # Logged once for the whole process.
        (StoreUnavailable("away"), [2, 4, 8, 16, 20, 20], ["away"] * 6),
        (OSError("odd"), [2, 4, 8, 16, 20, 20], ["presence_not_registered"] * 6),
        (ServicesNotReady("no settings"), [40, 80, 160, 320, 320], []),
    ],
)
def test_failure_is_left_to_the_next_time(monkeypatch, caplog, failure, pauses, told):
    """A new process is known soon after its database can be used; one that never can asks ever more rarely."""
    caplog.set_level(logging.INFO, "triggers")

    def register():
        if failure is not None:
            raise failure

    noted = []
    monkeypatch.setattr(presence, "outage", SimpleNamespace(note=noted.append))
    looked = []
    made = SimpleNamespace(presence=SimpleNamespace(register=register), check_database=lambda: looked.append(1))
    monkeypatch.setattr(services, "get_services", lambda: made)
    waited = []
    monkeypatch.setattr(presence.random, "uniform", lambda *_: 1.0)
    ended = SimpleNamespace(wait=lambda seconds: waited.append(seconds) or len(waited) > len(pauses))
    monkeypatch.setattr(presence.threading, "Event", lambda: ended)
    presence._run()
    assert waited == [1, *pauses]
    assert [*noted, *(record.message for record in caplog.records)] == told
    assert len(looked) == (failure is None)


def test_system_without_threads_keeps_no_app_from_starting(monkeypatch, caplog):
    def refuse(*_args, **_options):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(presence.threading, "Thread", refuse)
    presence.start_presence()
    assert [record.message for record in caplog.records] == ["presence_not_started"]
