"""What a sweep finds on real PostgreSQL, and what it leaves alone; each kind of queue where a queue is looked into."""

import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from core.basics.outage import OutageLog
from core.errors import DeliveryError, StoreUnavailable
from core.models import JobRef, StageRef, TaskQueueMessage
from core.operating import janitor as janitor_module
from core.operating.janitor import Janitor, JanitorTimings
from infrastructure.janitor_store import JanitorRepository

from .machine_suite import Rig


class KilledMidway(BaseException):
    """The process ended here."""


class FaultySender:
    """Sends over the rig's queues, but for the queue that `fault` is raised for."""

    def __init__(self, queues, queue, fault):
        self.queues, self.queue, self.fault = queues, queue, fault
        self.before = None

    def send_messages(self, queue, messages):
        self._maybe_fail(queue)
        self.queues.send_messages(queue, messages)

    def send_message_with_delay(self, queue, message, delay_seconds):
        self._maybe_fail(queue)
        self.queues.send_message_with_delay(queue, message, delay_seconds)

    def _maybe_fail(self, queue):
        if queue == self.queue:
            raise self.fault


def repairs_of(rig, job_id):
    rows = rig.engine.query("select * from app.job_events where job_id = %s order by event_id", job_id)
    return [(row["event"], row["stage"], row["detail"]) for row in rows if row["event"].startswith("janitor")]


def pass_time(rig, seconds=120):
    """As if everything in database and queues had happened so much earlier. Leases and due times come nearer too."""
    past = f"- interval '{seconds} seconds'"
    for table, columns in {
        "jobs": ["created_at", "updated_at", "announced_at", "due_at", "stall_noted_at"],
        "stages": ["planned_at", "window_at"],
        "tasks": ["created_at", "announced_at", "due_at", "lease_expires_at", "started_at", "finished_at"],
    }.items():
        changes = ", ".join(f"{column} = {column} {past}" for column in columns)
        rig.engine.execute(f"update app.{table} set {changes}")  # noqa: S608 - names of this test
    rig.engine.aged.append((datetime.now(UTC), seconds))


def run_to_tasks(rig, **parameters):
    """A job whose second stage is planned and announced, and nothing of it delivered."""
    job_id = rig.submit(**parameters)
    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    return job_id


def assert_completed(rig, job_id, *, calls=1):
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {calls}


@pytest.fixture
def left_behind(engine):
    """A process died after it had committed a stage of eight tasks, before the first message was sent."""
    rig = Rig(engine)
    dying = Rig(engine, rig.queues, sender=FaultySender(rig.queues, "tasks", KilledMidway()))
    job_id = dying.submit(n=8)
    with pytest.raises(KilledMidway):
        rig.queues.run(dying.machine)
    rig.queues.clear()
    assert [task["status"] for task in rig.tasks(job_id, 1)] == ["pending"]
    return rig, job_id


def test_rows_of_a_planner_that_is_at_work_are_left_to_it(left_behind):
    """A fresh job whose tasks were all pending was failed at once (lesson D24)."""
    rig, _ = left_behind
    assert rig.janitor.sweep().repairs == 0


def test_rows_that_a_dead_planner_left_are_announced_once_by_two_janitors(left_behind):
    """The second sweeps while the first stands between its find and its send (lessons D6, D26)."""
    rig, job_id = left_behind
    pass_time(rig)
    found, go_on = threading.Event(), threading.Event()

    class SlowStore(JanitorRepository):
        def find_unannounced_tasks(self, *given):
            rows = super().find_unannounced_tasks(*given)
            found.set()
            assert go_on.wait(30)
            return rows

    slow = Janitor(SlowStore(rig.engine.pool), rig.state, rig.orchestration)
    reports = []
    thread = threading.Thread(target=lambda: reports.append(slow.sweep()))
    thread.start()
    assert found.wait(30)
    second = rig.janitor.sweep()
    go_on.set()
    thread.join(30)

    assert second.announced_tasks == 0
    [(event, stage, detail)] = repairs_of(rig, job_id)
    assert (event, stage, detail["reason"]) == ("janitor_announced_tasks", 1, "not_confirmed")
    assert detail["count"] == reports[0].announced_tasks > 0
    assert reports[0].announced_tasks == 1
    assert_completed(rig, job_id)


