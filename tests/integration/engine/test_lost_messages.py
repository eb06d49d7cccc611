"""Confirmed messages that a broker lost while its queue held others, and those that it did not lose."""

from datetime import UTC, datetime, timedelta

import pytest

from core.operating.janitor import Janitor, JanitorTimings
from core.ports import NOT_SEEN_THROUGH
from infrastructure.janitor_store import JanitorRepository

from .test_janitor import pass_time, run_to_tasks

TASKS_IN_A_MESSAGE = 7
GRACE = JanitorTimings().lost


def lose_next(rig):
    """The broker forgets the next message."""
    lost = []
    assert rig.queues.deliver_to(lambda queue, body: lost.append((queue, body)))
    assert len(lost) == 1


def deliver_all(rig):
    while rig.queues.deliver(rig.machine):
        pass


def run_but_for_a_lost_message(rig):
    """A job whose tasks are done, but for those of one message that is gone."""
    job_id = run_to_tasks(rig, n=20)
    lose_next(rig)
    rig.queues.run(rig.machine)
    assert [task["status"] for task in rig.tasks(job_id, 2)] == ["queued"] * 7 + ["completed"] * 13
    return job_id


def assert_all_completed(rig, *job_ids):
    """Each ran to its end, and no handler ran twice."""
    rig.queues.run(rig.machine)
    assert {rig.job(job_id).status for job_id in job_ids} == {"completed"}
    (tasks,) = rig.engine.query("select count(*)::integer as count from app.tasks")
    assert rig.behave.calls.total() == tasks["count"]


def test_one_lost_message_among_a_steady_stream_is_sent_again(platform_rig):
    """Newer messages keep its queue from ever being empty; it waited until it was (lesson D17)."""
    rig = platform_rig
    job_id = run_but_for_a_lost_message(rig)
    pass_time(rig, GRACE / 2)
    newer = run_to_tasks(rig, n=20)
    assert rig.janitor.sweep().repairs == 0
    pass_time(rig)
    assert rig.janitor.sweep().repairs == 0
    deliver_all(rig)
    newest = run_to_tasks(rig, n=20)

    report = rig.janitor.sweep()
    assert (report.found_lost_tasks, report.repairs) == (TASKS_IN_A_MESSAGE, TASKS_IN_A_MESSAGE)
    assert rig.janitor.sweep().repairs == 0
    assert_all_completed(rig, job_id, newer, newest)


def test_lost_message_of_a_job_among_others_is_sent_again(platform_rig):
    rig = platform_rig
    job_id = rig.submit(n=2)
    lose_next(rig)
    pass_time(rig)
    newer = rig.submit(n=3)

    report = rig.janitor.sweep()
    assert (report.found_lost_jobs, report.repairs) == (1, 1)
    assert rig.janitor.sweep().repairs == 0
    assert_all_completed(rig, job_id, newer)


def test_messages_of_its_age_hide_a_lost_one_until_they_are_done(platform_rig):
    """It may be among them; what is in a queue says when it came, not whose it is."""
    rig = platform_rig
    job_id = run_to_tasks(rig, n=20)
    lose_next(rig)
    for _ in range(3):
        pass_time(rig, 3600)
        rig.submit(n=1)
        assert rig.janitor.sweep().repairs == 0
    deliver_all(rig)
    pass_time(rig)
    assert rig.janitor.sweep().found_lost_tasks == TASKS_IN_A_MESSAGE
    assert_all_completed(rig, job_id)


def test_message_sent_again_is_not_missed_while_it_waits(platform_rig):
    """It came after the row was held; the row says so, however long it waits behind others."""
    rig = platform_rig
    job_id = run_but_for_a_lost_message(rig)
    pass_time(rig)
    assert rig.janitor.sweep().found_lost_tasks == TASKS_IN_A_MESSAGE
    for _ in range(5):
        pass_time(rig, 3600)
        assert rig.janitor.sweep().repairs == 0
    assert_all_completed(rig, job_id)


def test_repair_that_takes_long_is_not_repeated(rig):
    """The send took longer than the grace after the rows were held."""
    job_id = run_but_for_a_lost_message(rig)
    pass_time(rig)
    send = rig.orchestration.announce_tasks

    def slow(*given, **named):
        pass_time(rig, 60)
        return send(*given, **named)

    rig.orchestration.announce_tasks = slow
    assert rig.janitor.sweep().found_lost_tasks == TASKS_IN_A_MESSAGE
    pass_time(rig)
    assert rig.janitor.sweep().repairs == 0
    rig.orchestration.announce_tasks = send
    assert_all_completed(rig, job_id)


def test_large_healthy_backlog_is_worked_at_slowly_and_nothing_of_it_is_announced_twice(platform_rig):
    """Thousands of rows wait for hours, first come first served, and new work comes behind (lesson D23)."""
    rig = platform_rig
    job_id = run_to_tasks(rig, n=2_000)
    planned = rig.behave.calls.total()
    for hour in range(6):
        for _ in range(10):
            assert rig.queues.deliver(rig.machine)
        assert rig.janitor.sweep().repairs == 0
        pass_time(rig, 3600)
        rig.submit(n=hour)
        assert rig.janitor.sweep().repairs == 0
    assert 0 < rig.behave.calls.total() - planned < 500
    waiting = [task for task in rig.tasks(job_id, 2) if task["status"] in {"pending", "queued"}]
    assert len(waiting) > 1500


def fails_once(context):
    if context.attempt == 1:
        raise OSError("disk away")


