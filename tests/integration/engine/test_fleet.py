"""Processes that register themselves in a real database, and work that waits for one of them."""

import json

import pytest
from psycopg.sql import SQL

from core.models.app import AppProfile
from core.operating.explain import explain
from core.operating.fleet import KEPT_SECONDS, LIVE_SECONDS, live_instances
from core.operating.fleet_watch import FleetWatch, Presence
from core.operating.janitor import Janitor
from infrastructure.apps import _WAITING, AppRepository
from infrastructure.insight import InsightQueries
from infrastructure.janitor_store import JanitorRepository

from .test_dead_letters import planned


@pytest.fixture
def apps(engine):
    return AppRepository(engine.pool)


def profile(name="worker", queues=("tasks",), task_types=("square",)):
    return AppProfile(f"{name}:1", name, "worker", "1.0", "r1", tuple(queues), tuple(task_types), ("shapes",), 8)


def age(engine, seconds):
    engine.execute("update app.app_instances set seen_at = seen_at - %s * interval '1 s'", seconds)


def test_registrations_of_a_process_are_one_row_that_ages(engine, apps):
    for _ in range(2):
        apps.record_app_instance(profile())
    (row,) = apps.read_fleet().instances
    assert row.model_dump(exclude={"started_at", "seen_at", "ended_at"}) == vars(profile())
    assert row.started_at < row.seen_at
    age(engine, LIVE_SECONDS + 1)
    facts = apps.read_fleet()
    assert [each.state(facts.now, LIVE_SECONDS) for each in facts.instances] == ["silent"]
    apps.record_app_instance(profile())
    assert live_instances(apps.read_fleet())


def test_process_that_ended_stays_ended(apps):
    presence = Presence(apps, profile())
    presence.register()
    presence.end()
    # A registration that was under way.
    apps.record_app_instance(profile())
    facts = apps.read_fleet()
    assert [each.state(facts.now, LIVE_SECONDS) for each in facts.instances] == ["ended"]


def test_rows_of_the_day_before_are_deleted(engine, apps):
    apps.record_app_instance(profile("old"))
    age(engine, KEPT_SECONDS + 1)
    apps.record_app_instance(profile("new"))
    assert apps.prune_app_instances(KEPT_SECONDS, most=10) == 1
    assert [each.app_name for each in apps.read_fleet().instances] == ["new"]


def test_processes_that_run_are_not_hidden_by_many_that_ended(engine, apps):
    """The first thousand by name were read, of what a day of scaling left: a queue seemed to have no reader."""
    engine.execute(
        "insert into app.app_instances (instance, app_name, mode, version, queues, task_types, job_types, slots,"
        " started_at, seen_at, ended_at) select 'a:' || n, 'a', 'worker', '1', '{tasks}', '{}', '{}', 8,"
        " app.clock(), app.clock() + interval '1 s', app.clock() from generate_series(1, 1001) n"
    )
    apps.record_app_instance(profile("worker-z"))
    facts = apps.read_fleet()
    assert [each.app_name for each in live_instances(facts)] == ["worker-z"]
    assert facts.instances[-1].app_name == "worker-z"


def test_job_that_waits_for_an_app_is_explained_until_one_is_there(rig, engine, apps):
    job_id = planned(rig, n=3)
    engine.execute("update app.tasks set announced_at = announced_at - interval '2 min'")
    insight = InsightQueries(engine.pool)

    def codes():
        return [(each.code, each.severity.value) for each in explain(insight.get_job_facts(job_id))]

    apps.record_app_instance(profile("platform", ["jobs"]))
    assert codes() == [("queue_without_app", "warning"), ("waiting_in_queue", "info")]
    apps.record_app_instance(profile("other", ["tasks"], ["polish"]))
    assert ("task_type_without_app", "warning") in codes()
    apps.record_app_instance(profile())
    assert codes() == [("waiting_in_queue", "info")]
    rig.queues.run(rig.machine)
    assert apps.read_fleet().waiting == ()


