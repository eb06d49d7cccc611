"""A database that is away when an attempt has ended: its outcome waits, and the work is not done again."""

import threading

import pytest

from core.basics.outage import outage
from core.errors import RetryableTaskError, StoreShort, StoreUnavailable
from core.running import patience
from core.running.patience import MOST_REFUSALS, Patience
from infrastructure import results
from infrastructure.base import DatabaseShort, DatabaseUnavailable, StatementCancelled
from infrastructure.jobs_tasks import JobRepository, StageCompletionRepository, TaskRepository
from infrastructure.results import ResultRepository

from .machine_suite import Rig, ShapesJob

AWAY = DatabaseUnavailable("call", "server closed the connection unexpectedly")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    yield
    outage.end()


@pytest.fixture
def away(monkeypatch):
    """Let a call of a repository meet an outage that many times; the calls of it."""
    met = []

    def away(repository, name, times=3):
        call = getattr(repository, name)

        def refuse(self, *arguments, **more):
            met.append(name)
            if len(met) <= times:
                raise AWAY
            return call(self, *arguments, **more)

        monkeypatch.setattr(repository, name, refuse)
        return met

    return away


WAYS = {
    "complete one": (StageCompletionRepository, "complete_task_and_check_stage", False),
    "with the next stage": (StageCompletionRepository, "complete_stage_and_plan_next", True),
    "with the summary": (StageCompletionRepository, "complete_stage_and_finalize", True),
    "fail": (StageCompletionRepository, "fail_task_and_check_stage", False),
    "plan": (TaskRepository, "plan_small_stage", False),
    "plan many": (TaskRepository, "plan_stage", False),
    "summary": (JobRepository, "finalize_job", False),
    "retry": (StageCompletionRepository, "increment_task_retry_count", False),
}


@pytest.mark.parametrize("way", WAYS)
def test_outcome_is_written_when_the_database_is_back(engine, away, way):
    """The work of each task that ended meanwhile was thrown away, and done again when its lease had run out."""
    repository, name, on_the_spot = WAYS[way]
    rig = Rig(engine, on_the_spot=on_the_spot, patience_seconds=30)
    # How long the author's code takes is known after that.
    rig.run(n=2)
    rig.behave.calls.clear()
    if way == "retry":
        rig.behave.before["s2-n1"] = fails_once()
    met = away(repository, name)
    count = 200 if way == "plan many" else 2
    job_id = rig.submit(n=count, bad=[1] if way == "fail" else [])
    # Each message is delivered once: nothing was raised.
    rig.queues.run(rig.machine)
    job = rig.job(job_id)
    assert len(met) > 3
    total = sum(number**2 for number in range(count))
    assert job.result == ({"total": 0, "failed": 1} if way == "fail" else {"total": total, "failed": 0})
    assert engine.query("select sum(interruptions) as n from app.tasks") == [{"n": 0}]
    assert sum(rig.behave.calls.values()) == count + (3 if way == "retry" else 2)


@pytest.mark.parametrize("way", ["plan", "with the next stage", "with the summary"])
def test_outcome_whose_answer_was_lost_is_not_waited_for(engine, monkeypatch, way):
    """The tasks that it had planned and claimed ran when their lease had run out, after an interruption."""
    repository, name, _ = WAYS[way]
    rig = Rig(engine, on_the_spot=True, patience_seconds=30)
    rig.run(n=2)
    rig.behave.calls.clear()
    call, met = getattr(repository, name), []

    def lose_the_answer(self, *arguments, **more):
        answer = call(self, *arguments, **more)
        met.append(name)
        if len(met) == 1:
            raise AWAY
        return answer

    monkeypatch.setattr(repository, name, lose_the_answer)
    job_id = rig.submit(n=2)
    rig.queues.run(rig.machine)
    assert len(met) > 1
    assert rig.job(job_id).result == {"total": 1, "failed": 0}
    assert engine.query("select sum(interruptions) as n, max(attempt) as most from app.tasks") == [{"n": 0, "most": 1}]
    assert sum(rig.behave.calls.values()) == 4


def fails_once():
    calls = []

    def fail(_context):
        calls.append(1)
        if len(calls) == 1:
            raise RetryableTaskError("the first time")

    return fail


def test_results_are_read_on_when_the_database_is_back(engine, monkeypatch):
    """The handler's attempt failed, and its job with it where the stage allows one."""
    rig = Rig(engine, patience_seconds=30)
    monkeypatch.setattr(results, "ROWS_PER_PAGE", 2)
    execute, met = ResultRepository._execute_query, []

    def refuse(self, operation, query, parameters=()):
        met.append(operation)
        if operation == "stream_completed" and met.count(operation) in {2, 3, 5}:
            raise AWAY
        return execute(self, operation, query, parameters)

    job_id = rig.submit(n=7)
    while rig.job(job_id).stage < 3:
        assert rig.queues.deliver(rig.machine)
    monkeypatch.setattr(ResultRepository, "_execute_query", refuse)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).result == {"total": sum(n * n for n in range(7)), "failed": 0}
    assert met.count("stream_completed") > 5
    assert [task["attempt"] for task in rig.tasks(job_id, 3)] == [1]


def test_author_who_catches_everything_makes_no_summary_of_half_of_the_results(engine, monkeypatch):
    """What `except Exception` around earlier results made of an outage was written when the database was back, and the
    job completed with it.
    """

    def summary_of_what_can_be_read(context):
        try:
            return {"total": len(list(context.results(2)))}
        except Exception as error:  # noqa: BLE001 - as in the wild
            return {"total": str(error)}

    monkeypatch.setattr(ShapesJob, "finalize_job", staticmethod(summary_of_what_can_be_read))
    rig = Rig(engine, patience_seconds=30)
    execute, met = ResultRepository._execute_query, []

    def refuse(self, operation, query, parameters=()):
        if operation == "stream_completed" and parameters[2] == 2:
            met.append(operation)
            # The handler of the fan-in has read them before.
            if len(met) == 2:
                raise AWAY
        return execute(self, operation, query, parameters)

    monkeypatch.setattr(ResultRepository, "_execute_query", refuse)
    job_id = rig.run(n=3)
    assert (rig.job(job_id).result, len(met)) == ({"total": 3}, 3)


def test_outcome_that_waits_does_not_keep_a_process_from_its_end(engine, away):
    rig = Rig(engine, patience_seconds=3600)
    away(StageCompletionRepository, "complete_task_and_check_stage", times=10**6)
    rig.submit(n=2)
    ending = threading.Timer(0.3, rig.machine.drain)
    ending.start()
    with pytest.raises(StoreUnavailable):
        rig.queues.run(rig.machine)
    ending.join()


@pytest.mark.parametrize(
    "error", [StatementCancelled("call", "statement timeout"), DatabaseShort("call", "disk full", "53100 DiskFull")]
)
def test_server_that_refuses_one_statement_is_asked_few_times(error):
    """It takes other work, which is not to wait for the slot of this one."""
    calls = []

    def call():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        Patience(3600.0, lambda _seconds: True).repeat(error, call)
    assert len(calls) == MOST_REFUSALS


def test_patience_ends():
    with pytest.raises(DatabaseUnavailable):
        Patience(0.0, lambda _seconds: True).repeat(AWAY, lambda: 1)
    assert Patience(60.0, lambda _seconds: True).repeat(AWAY, lambda: 1) == 1
    assert issubclass(StoreShort, StoreUnavailable)