def run_to_scheduled_retry(rig, delay_seconds):
    """A row that is due in a moment by the database, and its message after the delay by the broker."""
    rig.behave.before["s2-n0"] = fails_once
    send, delays = rig.orchestration.announce_retry, []
    rig.orchestration.announce_retry = lambda message, queue, delay: (
        delays.append(delay) or send(message, queue, delay_seconds)
    )
    job_id = run_to_tasks(rig, n=1)
    assert rig.queues.deliver(rig.machine)
    rig.orchestration.announce_retry = send
    assert (len(delays), rig.tasks(job_id, 2)[0]["status"]) == (1, "pending_retry")
    return job_id


@pytest.mark.parametrize(("overdue_seconds", "found"), [(GRACE / 4, 0), (3 * GRACE, 1)])
def test_retry_is_missed_once_it_is_due_for_longer_than_clocks_differ(rig, overdue_seconds, found):
    """It was announced an hour ago, to come now: until then its message was scheduled, and had no time."""
    run_to_scheduled_retry(rig, 3600)
    rig.engine.execute(
        "update app.tasks set announced_at = now() - interval '1 hour', due_at = now() - %s * interval '1 second' "
        "where status = 'pending_retry'",
        overdue_seconds,
    )
    assert rig.janitor.sweep().found_lost_tasks == found
    assert rig.janitor.sweep().repairs == 0


def test_step_of_a_job_is_missed_once_it_is_due_for_longer_than_clocks_differ(rig):
    job_id = rig.submit(n=1)
    rig.queues.clear()
    text = "update app.jobs set announced_at = now() - interval '1 hour', due_at = now() - %s * interval '1 second'"
    rig.engine.execute(text, 5)
    assert rig.janitor.sweep().repairs == 0
    rig.engine.execute(text, 60)
    assert rig.janitor.sweep().found_lost_jobs == 1
    assert_all_completed(rig, job_id)


def test_scheduled_message_of_another_hides_no_lost_one(platform_rig):
    """It cannot be what a row waits for that is not put off."""
    rig = platform_rig
    job_id = run_but_for_a_lost_message(rig)
    pass_time(rig)
    retried = run_to_scheduled_retry(rig, 3)

    report = rig.janitor.sweep()
    assert (report.found_lost_tasks, report.repairs) == (TASKS_IN_A_MESSAGE, TASKS_IN_A_MESSAGE)
    rig.queues.run(rig.machine)
    assert {rig.job(each).status for each in (job_id, retried)} == {"completed"}


class Answer:
    """A look into any queue that finds this."""

    def __init__(self, oldest):
        self.oldest = oldest

    def oldest_enqueued_at(self, queue):
        return self.oldest


def sweep_seeing(rig, oldest):
    store = JanitorRepository(rig.engine.pool)
    return Janitor(store, rig.state, rig.orchestration, queues=["tasks"], inspector=Answer(oldest)).sweep()


def test_queue_that_could_not_be_seen_through_is_left_alone(rig):
    run_but_for_a_lost_message(rig)
    pass_time(rig)
    assert sweep_seeing(rig, NOT_SEEN_THROUGH).repairs == 0
    assert sweep_seeing(rig, None).found_lost_tasks == TASKS_IN_A_MESSAGE


def test_grace_covers_the_difference_between_the_brokers_clock_and_the_databases(rig):
    """The oldest message came after the confirmation, by the broker's clock; it may still be the one confirmed."""
    job_id = run_but_for_a_lost_message(rig)
    pass_time(rig, 3600)
    announced = rig.tasks(job_id, 2)[0]["announced_at"]
    assert sweep_seeing(rig, announced + timedelta(seconds=0.75 * GRACE)).repairs == 0
    assert sweep_seeing(rig, announced + timedelta(seconds=1.25 * GRACE)).found_lost_tasks == TASKS_IN_A_MESSAGE


def test_broker_whose_clock_is_ahead_makes_nothing_lost(rig):
    run_to_tasks(rig, n=20)
    assert sweep_seeing(rig, datetime.now(UTC) + timedelta(hours=1)).repairs == 0


def test_clock_is_read_before_the_look(rig):
    """What is confirmed after the look was not seen by it, however long the sweep then stands still."""
    now, told = datetime(2030, 1, 1, tzinfo=UTC), []

    class Store(JanitorRepository):
        def read_clock(self):
            told.append("clock")
            return now

        def find_lost_tasks(self, queue, limit, before):
            told.append(before)
            return []

    class Inspector:
        def oldest_enqueued_at(self, queue):
            told.append(queue)

    store = Store(rig.engine.pool)
    report = Janitor(store, rig.state, rig.orchestration, queues=["tasks"], inspector=Inspector()).sweep()
    assert report.errors == {}
    assert told == ["clock", "tasks", now - timedelta(seconds=GRACE), "clock", "jobs"]


@pytest.mark.breaks_invariants
def test_paused_and_parked_rows_are_left_alone(rig):
    run_but_for_a_lost_message(rig)
    pass_time(rig)
    store = JanitorRepository(rig.engine.pool)

    def find_lost():
        return len(store.find_lost_tasks("tasks", 10, store.read_clock()))

    rig.engine.execute("update app.jobs set paused_at = now()")
    assert find_lost() == 0
    rig.engine.execute("update app.jobs set paused_at = null")
    rig.engine.execute("update app.tasks set parked_at = now() where status = 'queued'")
    assert find_lost() == 0
    rig.engine.execute("update app.tasks set parked_at = null")
    assert find_lost() == TASKS_IN_A_MESSAGE