def test_only_what_could_run_now_waits_for_an_app(rig, engine, apps):
    job_id = planned(rig, n=3)
    (work,) = apps.read_fleet().waiting
    assert (work.queue, work.task_type) == ("tasks", "square")
    assert apps.read_fleet(job_id).waiting == (work,)
    assert apps.read_fleet("0" * 64).waiting == ()
    rig.machine.pause_job(job_id)
    assert apps.read_fleet().waiting == ()
    rig.machine.resume_job(job_id)
    engine.claim(job_id, 2, "s2-n0", "s2-n1", "s2-n2")
    assert apps.read_fleet().waiting == ()


def test_queues_are_counted_by_their_rows(rig, engine, apps):
    job_id = planned(rig, n=5)
    rig.submit(n=3)
    engine.claim(job_id, 2, "s2-n0", "s2-n1")
    loads = {load.queue: load for load in apps.read_queue_loads(["jobs", "tasks", "raster"])}
    assert list(loads) == ["jobs", "tasks", "raster"]
    assert (loads["tasks"].waiting, loads["tasks"].running, loads["tasks"].dead) == (3, 2, 0)
    assert loads["tasks"].oldest_at is not None
    numbers = dict.fromkeys(("waiting", "running", "retrying", "unannounced", "dead"), 0)
    assert loads["raster"].model_dump() == {"queue": "raster", "oldest_at": None, **numbers}
    assert loads["jobs"].waiting == 1


def test_queues_count_what_has_no_message_yet(rig, engine, apps):
    """While 11,000 tasks waited in line, the table had 40 that wait and nothing of the others."""
    job_id = planned(rig, n=5)
    engine.execute("update app.tasks set status = 'pending', announced_at = null where task_id = 's2-n0'")
    engine.claim(job_id, 2, "s2-n1")
    engine.execute(
        "update app.tasks set status = 'pending_retry', due_at = app.clock(), announced_at = null, lease_id = null,"
        " lease_owner = null, lease_expires_at = null where task_id = 's2-n1'"
    )
    (tasks,) = [load for load in apps.read_queue_loads([]) if load.queue == "tasks"]
    assert (tasks.waiting, tasks.running, tasks.retrying, tasks.unannounced) == (3, 0, 1, 1)


def test_sweep_looks_for_work_without_an_app(rig, engine, apps, caplog):
    planned(rig, n=3)
    engine.execute("update app.tasks set announced_at = announced_at - interval '2 min'")
    apps.record_app_instance(profile("platform", ["jobs"]))
    apps.record_app_instance(profile("long gone", ["tasks"]))
    engine.execute("update app.app_instances set seen_at = seen_at - interval '2 d' where app_name = 'long gone'")
    janitor = Janitor(JanitorRepository(engine.pool), rig.state, rig.orchestration, watch=FleetWatch(apps))
    first, second = janitor.sweep(), janitor.sweep()
    assert (first.errors, second.errors, first.pruned_apps) == ({}, {}, 1)
    told = [record for record in caplog.records if record.message == "work_without_app"]
    assert [record.problem for record in told] == ["queue_without_app"]


@pytest.mark.breaks_invariants
def test_look_for_waiting_work_reads_a_few_rows_of_a_large_stage(rig, engine, apps):
    """Any rows would do for the query, so the planner read the whole table for them: 0.2 s in every sweep."""
    job_id = planned(rig, n=1)
    engine.execute(
        "insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, status, announced_at)"
        " select %s, 1, 'x' || lpad(n::text, 6, '0'), 2, n, 'square', 'tasks', 'queued', now()"
        " from generate_series(10, 20000) n",
        job_id,
    )
    engine.execute("analyze app.tasks")
    query = SQL("explain (analyze, format json) ") + _WAITING.format(**apps._names())
    with engine.pool.connection() as connection:
        (row,) = connection.execute(query, {"job_id": None, "stages": 200, "tasks": 20, "looked_at": 1000}).fetchall()
    text = json.dumps(row["QUERY PLAN"])
    assert '"Index Name": "tasks_open"' in text
    rows = [plan["Actual Rows"] for plan in plans_of(row["QUERY PLAN"][0]["Plan"]) if plan.get("Alias") == "x"]
    assert rows, text
    assert max(rows) <= 1000


def plans_of(plan):
    yield plan
    for inner in plan.get("Plans", []):
        yield from plans_of(inner)
