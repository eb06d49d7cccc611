"""Facts of real rows, and what they are explained as."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import IsolationLevel

from core.errors import DeliveryError
from core.models import StageRef
from core.operating.dead_letters import DeadLetters
from core.operating.explain import explain
from infrastructure import insight as insight_module
from infrastructure.dead_letters import DeadLetterRepository
from infrastructure.insight import InsightQueries
from infrastructure.migrations import Migrator
from infrastructure.queries import JobNotFound

from .machine_suite import Rig
from .test_dead_letters import kill, planned


@pytest.fixture
def codes(engine):
    insight = InsightQueries(engine.pool)

    def ask(job_id):
        return [finding.code for finding in explain(insight.get_job_facts(job_id))]

    return ask


@pytest.fixture
def insight(engine):
    return InsightQueries(engine.pool)


def test_job_is_explained_from_its_submission_to_its_end(rig, codes):
    job_id = rig.submit(n=3, bad=[1], label="same")
    assert codes(job_id) == ["step_announced"]
    planned_id = planned(rig, n=3, bad=[1], label="same")
    assert planned_id == job_id
    assert codes(job_id) == ["waiting_in_queue"]
    rig.queues.run(rig.machine)
    assert codes(job_id) == ["completed_with_errors", "tasks_failed"]


def test_message_that_was_not_confirmed_is_told(engine, codes):
    class Refusing:
        def send_messages(self, queue, messages):
            raise DeliveryError(queue, "down")

    job_id = Rig(engine, sender=Refusing()).submit(n=3)
    assert codes(job_id) == ["step_not_announced"]


def test_queues_that_tasks_wait_for_are_told_whether_or_not_they_were_announced(engine, insight):
    class Refusing:
        def send_messages(self, queue, messages):
            raise DeliveryError(queue, "no such queue")

    rig = Rig(engine)
    job_id = planned(rig, n=3)
    assert insight.get_job_facts(job_id).waiting_queues == ("tasks",)
    engine.claim(job_id, 2, "s2-n0", "s2-n1", "s2-n2")
    assert insight.get_job_facts(job_id).waiting_queues == ()
    engine.execute("update app.tasks set status = 'pending', lease_id = null, lease_owner = null,"
                   " lease_expires_at = null where task_id = 's2-n0'")  # fmt: skip
    assert insight.get_job_facts(job_id).waiting_queues == ("tasks",)
    waits_for_step = Rig(engine, sender=Refusing()).submit(n=7)
    assert insight.get_job_facts(waits_for_step).waiting_queues == ()


def test_running_tasks_and_dead_processes_are_told_apart(rig, engine, insight, codes):
    job_id = planned(rig, n=5)
    engine.claim(job_id, 2, "s2-n0", "s2-n1")
    engine.claim(job_id, 2, "s2-n2")
    facts = insight.get_job_facts(job_id)
    (lease,) = facts.leases
    assert (lease.owner, lease.count, lease.expired, lease.examples) == ("test", 3, 0, ("n0", "n1", "n2"))
    (queue,) = facts.queues
    assert (queue.queue, queue.count, queue.busy, queue.owners) == ("tasks", 2, 3, ("test",))
    assert facts.open_count == 5

    engine.execute("update app.tasks set lease_expires_at = now() - interval '1 s' where task_id = 's2-n2'")
    assert codes(job_id) == ["lease_expired", "waiting_in_queue", "tasks_running"]
    engine.execute("update app.tasks set lease_expires_at = now() - interval '1 h' where lease_id is not null")
    assert codes(job_id)[:2] == ["janitor_late", "lease_expired"]


def test_dead_process_is_called_silent_before_its_lease_runs_out(rig, engine, insight):
    """A process that was killed 36 s ago was said to have a fresh heartbeat."""
    job_id = planned(rig, n=2)
    engine.claim(job_id, 2, "s2-n0", "s2-n1")
    (alive,) = explain(insight.get_job_facts(job_id))
    assert (alive.code, alive.severity) == ("tasks_running", "info")
    engine.execute("update app.tasks set lease_expires_at = lease_expires_at - interval '36 s'")
    (silent,) = explain(insight.get_job_facts(job_id))
    assert (silent.code, silent.severity) == ("process_silent", "warning")
    assert "silent for 36 s" in silent.message
    # What is timed out is not renewed, however well its process is.
    engine.execute("update app.tasks set timed_out_at = now()")
    assert [finding.code for finding in explain(insight.get_job_facts(job_id))] == ["tasks_running"]


def test_interrupted_tasks_are_told_with_their_budget(rig, engine, insight):
    job_id = planned(rig, n=5)
    stage = StageRef(job_id, 1, 2)
    engine.claim(job_id, 2, "s2-n1", "s2-n3")
    engine.execute("update app.tasks set lease_expires_at = app.clock() where lease_id is not null")
    engine.stages.take_back_tasks(stage)
    lease_id = engine.claim(job_id, 2, "s2-n2", "s2-n3")
    engine.tasks.release_tasks(stage, lease_id=lease_id, task_ids=["s2-n2", "s2-n3"], started=True)

    facts = insight.get_job_facts(job_id)

    found = [finding for finding in explain(facts) if "interrupted" in finding.code]
    assert facts.interrupted_count == 3
    assert [(finding.about["task_id"], finding.severity.value) for finding in found] == [
        ("s2-n3", "warning"),
        ("s2-n1", "warning"),
        ("s2-n2", "info"),
    ]
    assert "n3 was interrupted 2 of 5 times; its process died, or lost the database, 1 of these" in found[0].message
    assert "n1 was interrupted 1 of 5 times; its process died each time" in found[1].message
    assert "n2 was interrupted 1 of 5 times, each by a process that was asked to end" in found[2].message


def test_retries_are_told_with_their_last_error(rig, engine, insight):
    def fail(context):
        raise OSError("disk full")

    job_id = planned(rig, n=2)
    rig.behave.before["s2-n1"] = fail
    rig.queues.deliver(rig.machine)
    engine.execute("update app.tasks set due_at = now() + interval '1 h' where status = 'pending_retry'")

    facts = insight.get_job_facts(job_id)

    (example,) = facts.retries.examples
    assert (facts.retries.count, facts.retries.unannounced) == (1, 0)
    assert (example.name, example.attempt, example.error["message"]) == ("n1", 1, "disk full")
    (finding,) = explain(facts)
    assert finding.code == "waiting_for_retry"
    assert "n1 after attempt 1: OSError: disk full" in finding.message
    engine.execute("update app.tasks set due_at = now(), announced_at = null where status = 'pending_retry'")
    assert insight.get_job_facts(job_id).retries.unannounced == 1


def test_planner_that_raises_is_told_with_its_error(rig, engine, insight, monkeypatch):
    def refuse(*_):
        raise OSError("catalog down")

    job_id = rig.submit(n=2)
    monkeypatch.setattr(rig.registry.get_job("shapes"), "create_tasks_for_stage", staticmethod(refuse))
    rig.queues.deliver(rig.machine)

    (finding,) = explain(insight.get_job_facts(job_id))
    assert finding.code == "step_retry"
    assert "planning of stage 1 (list) failed once (last: OSError: catalog down)" in finding.message


def test_job_that_is_being_cancelled_tells_whom_it_waits_for(rig, engine, insight):
    job_id = planned(rig, n=3)
    engine.claim(job_id, 2, "s2-n0")
    rig.machine.cancel_job(job_id, "wrong folder")

    found = explain(insight.get_job_facts(job_id))

    assert [finding.code for finding in found] == ["cancelling", "tasks_running"]
    assert "(wrong folder); waits for 1 task to stop: n0" in found[0].message


def test_dead_messages_are_told_until_they_are_dealt_with(rig, engine, codes, insight):
    dead = DeadLetters(DeadLetterRepository(engine.pool), rig.state, rig.queues, ["tasks"])
    job_id = planned(rig, n=3)
    for letter in kill(rig):
        dead.record(letter)
    assert codes(job_id) == ["dead_lettered", "tasks_held"]
    facts = insight.get_job_facts(job_id)
    assert facts.unannounced.held == 3
    assert facts.unannounced.held_until > facts.now
    rig.engine.execute("update app.tasks set due_at = null where status = 'pending'")
    assert codes(job_id) == ["dead_lettered", "tasks_not_announced"]


def test_paused_job_tells_who_holds_it_and_what_came_meanwhile(rig, insight):
    job_id = planned(rig, n=3)
    rig.machine.pause_job(job_id, reason="disk is full", actor="ann")
    rig.queues.run(rig.machine)

    (finding,) = explain(insight.get_job_facts(job_id))

    assert finding.code == "paused"
    assert "paused by ann" in finding.message
    assert "(disk is full)" in finding.message
    assert "messages came for 3 tasks" in finding.message
    assert insight.get_job_facts(rig.submit(n=1)).paused_at is None


def test_unknown_job_is_an_error(insight, engine):
    with pytest.raises(JobNotFound):
        insight.get_job_facts("0" * 64)
    with engine.pool.connection() as connection:
        assert (connection.isolation_level, connection.read_only) == (IsolationLevel.READ_COMMITTED, None)


NOTHING = "create function public.nothing() returns trigger language plpgsql as 'begin return null; end'"
TRIGGER = "create trigger keep before update on app.stages for each row execute function public.nothing()"


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ([NOTHING, TRIGGER], ("trigger keep before each row of app.stages (function public.nothing)",)),
        (["create rule keep as on update to app.tasks do instead nothing"], ("rule keep on app.tasks",)),
        (["create rule keep as on insert to app.jobs do also select 1"], ("rule keep on app.jobs",)),
        # Nothing is left out by those.
        ([NOTHING, TRIGGER, "alter table app.stages disable trigger keep"], ()),
        ([NOTHING, TRIGGER, "alter table app.stages enable replica trigger keep"], ()),
        ([NOTHING, TRIGGER.replace("before", "after")], ()),
        ([NOTHING, TRIGGER.replace("for each row ", "")], ()),
        ([], ()),
    ],
)
def test_triggers_and_rules_of_others_are_named_with_a_job_that_does_not_move(rig, engine, insight, statements, found):
    """Such a job stayed in processing, swept again and again, and nothing named what kept its rows as they were."""
    job_id = rig.submit(n=1)
    with engine.pool.connection() as connection:
        for statement in statements:
            connection.execute(statement)
    facts = insight.get_job_facts(job_id)
    assert tuple(each.text for each in facts.foreign.triggers) == found
    assert Migrator(engine.pool).status().foreign == facts.foreign
    assert [finding.code for finding in explain(facts)].count("foreign_trigger") == len(found)


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("alter table app.tasks disable trigger free_places", ["free_places"]),
        ("alter table app.jobs enable replica trigger transition_guard", ["transition_guard"]),
        ("alter table app.tasks disable trigger all", ["free_places", "transition_guard", None]),
    ],
)
def test_own_triggers_that_were_disabled_are_named(rig, engine, insight, statement, names):
    """Places of limits were never free again, and nothing named the trigger."""
    job_id = rig.submit(n=1)
    engine.execute(statement)
    facts = insight.get_job_facts(job_id)
    assert [each.name for each in facts.foreign.disabled] == names
    assert [finding.code for finding in explain(facts)].count("own_trigger_disabled") == len(names)


def test_session_that_has_rows_locked_is_named(rig, engine, insight, monkeypatch):
    """Its job was explained with a dead process, and the person looked for one."""
    job_id = rig.submit(n=1)
    with psycopg.connect(engine.pool.conninfo, application_name="a person's") as person:
        person.execute("select from app.jobs where job_id = %s", [job_id])
        monkeypatch.setattr(insight_module, "HELD_SECONDS", 0.0)
        assert insight.get_job_facts(job_id).holders == (), "reading locks nothing"
        person.execute("select from app.jobs where job_id = %s for update", [job_id])
        (holder,) = insight.get_job_facts(job_id).holders
        assert (holder.pid, holder.application) == (person.info.backend_pid, "a person's")
        assert (holder.state, holder.tables, holder.waiting) == ("idle in transaction", ("jobs",), 0)
        monkeypatch.undo()
        assert insight.get_job_facts(job_id).holders == (), "too short to matter"


def test_sessions_that_wait_for_the_lock_are_counted(rig, engine, insight, monkeypatch):
    job_id = rig.submit(n=1)
    lock = "select from app.jobs where job_id = %s for update"
    with psycopg.connect(engine.pool.conninfo) as person, ThreadPoolExecutor() as others:
        person.execute(lock, [job_id])
        waits = others.submit(engine.execute, lock, job_id)
        engine.wait_for_lock()
        monkeypatch.setattr(insight_module, "HELD_SECONDS", 0.0)
        holders = {holder.pid: holder.waiting for holder in insight.get_job_facts(job_id).holders}
        assert holders.pop(person.info.backend_pid) == 1
        assert list(holders.values()) == [0], "who waits holds up nobody"
        person.rollback()
        waits.result()