def test_rows_that_a_dead_janitor_held_are_announced_after_a_while(left_behind):
    rig, job_id = left_behind
    pass_time(rig)
    dying = Rig(rig.engine, rig.queues, sender=FaultySender(rig.queues, "tasks", KilledMidway()))
    with pytest.raises(KilledMidway):
        dying.janitor.sweep()

    assert rig.janitor.sweep().announced_tasks == 0
    pass_time(rig)
    assert rig.janitor.sweep().announced_tasks == 1
    assert_completed(rig, job_id)


def test_rows_in_other_hands_are_passed_over_without_waiting(left_behind):
    rig, job_id = left_behind
    pass_time(rig)
    with rig.engine.pool.connection() as connection, connection.transaction():
        connection.execute("select 1 from app.tasks for update")
        assert rig.janitor.sweep().repairs == 0
    assert rig.janitor.sweep().announced_tasks == 1
    assert_completed(rig, job_id)


def test_job_whose_process_died_after_its_submission_is_announced(engine):
    rig = Rig(engine)
    dying = Rig(engine, rig.queues, sender=FaultySender(rig.queues, "jobs", KilledMidway()))
    with pytest.raises(KilledMidway):
        dying.submit(n=2)
    assert rig.janitor.sweep().announced_jobs == 0
    pass_time(rig)
    assert rig.janitor.sweep().announced_jobs == 1
    assert rig.janitor.sweep().announced_jobs == 0

    rig.queues.run(rig.machine)
    (job,) = engine.query("select status from app.jobs")
    assert job == {"status": "completed"}


@pytest.mark.breaks_invariants
def test_one_sweep_announces_more_than_one_find_returns(left_behind, monkeypatch):
    """After a long outage a thousand rows a sweep would be a day's work."""
    rig, _ = left_behind
    monkeypatch.setattr(janitor_module, "ROWS_PER_FIND", 3)
    rig.engine.execute("delete from app.tasks")
    (stage,) = rig.engine.query("select job_id from app.stages")
    rig.engine.execute(
        "insert into app.tasks (job_id, run, task_id, stage, task_index, task_type, queue, created_at) "
        "select %s, 1, 's1-' || i, 1, i, 'list', 'tasks', now() from generate_series(1, 11) i",
        stage["job_id"],
    )
    pass_time(rig)

    assert rig.janitor.sweep().announced_tasks == 11


def test_broker_that_is_away_ends_the_step_and_keeps_the_rows(left_behind, monkeypatch):
    rig, job_id = left_behind
    monkeypatch.setattr(janitor_module, "ROWS_PER_FIND", 1)
    pass_time(rig)
    cut_off = Rig(rig.engine, rig.queues, sender=FaultySender(rig.queues, "tasks", DeliveryError("tasks", "away")))
    report = cut_off.janitor.sweep()
    assert (report.announced_tasks, report.errors) == (0, {})

    pass_time(rig)
    assert rig.janitor.sweep().announced_tasks == 1
    assert_completed(rig, job_id)


def test_rows_that_no_queue_took_are_announced_by_the_next_sweep(left_behind):
    """They were held for a minute, as if somebody were still sending: a short outage of the broker took that long."""
    rig, job_id = left_behind
    pass_time(rig)
    cut_off = Rig(rig.engine, rig.queues, sender=FaultySender(rig.queues, "tasks", DeliveryError("tasks", "away")))
    assert cut_off.janitor.sweep().announced_tasks == 0
    assert rig.janitor.sweep().announced_tasks == 1
    assert_completed(rig, job_id)


def test_job_that_no_queue_took_is_announced_by_the_next_sweep(rig):
    away = FaultySender(rig.queues, "jobs", DeliveryError("jobs", "away"))
    cut_off = Rig(rig.engine, rig.queues, sender=away)
    job_id = cut_off.submit()
    pass_time(rig)
    assert cut_off.janitor.sweep().announced_jobs == 0
    assert rig.janitor.sweep().announced_jobs == 1
    assert_completed(rig, job_id)


