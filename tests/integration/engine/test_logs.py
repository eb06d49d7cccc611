"""The last lines of failed attempts, from the handler to the API's list."""

import logging

from core.errors import MOST_LOG_BYTES, PermanentTaskError, RetryableTaskError
from infrastructure.queries import JobQueries

from .machine_suite import Rig

log = logging.getLogger("an.author")


def test_lines_of_each_failed_attempt_are_kept_and_listed(engine, caplog):
    caplog.set_level(logging.INFO)
    rig = Rig(engine)

    def fail(context):
        log.info("attempt %d begins", context.attempt)
        if context.attempt == 1:
            raise RetryableTaskError("try again")
        log.warning("x" * 1500)
        log.warning("y" * 1500)
        raise PermanentTaskError("enough")

    rig.behave.before["s2-n1"] = fail
    job_id = rig.run(n=3)

    queries = JobQueries(engine.pool)
    first, second = queries.list_logs(job_id).items
    assert (first.event, first.task_id, first.detail["attempt"]) == ("retry_scheduled", "s2-n1", 1)
    assert first.detail["log"].endswith("INFO an.author: attempt 1 begins")
    # Whole, where a traceback is cut.
    assert (second.event, second.detail["type"]) == ("task_failed", "PermanentTaskError")
    assert 3000 < len(second.detail["log"]) < MOST_LOG_BYTES
    assert second.detail["log"].endswith("y" * 1500)
    task = queries.get_task(job_id, "s2-n1")
    assert task.error["log"] == second.detail["log"]
    (listed,) = [one for one in queries.list_tasks(job_id).items if one.task_id == "s2-n1"]
    assert listed.error["log"].startswith("[cut here: ")
    assert listed.error["log"].endswith("y" * 900)

    assert queries.list_logs(job_id, task_id="s2-n0").items == ()
    assert queries.list_logs(job_id, run=2).items == ()
    assert queries.list_logs(job_id, after=first.event_id).items == (second,)
    page = queries.list_logs(job_id, limit=1)
    assert page.items == (first,)
    assert queries.list_logs(job_id, limit=1, cursor=page.next_cursor).items == (second,)


def test_step_of_the_job_has_its_place_among_them(engine, monkeypatch):
    rig = Rig(engine)
    calls = []

    def fail_once(context):
        calls.append(context)
        if len(calls) == 1:
            raise OSError("storage is away")
        return {}

    monkeypatch.setattr(rig.registry.get_job("shapes"), "finalize_job", staticmethod(fail_once))
    job_id = rig.run(n=1)
    events = [event.event for event in JobQueries(engine.pool).list_logs(job_id).items]
    assert events == ["job_step_retry_scheduled"]
