"""The database refuses a value for what it is: that is its task's failure, and nobody else's."""

from core.errors import DataRefused
from core.models import StageRef
from infrastructure.jobs_tasks import StageCompletionRepository


def test_a_result_that_the_database_refuses_fails_its_own_task(rig, monkeypatch):
    """A value too large for jsonb was taken for an outage: the message came again and again, its neighbours with it."""
    complete = StageCompletionRepository.complete_task_and_check_stage

    def refuse(self, *where, lease_id, results):
        if any("too large" in str(result) for result in results.values()):
            raise DataRefused("string too long to represent as jsonb string")
        return complete(self, *where, lease_id=lease_id, results=results)

    monkeypatch.setattr(StageCompletionRepository, "complete_task_and_check_stage", refuse)
    rig.behave.before["s2-n1"] = lambda _: {"square": 1, "text": "too large"}
    job_id = rig.run(n=5)

    assert rig.job(job_id).result == {"total": 0 + 4 + 9 + 16, "failed": 1}
    (failed,) = [task for task in rig.tasks(job_id, 2) if task["status"] == "failed"]
    assert (failed["task_id"], failed["error"]["type"]) == ("s2-n1", "DataRefused")
    assert "too long" in failed["error"]["message"]
    assert rig.behave.calls["s2-n1"] == 1


def test_a_bare_transaction_at_another_isolation_decides_nothing(engine, database_url):
    """The last wall: what does not say read committed cannot end a stage on an old snapshot."""
    import psycopg
    import pytest

    with (
        psycopg.connect(database_url, options="-c default_transaction_isolation=serializable") as connection,
        pytest.raises(psycopg.Error, match="expected a transaction at read committed, found serializable") as caught,
    ):
        connection.execute("select app.lock_stage('j', 1, 1)")
    assert caught.value.sqlstate == "CM005"


def test_a_connection_whose_default_changed_meanwhile_names_its_isolation(engine):
    job_id = engine.submit()
    engine.plan(job_id, 1, 2)
    lease = engine.claim(job_id, 1, "s1-00000")
    taken = [engine.pool.getconn() for _ in range(20)]
    for connection in taken:
        connection.execute("set default_transaction_isolation = 'repeatable read'")
        engine.pool.putconn(connection)
    check = engine.stages.complete_task_and_check_stage(
        StageRef(job_id, 1, 1), lease_id=lease, results={"s1-00000": {}}
    )
    assert check.updated_ids == ("s1-00000",)