def test_task_of_a_killed_worker_is_taken_back_and_announced_in_one_sweep(rig):
    """However new its row is: its planner has nothing more to do with it."""
    job_id = run_to_tasks(rig, n=5)
    rig.engine.claim(job_id, 2, "s2-n2")  # and its process is gone
    rig.queues.run(rig.machine)
    assert [task["status"] for task in rig.tasks(job_id, 2)].count("completed") == 4
    assert rig.janitor.sweep().repairs == 0
    expire_leases(rig)

    report = rig.janitor.sweep()
    assert (report.taken_back, report.announced_tasks, report.given_up) == (1, 1, 0)
    assert rig.janitor.sweep().repairs == 0
    assert_completed(rig, job_id)
    task = rig.tasks(job_id, 2)[2]
    assert (task["attempt"], task["interruptions"]) == (2, 1)


def expire_leases(rig):
    rig.engine.execute("update app.tasks set lease_expires_at = now() where status = 'processing'")


def test_task_interrupted_too_often_fails_with_that_reason(rig):
    job_id = run_to_tasks(rig, n=1)
    (task,) = rig.tasks(job_id, 2)
    for interruption in range(1, 7):
        rig.engine.claim(job_id, 2, task["task_id"])
        expire_leases(rig)
        report = rig.janitor.sweep()
        assert (report.taken_back, report.given_up) == ((1, 0) if interruption < 6 else (0, 1))

    assert report.announced_jobs == 1
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed_with_errors"
    assert rig.tasks(job_id, 2)[0]["error"]["type"] == "InterruptedTooOften"


def lose_process(rig, job_id, times, *task_ids):
    for _ in range(times):
        for task_id in task_ids:
            rig.engine.claim(job_id, 2, task_id)
        expire_leases(rig)
        assert rig.janitor.sweep().taken_back == len(task_ids)


def test_suspects_run_after_all_others_and_one_by_one(rig):
    """Half of what they survive is spent: what runs beside them must not pay for the other half."""
    job_id = run_to_tasks(rig, n=6)
    tasks = rig.tasks(job_id, 2)
    suspects = {tasks[0]["task_id"], tasks[3]["task_id"]}
    lose_process(rig, job_id, 3, *suspects)
    lose_process(rig, job_id, 2, tasks[1]["task_id"])
    # Told to end, four times: whoever tells processes to end is no task.
    rig.engine.execute("update app.tasks set interruptions = 4, attempt = 4 where task_id = %s", tasks[2]["task_id"])
    message = TaskQueueMessage(
        job_id=job_id, job_type="shapes", run=1, stage=2, task_ids=tuple(task["task_id"] for task in tasks)
    )
    rig.queues.clear()
    rig.machine.process_task_message(message)
    rig.queues.run(rig.machine)

    assert rig.job(job_id).status == "completed"
    assert set(rig.behave.calls.values()) == {1}
    ended = {task["task_id"]: task for task in rig.tasks(job_id, 2)}
    assert {ended[task_id]["attempt"] for task_id in suspects} == {4}
    last, first = sorted(suspects, key=lambda task_id: ended[task_id]["started_at"], reverse=True)
    assert ended[last]["started_at"] >= ended[first]["finished_at"]
    for task_id in ended.keys() - suspects:
        assert ended[first]["started_at"] >= ended[task_id]["finished_at"]
    noted = rig.engine.query("select task_id from app.job_events where event = 'task_runs_alone'")
    assert {row["task_id"] for row in noted} == suspects


def test_suspect_whose_process_dies_before_it_is_alone_is_found(rig):
    job_id = run_to_tasks(rig, n=1)
    (task,) = rig.tasks(job_id, 2)
    lose_process(rig, job_id, 3, task["task_id"])
    job = rig.machine._jobs.find(JobRef(job_id, 1))
    suspects: list[str] = []
    rig.machine._runner.run_message(job, job.definition.stage(2), [task["task_id"]], suspects=suspects)
    rig.queues.clear()
    assert suspects == [task["task_id"]]
    assert rig.tasks(job_id, 2)[0]["interruptions"] == 3
    assert rig.janitor.sweep().announced_tasks == 1
    assert_completed(rig, job_id)


