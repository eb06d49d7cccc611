"""A step (planning, finalizing) whose end the database refuses: it is counted, or the job shows the reason.

It was repeated with each delivery of its message, for ever, and nothing at the job said why.
"""

import pytest

from core.announcing.announcer import step_message
from core.basics.outage import outage
from core.errors import StoreCancelled, StoreUnavailable
from core.operating.explain import explain
from infrastructure.base import RepositoryError
from infrastructure.insight import InsightQueries
from infrastructure.verify import verify

from .machine_suite import Rig

REFUSE = """
create or replace function public.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'not on a Monday' using errcode = '{code}';
end $$
"""
# What the engine writes to a job's row to end the step.
ENDS = {
    "plan_stage": "old.status = 'queued' and new.status = 'processing'",
    "finalize_job": "old.status = 'finalizing' and new.status = 'completed'",
}


@pytest.fixture(params=ENDS)
def step(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["by message", "on the spot"])
def rig(engine, request):
    yield Rig(engine, on_the_spot=request.param)
    outage.end()


@pytest.fixture
def refuse(engine):
    """Let a trigger of the user's own raise where a row would change as `condition` says."""

    def refuse(condition, code="P0001", table="jobs"):
        engine.execute(REFUSE.format(code=code))
        engine.execute(
            f"create trigger theirs before update on app.{table} for each row when ({condition}) "
            "execute function public.refuse()"
        )

    return refuse


def deliver(rig, job_id, times=3):
    """The message of the job's step, as a broker delivers it again and again: what kept it there each time."""
    met = []
    for nth in range(times):
        rig.queues.clear()
        try:
            rig.machine.process_job_message(step_message(rig.job(job_id), "again"), is_again=nth > 0)
        except (RepositoryError, StoreUnavailable) as error:
            met.append(error)
    return met


def reach(rig, step, refused):
    """A job whose step has been refused once."""
    job_id = rig.submit(n=2)
    with pytest.raises(refused):
        rig.queues.run(rig.machine)
    assert rig.job(job_id).status == {"plan_stage": "queued", "finalize_job": "finalizing"}[step]
    return job_id


def noted(rig, event):
    rows = rig.engine.query("select detail from app.job_events where event = %s order by event_id", event)
    return [row["detail"] for row in rows]


def why(rig, job_id):
    return {finding.code: finding for finding in explain(InsightQueries(rig.engine.pool).get_job_facts(job_id))}


@pytest.mark.parametrize("code", ["P0001", "57014"], ids=["own_trigger", "statement_timeout"])
def test_step_that_is_refused_each_time_is_counted_and_fails_with_the_reason(rig, refuse, step, code):
    refuse(ENDS[step], code)
    job_id = rig.run(n=2)

    job = rig.job(job_id)
    assert (job.status, job.error["step"], job.error["attempt"]) == ("failed", step, 3)
    assert "not on a Monday" in job.error["message"]
    assert [detail["attempt"] for detail in noted(rig, "job_step_retry_scheduled")] == [1, 2]
    assert verify(rig.engine.pool) == []


@pytest.mark.parametrize("code", ["22P02", "54000", "23514"])
def test_values_that_are_refused_for_ever_fail_the_job_at_once(rig, refuse, step, code):
    refuse(ENDS[step], code)
    job = rig.job(rig.run(n=2))
    assert (job.status, job.error["type"], job.error["attempt"]) == ("failed", "ValuesRefused", 1)
    assert "not on a Monday" in job.error["message"]


@pytest.mark.parametrize("code", ["53100", "08006", "57P03", "25006"])
def test_outage_costs_a_step_nothing(engine, refuse, step, code):
    rig = Rig(engine)
    refuse(ENDS[step], code)
    job_id = reach(rig, step, StoreUnavailable)
    errors = deliver(rig, job_id)
    assert len(errors) == 3
    assert not any(isinstance(error, StoreCancelled) for error in errors)
    assert rig.job(job_id).attempt == 0
    assert "not on a Monday" in why(rig, job_id)["step_not_written"].message

    engine.execute("drop trigger theirs on app.jobs")
    deliver(rig, job_id, 1)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert noted(rig, "job_step_retry_scheduled") == []


@pytest.mark.parametrize(("code", "advice"), [("P0001", "trigger"), ("42501", "grant the role")])
def test_step_that_cannot_even_be_failed_is_explained(engine, refuse, step, code, advice, caplog):
    """Its row takes no change at all: what came of it cannot be counted there."""
    rig = Rig(engine)
    job_id = rig.submit(n=2)
    if step == "plan_stage":
        refuse("true", code)
    else:
        refuse("old.status = 'finalizing'", code)
    for _ in range(2):
        with pytest.raises((RepositoryError, StoreUnavailable)):
            rig.queues.run(rig.machine)
    assert len(deliver(rig, job_id)) == 3

    finding = why(rig, job_id)["step_not_written"]
    assert finding.severity == "error"
    assert "not on a Monday" in finding.message
    assert advice in f"{finding.message} {finding.advice}"
    # Each reason once in a minute, however often its message comes.
    details = noted(rig, "job_step_not_written")
    assert details
    assert {detail["step"] for detail in details} == {step}
    assert len({detail["reason"] for detail in details}) == len(details)
    told = [record for record in caplog.records if record.getMessage() == "job_step_not_written"]
    assert [record.reason for record in told] == [detail["reason"] for detail in details]

    engine.execute("drop trigger theirs on app.jobs")
    deliver(rig, job_id, 1)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert "step_not_written" not in why(rig, job_id)


def test_job_whose_rows_refuse_a_sweep_keeps_no_other_from_it(engine, refuse, caplog):
    """Each sweep met it first, and the tasks of all later jobs were never taken back."""
    rig = Rig(engine)
    jobs = [rig.submit(n=1) for _ in range(3)]
    rig.queues.clear()
    for job_id in jobs:
        rig.machine.process_job_message(step_message(rig.job(job_id), None))
    rig.queues.clear()
    engine.execute(
        "update app.tasks set status = 'processing', attempt = 1, lease_owner = 'lost', lease_id = gen_random_uuid(), "
        "lease_expires_at = clock_timestamp() - interval '1 s', started_at = clock_timestamp(), announced_at = null"
    )
    refuse(f"new.job_id = '{jobs[0]}'", table="tasks")
    report = rig.janitor.sweep()
    assert report.taken_back == 2
    assert "not on a Monday" in report.errors["take_back_expired_leases"]
    (told,) = [record for record in caplog.records if record.getMessage() == "janitor_row_failed"]
    assert told.job_id == jobs[0]
