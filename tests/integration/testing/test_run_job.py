"""Jobs in the test's process, on the real engine: what authors get from `coremachine.testing`."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import ClassVar

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from core.basics.faults import FAULT_POINTS
from core.errors import RetryableTaskError
from core.fan_in import load_fan_in_results
from core.models import TaskDefinition
from core.schema.tables import TABLES
from coremachine.testing import JobRunner, JobStuck, MessageFaults, UnreachedCrash, run_job
from coremachine.testing.database import (
    SERVER_VARIABLE,
    EngineDatabase,
    prefix_of_folders,
    remove_leftovers,
    session_database,
)
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin
from jobs.parameters import ParameterErrors
from jobs.registry import Handler
from tests.integration.testing.described import described

calls: Counter[str] = Counter()


class SquaresJob(JobBaseMixin, JobBase):
    job_type = "squares"
    stages: ClassVar = [
        {"number": 1, "name": "list", "task_type": "squares_list", "parallelism": "single"},
        {
            "number": 2,
            "name": "square",
            "task_type": "squares_square",
            "parallelism": "fan_out",
            "tasks_per_message": 2,
            "retry": {"max_attempts": 3, "base_delay_seconds": 3600, "max_delay_seconds": 3600},
            "failure": {"on_failure": "continue"},
        },
        {"number": 3, "name": "sum", "task_type": "squares_sum", "parallelism": "fan_in"},
    ]
    parameters_schema: ClassVar = {
        "n": {"type": "int", "default": 6},
        "bad": {"type": "list", "default": []},
        "unsteady": {"type": "list", "default": []},
        "timid": {"type": "bool", "default": False},
    }

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        if stage == 1:
            return [TaskDefinition()]
        (listed,) = previous_results
        return [TaskDefinition(name=f"n{number}", parameters={"number": number}) for number in listed.result["numbers"]]

    @staticmethod
    def finalize_job(context):
        (total,) = context.results(3)
        return total.result


def list_numbers(params, context):
    return {"numbers": list(range(context.job_parameters["n"]))}


def square(params, context):
    number = params["number"]
    calls[f"n{number}"] += 1
    context.progress(50, "half of it")
    if number in context.job_parameters["bad"]:
        raise ValueError(f"bad number {number}")
    if number in context.job_parameters["unsteady"] and context.attempt == 1:
        raise RetryableTaskError("not yet")
    return {"square": number**2}


def total(params, context):
    return {"total": sum(task.result["square"] for task in load_fan_in_results(params).results())}


HANDLERS = (
    Handler("squares_list", list_numbers, queue="tasks"),
    Handler("squares_square", square, queue="tasks"),
    Handler("squares_sum", total, queue="tasks"),
)


def test_a_job_runs_to_its_result():
    result = run_job(SquaresJob, {"n": 4})
    assert (result.status, result.summary, result.error) == ("completed", {"total": 14}, None)
    assert result.parameters == {"n": 4, "bad": [], "unsteady": [], "timid": False}
    assert [(stage.name, stage.completed, stage.failed) for stage in result.stages] == [
        ("list", 1, 0),
        ("square", 4, 0),
        ("sum", 1, 0),
    ]
    assert result.stage("square").results == [{"square": 0}, {"square": 1}, {"square": 4}, {"square": 9}]
    assert [task.name for task in result.tasks] == [None, "n0", "n1", "n2", "n3", "fan_in"]
    assert result.events[0].event == "job_submitted"
    assert result.events[-1].event == "job_completed"
    assert result.failures == ()


def test_a_name_that_two_stages_have_is_not_taken_for_the_first():
    result = run_job(SquaresJob, {"n": 1})
    both = replace(result, stages=(*result.stages, result.stage("square")))
    with pytest.raises(LookupError, match="expected the name of one stage, found 2 named 'square'"):
        both.stage("square")


def test_each_run_begins_with_nothing():
    assert run_job(SquaresJob).job_id == run_job(SquaresJob).job_id
    assert [event.event for event in run_job(SquaresJob).events].count("job_submitted") == 1


def test_an_empty_database_has_no_rows_in_any_table():
    database = session_database()
    run_job(SquaresJob)
    database.empty()
    with database.pool.connection() as connection:
        for table in TABLES:
            found = connection.execute(SQL("select count(*) as rows from app.{}").format(Identifier(table.name)))
            assert found.fetchone() == {"rows": 0}, table.name


def test_a_failed_task_has_its_traceback():
    result = run_job(SquaresJob, {"n": 3, "bad": [1]})
    assert (result.status, result.summary) == ("completed_with_errors", {"total": 4})
    (failed,) = result.failures
    assert (failed.name, failed.attempt, failed.error["type"]) == ("n1", 1, "ValueError")
    assert 'raise ValueError(f"bad number {number}")' in failed.error["traceback"]
    assert "ValueError: bad number 1" in result.report
    assert result.stage("square").failures == (failed,)


def test_delays_of_retries_cost_no_time(job_runner):
    result = job_runner.run(SquaresJob, {"n": 3, "unsteady": [1]})
    assert result.status == "completed"
    assert [task.attempt for task in result.stage("square").tasks] == [1, 2, 1]
    retried = result.stage("square").tasks[1]
    assert (retried.started_at - result.stage("square").tasks[0].started_at).total_seconds() <= 3600
    assert job_runner.clock.ahead_seconds > 0


def test_parameters_are_validated():
    with pytest.raises(ParameterErrors, match="did you mean 'bad'"):
        run_job(SquaresJob, {"baad": []})


def test_handlers_can_be_replaced():
    result = run_job(SquaresJob, {"n": 2}, handlers=[Handler("squares_sum", lambda _p, _c: {"total": -1}, "tasks")])
    assert result.summary == {"total": -1}


@pytest.mark.parametrize(
    "faults",
    [
        MessageFaults(duplicated=1.0),
        MessageFaults(reordered=True),
        MessageFaults(late=1.0),
        MessageFaults(lost=1.0),
        MessageFaults(duplicated=0.5, reordered=True, late=0.3, lost=0.3, seed=3),
    ],
    ids=["duplicated", "reordered", "late", "lost", "all"],
)
def test_message_faults_change_no_result(faults):
    parameters = {"n": 9, "bad": [2], "unsteady": [4]}
    expected = described(run_job(SquaresJob, parameters))
    calls.clear()
    result = run_job(SquaresJob, parameters, faults=faults)
    assert described(result) == expected
    assert calls["n3"] == 1


@pytest.mark.parametrize("seconds", [3600, 86_400])
def test_a_lost_message_for_later_is_missed_when_it_is_due(seconds, monkeypatch):
    """The delay as long as it may be: all of it must pass before the message counts as lost."""
    monkeypatch.setattr("random.random", lambda: 0.999)
    retry = {"max_attempts": 2, "base_delay_seconds": min(seconds, 3600), "max_delay_seconds": seconds}
    stages = [SquaresJob.stages[0], {**SquaresJob.stages[1], "retry": retry}, SquaresJob.stages[2]]
    job = type("LateJob", (SquaresJob,), {"job_type": "late", "stages": stages, "__module__": __name__})
    assert run_job(job, {"n": 2, "unsteady": [1]}, faults=MessageFaults(lost=1.0)).status == "completed"


def test_lost_messages_are_sent_by_the_janitor():
    events = {event.event for event in run_job(SquaresJob, faults=MessageFaults(lost=1.0)).events}
    assert events & {"janitor_announced_tasks", "janitor_announced_job", "janitor_found_lost_messages"}


def test_faults_are_the_same_for_the_same_seed():
    faults = MessageFaults(duplicated=0.5, reordered=True, late=0.3, lost=0.3, seed=5)
    first, second = (run_job(SquaresJob, {"n": 20}, faults=faults) for _ in range(2))
    assert [event.event for event in first.events] == [event.event for event in second.events]


@pytest.mark.parametrize("point", ["submit.written", "job.planned", "task.claimed", "task.ran", "task.settled"])
def test_crashes_change_no_result(point):
    expected = described(run_job(SquaresJob))
    result = run_job(SquaresJob, crash_at=point, inline=False)
    assert described(result) == expected


def test_work_of_a_crashed_process_is_repeated():
    calls.clear()
    result = run_job(SquaresJob, {"n": 2}, crash_at="task.ran:2", inline=False)
    assert result.status == "completed"
    assert "task_interrupted" in {event.event for event in result.events}
    assert sum(calls.values()) > 2


def test_a_crash_that_never_comes_is_an_error():
    with pytest.raises(UnreachedCrash, match=r"at job\.step_retry_sent"):
        run_job(SquaresJob, crash_at="job.step_retry_sent")


@pytest.mark.parametrize("point", ["task.run", "task.ran:0", "task.ran:x"])
def test_unknown_crash_points_are_refused(point):
    with pytest.raises(ValueError, match=f"{FAULT_POINTS[0]}.*found '{point}'"):
        run_job(SquaresJob, crash_at=point)


@pytest.mark.parametrize("share", [2, -0.1, "x", float("nan")])
def test_unusable_shares_are_refused(share):
    with pytest.raises(ValueError, match=f"lost: expected a share from 0 to 1, found {share!r}"):
        MessageFaults(lost=share)


def test_the_clock_goes_forward_only(job_runner):
    with pytest.raises(ValueError, match="no clock of the engine goes back"):
        job_runner.clock.advance(-1)


def test_the_clock_turns_the_database(job_runner):
    job_runner.clock.advance(7 * 86400)
    result = job_runner.run(SquaresJob)
    assert abs((result.events[0].at - job_runner.clock.now()).total_seconds()) < 60


def test_a_job_that_nothing_ends_is_reported():
    def pause(params, context):
        runner.process.machine.pause_job(context.job_id)
        return {"numbers": [1]}

    runner = JobRunner(handlers=[Handler("squares_list", pause, "tasks")])
    with pytest.raises(JobStuck, match=r"found it (queued|processing) after 100 sweeps"):
        runner.run(SquaresJob)


def test_a_job_that_is_too_slow_is_reported_with_how_far_it_came_and_what_to_do():
    with pytest.raises(JobStuck) as caught:
        run_job(SquaresJob, timeout_seconds=0)
    told = str(caught.value)
    assert "expected the job to end within timeout_seconds=0, found it queued with 0 of the 0 tasks ended" in told
    assert "fewer tasks, or more time: run_job(..., timeout_seconds=60)" in told


def test_one_runner_can_control_its_jobs(job_runner):
    job_id = job_runner.run(SquaresJob, {"bad": [1]}).job_id
    assert job_runner.run(SquaresJob, {"bad": [1]}).job_id == job_id
    assert job_runner.result(job_id).status == "completed_with_errors"


FAILING_TESTS = """
from coremachine.testing import run_job
from jobs.hello_world import HelloWorldJob
from jobs.registry import Handler

