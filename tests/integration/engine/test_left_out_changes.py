"""What an operator asks for, where a trigger of somebody else's leaves the change out: it is refused."""

import psycopg
import pytest

from core.models.control import RerunMode, RerunRequest
from core.models.submission import SubmitRequest

from .machine_suite import Rig

SCHEDULE = (
    "select app.put_schedule(p_name => 's', p_job_type => 'shapes', p_parameters => '{{}}', p_cron => '0 0 * * *', "
    "p_time_zone => 'UTC', p_catch_up => 'latest', p_overlap => 'skip', p_starts_at => null, p_ends_at => null, "
    "p_description => null, p_next_tick_at => '2100-01-01Z', p_revision => {revision}, "
    "p_seen_tick_at => '2100-01-01Z', p_ticks => '[]', p_actor => null)"
)
PUT, PUT_AGAIN = SCHEDULE.format(revision=0), SCHEDULE.format(revision=1)
PAUSE_SCHEDULE = "select app.pause_schedule('s', null, null)"
RESUME_SCHEDULE = "select app.resume_schedule('s', 2, '2100-01-01Z', '[]', '2100-01-01Z', null, null)"
RUN_SCHEDULE = "select app.add_manual_tick('s', now(), '{}', 'k', null, 60)"
WEBHOOK = (
    "select app.put_webhook('w', 'https://example.org', null, array['job.failed'], array[]::text[], null, 1, false, "
    "null, 'seed', null, null, 1800)"
)
TEST_WEBHOOK = "select app.add_test_delivery('w', null)"
DELIVERED = "update app.webhook_deliveries set status = 'delivered' returning 1"
REDELIVER = "select app.redeliver('w', (select delivery_id from app.webhook_deliveries), null)"
DEAD_LETTER = (
    "select app.record_dead_letter('tasks', 'm', 1, now(), 'task', {job}, 1, 1, array['t'], 'reason', 'text', 10, "
    "null, 'body', 4)"
)
RESOLVE = "select app.resolve_dead_letters(array(select dead_letter_id from app.dead_letters), 'obsolete', null)"
SET_LIMIT = "select app.set_limit('l', 1, null, null, null, null)"
CANCEL, PAUSE = "select app.cancel_job({job}, null, 60, null)", "select app.pause_job({job}, null, null)"
HOLD = "select app.hold_job({job}, true, null, null)"
PRIORITY = """select app.adjust_job({job}, null, '{"priority": "high"}', null, null)"""

# What was done before, what is asked for now, and the table and action that the trigger is on.
ASKED = [
    ((), CANCEL, "jobs", "update"),
    ((), PAUSE, "jobs", "update"),
    ((PAUSE,), "select app.resume_job({job}, null, null)", "jobs", "update"),
    ((), PRIORITY, "jobs", "update"),
    ((), HOLD, "jobs", "update"),
    ((HOLD,), "select app.hold_job({job}, false, null, null)", "jobs", "update"),
    ((), SET_LIMIT, "limits", "insert"),
    ((SET_LIMIT,), SET_LIMIT, "limits", "update"),
    ((SET_LIMIT,), "select app.forget_limit('l', null, null)", "limits", "update"),
    ((), PUT, "schedules", "insert"),
    ((PUT,), PUT_AGAIN, "schedules", "update"),
    ((PUT,), PAUSE_SCHEDULE, "schedules", "update"),
    ((PUT, PAUSE_SCHEDULE), RESUME_SCHEDULE, "schedules", "update"),
    ((PUT,), RUN_SCHEDULE, "schedule_ticks", "insert"),
    ((PUT,), "select app.delete_schedule('s', null)", "schedules", "delete"),
    ((), WEBHOOK, "webhooks", "insert"),
    ((WEBHOOK,), WEBHOOK, "webhooks", "update"),
    ((WEBHOOK,), "select app.rotate_webhook_secret('w', 'other', 60, null)", "webhooks", "update"),
    ((WEBHOOK,), "select app.delete_webhook('w', null)", "webhooks", "delete"),
    ((WEBHOOK, TEST_WEBHOOK), "select app.delete_webhook('w', null)", "webhook_deliveries", "delete"),
    ((WEBHOOK,), TEST_WEBHOOK, "webhook_deliveries", "insert"),
    ((WEBHOOK, TEST_WEBHOOK, DELIVERED), REDELIVER, "webhook_deliveries", "update"),
    ((DEAD_LETTER,), RESOLVE, "dead_letters", "update"),
]


def refused(table):
    return pytest.raises(psycopg.Error, match=f"a trigger or a rule of the table {table} keeps rows out; drop it")


def rows(engine):
    tables = ("audit_log", "jobs", "stages", "tasks", "job_events", "limits", "schedules", "schedule_ticks", "webhooks")
    tables += ("webhook_deliveries", "dead_letters")
    return {table: engine.query(f"select to_jsonb(t) as row from app.{table} t order by 1") for table in tables}  # noqa: S608


@pytest.mark.parametrize(("before", "asked", "table", "action"), ASKED)
def test_change_that_is_left_out_is_refused(engine, leave_out, before, asked, table, action):
    """The answer said that it was done, and so did the audit log; or that there was no such schedule or webhook."""
    job_id = Rig(engine).submit(n=1)
    for each in before:
        engine.query(each.replace("{job}", f"'{job_id}'"))
    kept = rows(engine)
    leave_out(table, action=action)
    with refused(table):
        engine.query(asked.replace("{job}", f"'{job_id}'"))
    assert rows(engine) == kept


def test_cancel_that_waits_for_a_running_task_is_refused_too(engine, leave_out):
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 1)
    engine.claim(job_id, 1, "s1-00000")
    leave_out("jobs", action="update")
    with refused("jobs"):
        engine.query(CANCEL.replace("{job}", f"'{job_id}'"))


def test_smaller_parallelism_that_is_left_out_is_refused(engine, leave_out):
    job_id = engine.submit(stages=1)
    engine.plan(job_id, 1, 50, first_window=2)
    leave_out("stages", action="update")
    with refused("stages"):
        engine.query(f"""select app.adjust_job('{job_id}', 1, '{{"max_parallel": 1}}', null, null)""")


def test_summary_that_is_left_out_is_not_taken_for_written(engine, leave_out):
    """Its message was settled, and its author was asked again by each sweep. Now it is refused."""
    rig = Rig(engine)
    job_id = rig.submit(n=1)
    leave_out("jobs", "new.status = 'completed'", "update")
    rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert (job.status, job.error["type"], job.error["step"]) == ("failed", "ChangeRefused", "finalize_job")
    assert "a trigger or a rule of the table jobs keeps rows out; drop it" in job.error["message"]


@pytest.mark.parametrize("table", ["jobs", "tasks", "stages", "job_events", "job_runs", "idempotency_keys"])
@pytest.mark.parametrize(
    "delete", ["app.delete_job({job}, null, null, 1000)", "app.prune_small_jobs(array[{job}], 1000)"]
)
def test_job_is_not_deleted_without_its_rows(engine, leave_out, table, delete):
    """Its tasks and stages were left behind: they are of no job, and stand in the way of another submission of it."""
    rig = Rig(engine)
    job_id = rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}, idempotency_key="k")).job_id
    rig.queues.run(rig.machine)
    rig.machine.rerun_job(job_id, RerunRequest(RerunMode.ALL))
    rig.queues.run(rig.machine)
    kept = rows(engine)
    leave_out(table, action="delete")
    with refused(table):
        engine.query("select " + delete.format(job=f"'{job_id}'"))
    assert rows(engine) == kept
