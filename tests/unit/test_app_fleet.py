"""The apps that a text asks for, and hosts that start and end together."""

import logging
import threading

import pytest

from coremachine.local.app_fleet import (
    ONE_APP,
    AppFleet,
    LocalApp,
    find_unread_queues,
    name_app,
    read_apps,
    state_folder,
)
from coremachine.local.host.errors import HostStartError
from coremachine.local.stack_file import StackError

OWN_QUEUES = {"COREMACHINE_TASK_QUEUES": "a=real-a,b=real-b"}


@pytest.mark.parametrize(
    ("text", "environment", "apps"),
    [
        ("standalone", {}, [("standalone", "standalone", ())]),
        (
            " worker : raster, platform ,worker:tasks,",
            {},
            [
                ("platform", "platform", ()),
                ("worker-raster", "worker", ("raster",)),
                ("worker-tasks", "worker", ("tasks",)),
            ],
        ),
        ("platform,worker", {}, [("platform", "platform", ()), ("worker", "worker", ())]),
        ("platform,worker:a+b", OWN_QUEUES, [("platform", "platform", ()), ("worker-a-b", "worker", ("a", "b"))]),
        (
            "platform,worker:a,worker:a",
            OWN_QUEUES,
            [("platform", "platform", ()), ("worker-a", "worker", ("a",)), ("worker-a.2", "worker", ("a",))],
        ),
    ],
)
def test_text_names_apps_the_one_with_http_first(text, environment, apps):
    assert [(app.name, app.mode, app.queues) for app in read_apps(text, environment)] == apps


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected one app of mode standalone or platform, found 0 in ''"),
        ("worker", "expected one app of mode standalone or platform, found 0 in 'worker'"),
        ("platform,standalone", "expected one app of mode standalone or platform, found 2"),
        ("platform,wroker:tasks", "expected standalone, platform or worker, found 'wroker' in 'wroker:tasks'"),
        ("platform:tasks", "expected queues behind worker only, found 'platform:tasks'; remove :tasks"),
        (
            "platform,worker:gpu",
            r"found 'gpu'; correct it, or add gpu = .* to .tool.coremachine.queues. .* gpu=<its real name> to CORE",
        ),
        ("platform,worker:", "expected queues of tasks, raster, found ''; correct it$"),
        ("platform,worker:raster+raster", "'worker:raster.raster': expected each queue once; remove the second"),
    ],
)
def test_what_is_wrong_is_named(text, problem):
    with pytest.raises(StackError, match=problem):
        read_apps(text, {})


def test_settings_make_the_app_what_it_is():
    assert LocalApp("worker-a-b", "worker", ("a", "b")).settings() == {
        "COREMACHINE_APP_MODE": "worker",
        "COREMACHINE_APP_NAME": "worker-a-b",
        "COREMACHINE_WORKER_QUEUES": "a,b",
        "LOCAL_HOST_SPEAKER": "worker-a-b",
    }
    assert ONE_APP[0].settings() == {}


@pytest.mark.parametrize(
    ("text", "unread"),
    [("platform", ["tasks", "raster"]), ("platform,worker:raster", ["tasks"]), ("standalone,worker:raster", [])],
)
def test_queues_that_nobody_reads(text, unread):
    assert find_unread_queues(read_apps(text, {}), {}) == unread


class FakeHost:
    def __init__(self, app, calls, ends):
        self.app, self.calls, self.ends = app, calls, ends

    def start(self):
        self.calls.append(("start", self.app.name))

    def wait_ready(self, timeout_seconds):
        self.calls.append(("ready", self.app.name))
        if self.app.name == "worker":
            raise HostStartError("cannot be loaded")

    def replace_workers(self, grace_seconds):
        self.calls.append(("replace", self.app.name))

    def stop(self):
        # Both are at this place at once, or neither goes on.
        self.ends.wait(30)
        self.calls.append(("stop", self.app.name))


def test_hosts_start_together_and_end_beside_each_other():
    calls, ends = [], threading.Barrier(2)
    fleet = AppFleet(read_apps("platform,worker", {}), lambda app: FakeHost(app, calls, ends))
    with pytest.raises(HostStartError):
        fleet.start(1)
    assert calls == [("start", "platform"), ("start", "worker"), ("ready", "platform"), ("ready", "worker")]
    calls.clear()
    with pytest.raises(HostStartError):
        fleet.replace_workers(0.1, 1)
    assert calls == [("replace", "platform"), ("replace", "worker"), ("ready", "platform"), ("ready", "worker")]
    calls.clear()
    fleet.stop()
    assert sorted(calls) == [("stop", "platform"), ("stop", "worker")]


def test_each_app_keeps_its_timers_apart(tmp_path):
    assert state_folder(tmp_path, ONE_APP[0]) == tmp_path
    assert state_folder(tmp_path / "host", LocalApp("worker")) == tmp_path / "host" / "worker"
    assert (tmp_path / "host" / "worker").is_dir()


@pytest.mark.parametrize(("thread", "app"), [("host-supervisor worker-a", "worker-a"), ("MainThread", None)])
def test_records_of_a_supervisor_name_its_app(thread, app):
    record = logging.makeLogRecord({"threadName": thread})
    assert name_app(record)
    assert getattr(record, "app", None) == app