def fail(params, context):
    raise ValueError("no greeting today")

def test_good(job_runner):
    assert job_runner.run(HelloWorldJob).status == "completed"

def test_bad():
    handlers = [Handler("hello_world_greeting", fail, "tasks")]
    assert run_job(HelloWorldJob, handlers=handlers).status == "completed"
"""


def test_a_failing_test_shows_the_tracebacks_of_its_jobs(tmp_path):
    """In a folder of its own: pytest finds the plugin by itself, and no server is left behind."""
    (tmp_path / "test_greetings.py").write_text(FAILING_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:schemathesis", "-p", "no:cacheprovider"]
    own = {name: value for name, value in os.environ.items() if name != SERVER_VARIABLE}
    ended = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout + ended.stderr
    assert "1 failed, 1 passed" in ended.stdout
    _, _, report = ended.stdout.partition("CoreMachine job hello_world")
    assert "): failed" in report
    assert 'raise ValueError("no greeting today")' in report


def test_a_server_that_is_named_gives_the_same_results_and_keeps_nothing(postgres_url, monkeypatch):
    monkeypatch.setenv(SERVER_VARIABLE, postgres_url)
    parameters = {"n": 5, "bad": [2], "unsteady": [1]}
    with closing(EngineDatabase()) as database:
        result = JobRunner(database).run(SquaresJob, parameters)
        assert described(result) == described(run_job(SquaresJob, parameters))
        assert conninfo_to_dict(database.url)["dbname"] in names_of_databases(postgres_url)
    assert conninfo_to_dict(database.url)["dbname"] not in names_of_databases(postgres_url)


def names_of_databases(url):
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("select datname from pg_database")}


def test_folders_of_dead_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("coremachine.testing.database._MEMORY", tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"coremachine-tests-{ended.pid}-x", f"{prefix_of_folders()}y", "coremachine-tests-z"):
        (tmp_path / name).mkdir()
    remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {f"{prefix_of_folders()}y", "coremachine-tests-z"}