def test_only_who_claims_a_suspect_notes_that_it_is_alone(rig):
    """A second delivery of its message was noted, too: more runs alone than there were."""
    job_id = run_to_tasks(rig, n=1)
    (task,) = rig.tasks(job_id, 2)
    job = rig.machine._jobs.find(JobRef(job_id, 1))
    rig.machine._state.claim_tasks(StageRef(job_id, 1, 2), [task["task_id"]], owner="another process")
    rig.machine._runner.run_message(job, job.definition.stage(2), [task["task_id"]], is_alone=True)
    assert rig.engine.query("select 1 from app.job_events where event = 'task_runs_alone'") == []


@contextmanager
def guards_off(engine):
    """For states that only a bug or a hand could make."""
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute("set local session_replication_role = replica")
        yield connection


@pytest.mark.parametrize("is_stage_closed", [False, True])
def test_job_that_stands_still_is_moved_on(rig, is_stage_closed):
    """Its tasks had ended and the step that follows was lost (lessons D7, D24): it went on being processed for ever."""
    job_id = run_to_tasks(rig, n=3)
    rig.queues.clear()
    with guards_off(rig.engine) as connection:
        connection.execute(
            "update app.tasks set status = 'completed', finished_at = now(), attempt = 1, "
            "result = jsonb_build_object('square', task_index * task_index) where stage = 2"
        )
        if is_stage_closed:
            connection.execute("update app.stages set status = 'completed', finished_at = now() where stage = 2")
    assert rig.janitor.sweep().repairs == 0
    pass_time(rig)

    report = rig.janitor.sweep()
    assert (report.resumed_jobs, report.announced_jobs) == (1, 1)
    assert rig.janitor.sweep().repairs == 0
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.job(job_id).result == {"total": 5, "failed": 0}
    events = {row["event"] for row in rig.engine.query("select event from app.job_events")}
    assert ("janitor_advanced_job" if is_stage_closed else "janitor_closed_stage") in events


def test_retry_whose_message_was_never_confirmed_is_sent_when_it_is_due(rig):
    """A retry was three steps; a crash between them lost the task (lesson D19)."""

    def fails(context):
        raise OSError("disk away")

    class RefusesScheduled:
        send_messages = rig.queues.send_messages

        def send_message_with_delay(self, queue, message, delay_seconds):
            raise DeliveryError(queue, "away")

    cut_off = Rig(rig.engine, rig.queues, sender=RefusesScheduled())
    cut_off.behave.before["s2-n1"] = fails
    job_id = cut_off.submit(n=3)
    rig.queues.run(cut_off.machine)
    waiting = rig.tasks(job_id, 2)[1]
    assert (waiting["status"], waiting["announced_at"]) == ("pending_retry", None)

    rig.engine.execute("update app.tasks set due_at = now() + interval '1 hour' where status = 'pending_retry'")
    assert rig.janitor.sweep().announced_tasks == 0
    pass_time(rig, 3601)
    assert rig.janitor.sweep().announced_tasks == 1
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.tasks(job_id, 2)[1]["attempt"] == 2


STEPS = {
    "take_back_expired_leases": "find_expired_stages",
    "resume_stalled_jobs": "find_stalled_jobs",
    "announce_tasks": "find_unannounced_tasks",
    "announce_jobs": "find_unannounced_jobs",
    "find_lost_messages_tasks": "find_lost_tasks",
    "find_lost_messages_jobs": "find_lost_jobs",
}


@pytest.mark.parametrize("broken", STEPS)
@pytest.mark.parametrize("error", [StoreUnavailable("no connection"), ValueError("no such column")])
def test_step_that_fails_is_told_and_the_others_go_on(rig, broken, error, caplog, monkeypatch):
    """Half of the janitor never worked, and nobody was told (lesson D25)."""
    called = []
    monkeypatch.setattr("core.operating.janitor.outage", OutageLog())

    class Store(JanitorRepository):
        pass

    def watched(step, find):
        def call(self, *given):
            called.append(step)
            if step == broken:
                raise error
            return getattr(JanitorRepository, find)(self, *given)

        return call

    for step, find in STEPS.items():
        setattr(Store, find, watched(step, find))
    store = Store(rig.engine.pool)
    report = Janitor(store, rig.state, rig.orchestration, queues=["tasks"], inspector=rig.queues).sweep()

    assert called == list(STEPS)
    assert report.errors == {broken: f"{type(error).__name__}: {error}"}
    told = [record.msg for record in caplog.records if record.msg in {"janitor_step_failed", "database_away"}]
    assert told == ["database_away" if report.outages else "janitor_step_failed"]


