"""What a stand-in does with the answers of the database, and with a parent that is silent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.models.lease import LeaseOutcome, RenewedLease
from core.models.refs import StepRef
from infrastructure.settings import load_settings
from infrastructure.stand_in import LeaseStandIn
from infrastructure.stand_in_process import Connection, StandIn, is_stopped
from infrastructure.step_sheet import StepSheet, read_steps

PARENT = 4711


def rows(*tasks, outcome="renewed", seconds_left=60.0):
    return [RenewedLease("j", task, LeaseOutcome(outcome), seconds_left) for task in tasks]


@pytest.mark.parametrize(
    ("found", "pause"),
    [
        (rows("a", seconds_left=60.0) + rows("b", seconds_left=15.0), 5.0),
        (rows("a", seconds_left=3600.0), 20.0),
        (rows("a", seconds_left=0.5), 1.0),
        (rows("a", outcome="timed_out", seconds_left=-3.0) + rows("b", seconds_left=30.0), 10.0),
        (rows("a", outcome="timed_out", seconds_left=2.0), 1.0),
        ([], 1.0),
    ],
)
def test_next_renewal_is_due_when_a_third_of_the_shortest_lease_is_over(found, pause):
    assert StandIn(lambda: found, PARENT, 100.0)._stand_in(2.0) == pause


def test_database_that_is_away_is_asked_again_soon(caplog):
    def away():
        raise ConnectionError("away")

    assert StandIn(away, PARENT, 100.0)._stand_in(2.0) == 1.0
    assert "lease_stand_in_failed" in caplog.text


def test_it_gives_up_when_its_time_is_over(caplog):
    asked = []
    assert StandIn(lambda: asked.append(1) or [], PARENT, 100.0)._stand_in(100.1) is None
    assert asked == []
    assert "COREMACHINE_LEASE_STAND_IN_SECONDS allows 100" in caplog.text


def test_each_outcome_of_a_task_is_told_once(caplog):
    answers = [rows("a", "b"), rows("a", "b"), rows("a") + rows("b", outcome="timed_out")]
    stand_in = StandIn(lambda: answers.pop(0), PARENT, 100.0)
    for _ in range(3):
        stand_in._stand_in(2.0)
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert told == [
        f"lease_stand_in pid={PARENT} outcome=renewed tasks=j/a,j/b",
        f"lease_stand_in pid={PARENT} outcome=timed_out tasks=j/b",
    ]


def test_many_tasks_are_counted(caplog):
    StandIn(lambda: rows(*(f"t{number:02}" for number in range(100))), PARENT, 100.0)._stand_in(2.0)
    assert "j/t09 and 90 more;" in caplog.text


def test_it_renews_from_the_silence_to_the_next_sign_of_life():
    renewed, waits = threading.Semaphore(0), threading.Semaphore(0)

    def renew():
        renewed.release()
        assert waits.acquire(timeout=30)
        return rows("a", seconds_left=3600.0)

    rests = threading.Semaphore(0)
    stand_in = StandIn(renew, PARENT, 100.0, rests.release)
    threading.Thread(target=stand_in.run, daemon=True).start()
    for _ in range(2):  # silent, at work, silent again: the second silence does not wait for a pause of the first
        stand_in.begin()
        assert renewed.acquire(timeout=30)
        waits.release()
        stand_in.end()
        assert rests.acquire(timeout=30)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
def test_stopped_process_is_known():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_stopped(child.pid)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert is_stopped(child.pid)
    child.kill()
    child.communicate()
    assert not is_stopped(child.pid)


@pytest.mark.parametrize(
    "environment",
    [
        {"COREMACHINE_DATABASE_URL": "postgresql://u:p@h/d", "ServiceBusConnection__fullyQualifiedNamespace": "n.x"},
        {
            "COREMACHINE_DATABASE_URL": "host=h dbname=d",
            "COREMACHINE_DATABASE_AUTH": "entra",
            "COREMACHINE_SCHEMA": "other",
            "COREMACHINE_TASK_QUEUES": "light=l,heavy=h/1",
            "COREMACHINE_APP_MODE": "worker",
            "COREMACHINE_WORKER_QUEUES": "heavy,light",
            "COREMACHINE_RETENTION_DAYS": "1.5",
            "WEBSITE_SITE_NAME": "site",
            "ServiceBusConnection": "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=a2V5",
        },
    ],
)
def test_settings_give_the_same_settings_in_another_process(environment):
    settings = load_settings(environment)
    assert load_settings(settings.to_environment()) == settings


def test_without_a_thread_that_ticks_no_process_is_left_and_the_next_call_tries_again(monkeypatch, caplog):
    """A stand-in that nobody ticks takes its parent for blocked, and renews what nobody works on."""
    environment = {
        "COREMACHINE_DATABASE_URL": "postgresql://u:p@h/d",
        "ServiceBusConnection__fullyQualifiedNamespace": "n.x",
    }

    def no_thread(_thread):
        raise RuntimeError("can't start new thread")

    started = []
    monkeypatch.setattr(LeaseStandIn, "_start", lambda _: started.append(1))
    stand_in = LeaseStandIn(load_settings(environment), "owner")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        stand_in.watch(60.0)
    assert started == []
    assert "lease_stand_in_not_started" in caplog.text
    stand_in.watch(60.0)
    assert started == [1]
    stand_in.close()


def test_a_sheet_says_the_steps_that_are_taken_now(tmp_path):
    one, other = StepRef("ab", 1, 2, "queued", 0), StepRef("cd", 1, 3, "finalizing", 1)
    sheet = StepSheet()
    assert read_steps(sheet.descriptor) == []
    for steps in ({one, other}, {other}, set()):
        sheet.write(steps)
        assert set(read_steps(sheet.descriptor)) == steps
    with (tmp_path / "torn").open("w+b") as file:
        file.write(b'[["ab", 1, 2, "que')
        file.flush()
        with pytest.raises(ValueError, match=r"JSON|Unterminated|Expecting"):
            read_steps(file.fileno())
    sheet.close()
    sheet.close()


def test_a_descriptor_that_an_author_closed_is_not_closed_again(tmp_path):
    sheet = StepSheet()
    with (tmp_path / "own").open("w") as own:
        os.close(sheet.descriptor)
        assert not sheet.is_whole
        os.dup2(own.fileno(), sheet.descriptor)
        sheet.write({StepRef("ab", 1, 2, "queued", 0)})
        sheet.close()
        os.fstat(sheet.descriptor)
        os.close(sheet.descriptor)
    assert (tmp_path / "own").read_text() == ""


def test_leases_of_tasks_are_renewed_before_the_steps_are_read(monkeypatch):
    renewed = []
    tasks = SimpleNamespace(renew_leases_of_owner=lambda owner: renewed.append(owner) or [])
    factory = SimpleNamespace(create_repositories=lambda: SimpleNamespace(tasks=tasks))
    connection = Connection({}, "owner")
    monkeypatch.setattr(connection, "prepare", lambda: factory)

    def torn():
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        connection.renew(torn)
    assert renewed == ["owner"]


def test_more_steps_than_a_sheet_has_room_for_are_left_out():
    sheet = StepSheet()
    sheet.write(StepRef("f" * 64, 2**31, number, "finalizing", 2**31) for number in range(10_000))
    found = read_steps(sheet.descriptor)
    assert 300 < len(found) < 10_000
    assert [step[2] for step in found] == list(range(len(found)))
    sheet.close()
