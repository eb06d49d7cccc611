"""Work that no live app can take, and releases side by side: facts in, findings out."""

import logging
from datetime import UTC, datetime, timedelta

import pytest

from core.models.app import AppInstanceRecord, AppProfile, FleetFacts, WaitingWork
from core.models.insight import JobFacts, QueueFacts
from core.models.status import JobStatus
from core.operating.explain import explain
from core.operating.fleet import LIVE_SECONDS, PATIENCE_SECONDS, find_fleet_problems
from core.operating.fleet_watch import FleetWatch, Presence

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def ago(seconds):
    return NOW - timedelta(seconds=seconds)


def app(name, queues, task_types=("cut",), **fields):
    defaults = {"mode": "worker", "version": "1.0", "job_types": (), "slots": 8}
    times = {"started_at": ago(900), "seen_at": ago(5)}
    names = {"instance": f"{name}:1", "app_name": name, "queues": tuple(queues), "task_types": tuple(task_types)}
    return AppInstanceRecord(**{**defaults, **times, **names, **fields})


PLATFORM = app("platform", ["jobs"], mode="platform", slots=0)
WAITING = WaitingWork("raster", "cut", ago(PATIENCE_SECONDS + 1))


def problems(*instances, waiting=(WAITING,)):
    return find_fleet_problems(FleetFacts(NOW, instances, tuple(waiting)))


def codes(*instances, **given):
    return [(each.code, each.severity.value) for each in problems(*instances, **given)]


def test_work_that_a_live_app_can_take_is_no_problem():
    assert codes(PLATFORM, app("worker", ["raster"])) == []


def test_queue_without_a_reader_names_the_queue_and_what_to_set():
    (found,) = problems(PLATFORM)
    assert (found.code, found.severity) == ("queue_without_app", "warning")
    assert "no live app reads the queue 'raster'" in found.message
    assert "no app that reads it was seen in the last day" in found.message
    assert "COREMACHINE_WORKER_QUEUES" in found.advice
    assert found.since == WAITING.since


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"seen_at": ago(LIVE_SECONDS + 1)}, "worker, was last heard of at 2026-01-02 11:58:54Z"),
        ({"ended_at": ago(30)}, "worker, ended at 2026-01-02 11:59:30Z"),
    ],
)
def test_reader_that_is_gone_is_named(fields, told):
    (found,) = problems(PLATFORM, app("worker", ["raster"], **fields))
    assert (found.code, told in found.message) == ("queue_without_app", True), found.message


def test_silence_of_a_few_seconds_is_no_death():
    assert codes(PLATFORM, app("worker", ["raster"], seen_at=ago(LIVE_SECONDS))) == []


def test_work_that_came_just_now_is_no_warning():
    assert codes(PLATFORM, waiting=[WaitingWork("raster", "cut", ago(PATIENCE_SECONDS))]) == [
        ("queue_without_app", "info")
    ]


def test_task_type_without_a_handler_at_its_queue_names_who_has_one():
    reader, other = app("reader", ["raster"], ["polish"]), app("other", ["tasks"], ["cut"])
    (found,) = problems(PLATFORM.model_copy(update={"task_types": ()}), reader, other)
    assert found.code == "task_type_without_app"
    assert "(reader read the queue)" in found.message
    assert found.advice.startswith("other has the handler and does not read 'raster'")
    (found,) = problems(PLATFORM.model_copy(update={"task_types": ()}), reader)
    assert found.advice.startswith("deploy a release with a handler for 'cut'")


def test_a_platform_app_is_not_asked_to_run_tasks():
    """It has the handlers of its release, since all apps have the same code."""
    newer = PLATFORM.model_copy(update={"release": "c3d4", "task_types": ("cut",)})
    (found,) = [each for each in problems(newer, app("worker", ["raster"], [])) if each.code != "several_releases"]
    assert found.advice.startswith(
        "platform (c3d4 on CoreMachine 1.0) has the handler and runs no tasks: deploy its release to an app that reads"
    )


def test_nothing_is_said_while_nobody_announces_itself():
    """Apps of a release that does not register itself run beside a database of this one."""
    assert codes() == []
    assert codes(app("worker", ["tasks"], ended_at=ago(1))) == []


def test_releases_side_by_side_are_told_with_their_apps():
    old = app("worker", ["raster"], release="a1b2")
    new = app("worker", ["raster"], release="c3d4", instance="worker:2")
    platform = PLATFORM.model_copy(update={"release": "c3d4", "version": "1.1"})
    assert codes(old, new.model_copy(update={"release": "a1b2"})) == []
    (found,) = problems(old, new, platform, app("gone", [], release="9", ended_at=ago(5)))
    assert (found.code, found.severity) == ("several_releases", "info")
    assert found.message == (
        "3 releases run side by side (a1b2 on CoreMachine 1.0: worker; c3d4 on CoreMachine 1.0: worker; "
        "c3d4 on CoreMachine 1.1: platform)"
    )


def job_facts(**fields):
    times = {"now": NOW, "created_at": ago(200), "updated_at": ago(100)}
    place = {"job_id": "ab" * 32, "status": JobStatus.PROCESSING, "run": 1, "stage": 1, "total_stages": 1}
    queue = QueueFacts("raster", 3, ago(100), 0, (), None)
    return JobFacts(**{**times, **place, "queues": (queue,), "open_count": 3, **fields})


def test_explain_names_the_missing_app_instead_of_an_unseen_worker():
    assert [each.code for each in explain(job_facts())] == ["no_worker_seen"]
    fleet = FleetFacts(NOW, (PLATFORM,), (WAITING,))
    assert [each.code for each in explain(job_facts(fleet=fleet))] == ["queue_without_app", "waiting_in_queue"]


def test_explain_believes_leases_more_than_registrations():
    """A worker of a release that does not register itself has tasks of the queue."""
    busy = QueueFacts("raster", 3, ago(100), 2, ("old:1",), ago(50))
    fleet = FleetFacts(NOW, (PLATFORM,), (WAITING,))
    assert [each.code for each in explain(job_facts(queues=(busy,), fleet=fleet))] == ["waiting_in_queue"]


class FakeStore:
    def __init__(self):
        self.facts = FleetFacts(NOW, (PLATFORM,), (WAITING,))
        self.calls = []

    def read_fleet(self, job_id=None):
        return self.facts

    def prune_app_instances(self, older_than_seconds, *, most):
        return 4

    def record_app_instance(self, profile):
        self.calls.append("here")

    def end_app_instance(self, instance):
        self.calls.append(f"ended {instance}")


def test_watch_warns_once_and_reports_the_end(caplog):
    caplog.set_level(logging.INFO)
    store = FakeStore()
    watch = FleetWatch(store)
    assert [watch.look(), watch.look()] == [4, 4]
    assert [record.message for record in caplog.records] == ["work_without_app"]
    store.facts = FleetFacts(NOW, (PLATFORM, app("worker", ["raster"])), (WAITING,))
    watch.look()
    watch.look()
    assert [record.message for record in caplog.records] == ["work_without_app", "work_has_app_again"]
    store.facts = FleetFacts(NOW, (PLATFORM,), (WAITING,))
    watch.look()
    assert len(caplog.records) == 3


def test_process_that_ended_does_not_announce_itself_again():
    store = FakeStore()
    profile = AppProfile("app:1", "app", "worker", "1", None, ("tasks",), ("cut",), (), 8)
    presence = Presence(store, profile)
    presence.register()
    presence.end()
    presence.register()
    assert store.calls == ["here", "ended app:1"]
    never = FakeStore()
    Presence(never, profile).end()
    assert never.calls == []