def test_queue_that_cannot_be_looked_into_hides_none_of_the_others(rig):
    class Inspector:
        def oldest_enqueued_at(self, queue):
            if queue == "raster":
                raise DeliveryError(queue, "away")

    rig.submit(n=1)
    rig.queues.clear()
    pass_time(rig)
    store = JanitorRepository(rig.engine.pool)
    sweeper = Janitor(store, rig.state, rig.orchestration, queues=["raster", "tasks"], inspector=Inspector())
    report = sweeper.sweep()
    assert report.errors == {"find_lost_messages_raster": "DeliveryError: queue 'raster': away"}
    assert report.found_lost_jobs == 1


def test_messages_that_the_broker_lost_are_sent_again(platform_rig):
    """Confirmed messages are not in the queue any more: the broker came back without its store (lesson D17)."""
    rig = platform_rig
    job_id = rig.submit(n=20)
    assert rig.queues.clear() == 1
    assert rig.janitor.sweep().repairs == 0
    pass_time(rig)
    report = rig.janitor.sweep()
    assert (report.found_lost_jobs, report.repairs) == (1, 1)

    while not rig.tasks(job_id, 2):
        assert rig.queues.deliver(rig.machine)
    assert rig.queues.clear() == 3
    assert rig.janitor.sweep().repairs == 0
    pass_time(rig)
    report = rig.janitor.sweep()
    assert (report.found_lost_tasks, report.repairs) == (20, 20)
    assert repairs_of(rig, job_id) == [
        ("janitor_announced_job", 1, {"reason": "lost"}),
        ("janitor_announced_tasks", 2, {"count": 20, "reason": "lost"}),
    ]
    assert rig.janitor.sweep().repairs == 0
    assert_completed(rig, job_id)


def test_healthy_backlog_is_never_announced_twice(platform_rig):
    """A backlog of minutes was sent again at each sweep, and failed at the fourth (lesson D23)."""
    rig = platform_rig
    job_id = run_to_tasks(rig, n=20)
    for _ in range(5):
        pass_time(rig, 3600)
        assert rig.janitor.sweep().repairs == 0
    assert {task["status"] for task in rig.tasks(job_id, 2)} == {"queued"}
    assert_completed(rig, job_id)


def test_message_in_a_workers_hands_is_not_missed(platform_rig):
    """Its queue has nothing else, and its tasks are not claimed yet."""
    rig = platform_rig
    job_id = run_to_tasks(rig, n=3)
    reached, go_on = threading.Event(), threading.Event()
    claim = rig.state.claim_tasks

    def slow_claim(*where, **given):
        reached.set()
        assert go_on.wait(30)
        return claim(*where, **given)

    rig.state.claim_tasks = slow_claim
    worker = threading.Thread(target=rig.queues.deliver, args=(rig.machine,))
    worker.start()
    assert reached.wait(30)
    pass_time(rig)
    report = rig.janitor.sweep()
    go_on.set()
    worker.join(30)
    rig.state.claim_tasks = claim

    assert report.repairs == 0
    assert_completed(rig, job_id)


def test_scheduled_retry_is_not_missed(platform_rig):
    """It waits in the queue, and its row is due by the database's clock, which is some seconds ahead."""

    def fails_once(context):
        if context.attempt == 1:
            raise OSError("disk away")

    rig = platform_rig
    rig.behave.before["s2-n0"] = fails_once
    send, delays = rig.orchestration.announce_retry, []
    rig.orchestration.announce_retry = lambda message, queue, delay: delays.append(delay) or send(message, queue, 0.5)
    job_id = run_to_tasks(rig, n=1)
    assert rig.queues.deliver(rig.machine)
    assert (len(delays), rig.tasks(job_id, 2)[0]["status"]) == (1, "pending_retry")
    pass_time(rig, JanitorTimings().lost / 2)

    assert rig.janitor.sweep().repairs == 0
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert rig.behave.calls["s2-n0"] == 2
