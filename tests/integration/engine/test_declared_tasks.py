"""Stages whose tasks are declared: one per element of a list in earlier results or in the job's parameters."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from core.errors import RetryableTaskError
from core.fan_in import FanInResults
from core.models import TaskDefinition
from coremachine.testing import MessageFaults, run_job
from jobs.base import JobBase
from jobs.handlers import handler
from jobs.job import Job
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler
from jobs.stages import Stage


class ElementsJob(Job):
    job_type = "elements"
    parameters_schema: ClassVar = {
        "lists": {"type": "list", "default": [["a", "b"], ["c"]]},
        "result": {"type": "dict", "default": {}},
    }
    stages: ClassVar = [
        Stage("give", over="lists"),
        Stage("take", over="names"),
        Stage("gather", "fan_in"),
    ]


class NamedJob(Job):
    job_type = "named"
    parameters_schema = ElementsJob.parameters_schema
    stages: ClassVar = [Stage("give", over="lists"), Stage("take", over="names", name_from="key")]


class MixedJob(JobBaseMixin, JobBase):
    """The old bases: the planner makes what is not declared."""

    job_type = "mixed"
    stages: ClassVar = [
        {"number": 1, "name": "give", "task_type": "give", "parallelism": "single"},
        {"number": 2, "name": "take", "task_type": "take", "parallelism": "fan_out", "over": "names"},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        assert stage == 1
        return [TaskDefinition(name="one", parameters={"item": ["x", "y"]})]

    @staticmethod
    def finalize_job(context):
        return {"taken": [task.result for task in context.results(2)]}


@handler("give")
def give(params, context):
    return {"names": params["item"]} if "item" in params else params


@handler("take")
def take(params, context):
    return {"taken": params}


@handler("gather")
def gather(results: FanInResults, context):
    return {"all": [task.result["taken"] for task in results.results()]}


def test_list_each_collect_needs_no_planner():
    result = run_job(ElementsJob)
    assert result.summary["result"] == {"all": [{"item": "a"}, {"item": "b"}, {"item": "c"}]}
    assert [stage["completed"] for stage in result.summary["stages"]] == [2, 3, 1]
    assert [task.name for task in result.stage("take").tasks] == ["a", "b", "c"]
    assert [task.task_id for task in result.stage("take").tasks] == ["s2-a", "s2-b", "s2-c"]


@pytest.mark.parametrize("inline", [True, False])
def test_the_ways_of_a_stage_give_the_same_tasks(inline):
    faults = MessageFaults() if inline else MessageFaults(duplicated=1.0, lost=0.5)
    result = run_job(ElementsJob, inline=inline, faults=faults)
    assert result.summary == run_job(ElementsJob).summary


def test_more_elements_than_are_written_at_once():
    names = [f"n{number:05d}" for number in range(2500)]
    result = run_job(ElementsJob, {"lists": [names]})
    assert [task.name for task in result.stage("take").tasks] == names


def test_no_elements_are_no_tasks():
    result = run_job(ElementsJob, {"lists": [[], []]})
    assert (result.status, result.summary["result"]) == ("completed", {"all": []})


def test_objects_are_the_parameters_and_may_name_their_tasks():
    result = run_job(NamedJob, {"lists": [[{"key": "k1", "n": 1}, {"key": 2}]]})
    assert [(task.name, task.parameters) for task in result.stage("take").tasks] == [
        ("k1", {"key": "k1", "n": 1}),
        ("2", {"key": 2}),
    ]


def test_declared_and_planned_stages_may_be_mixed():
    result = run_job(MixedJob)
    assert result.summary == {"taken": [{"taken": {"item": "x"}}, {"taken": {"item": "y"}}]}


@pytest.mark.parametrize(
    ("job", "lists", "message"),
    [
        (
            ElementsJob,
            [{"nmes": []}],
            "expected a list named 'names' in the result of task s1-000000, found the names nmes",
        ),
        (
            ElementsJob,
            [{"names": "abc"}],
            "expected a list named 'names' in the result of task s1-000000, found str 'abc'",
        ),
        (ElementsJob, [["a", "a"]], "expected each task to have its own name, found 'a' twice"),
        (ElementsJob, [["x" * 501]], "name: expected 1 to 500 characters, found one of 501"),
        (ElementsJob, [[""]], "name: expected 1 to 500 characters, found one of 0"),
        (NamedJob, [[{"n": 1}]], "expected a text or a whole number named 'key' in each element, found the names n"),
        (NamedJob, [[{"key": None}]], "named 'key' in each element, found null"),
        (NamedJob, [["plain"]], "named 'key' in each element, found the names item"),
    ],
    ids=repr,
)
def test_what_is_no_list_of_elements_fails_the_job_with_its_reason(job, lists, message):
    result = run_job(job, {"lists": lists})
    assert result.status == "failed"
    assert message in result.error["message"]
    assert message in result.report


def test_a_missing_parameter_is_reported():
    class MissingJob(Job):
        job_type = "missing"
        stages: ClassVar = [Stage("give", over="urls")]
        parameters_schema: ClassVar = {"urls": {"type": "list"}}

    result = run_job(MissingJob)
    assert "expected a list named 'urls' in the job's parameters, found the names (none)" in result.error["message"]


@pytest.mark.parametrize(
    ("error", "rules", "attempts"),
    [
        (ValueError("bad"), {}, 1),
        (ValueError("bad"), {"always": ["ValueError"]}, 3),
        (RetryableTaskError("later"), {}, 3),
        (RetryableTaskError("later"), {"never": ["core.errors.RetryableTaskError"]}, 1),
    ],
    ids=repr,
)
def test_retry_rules_by_name_decide_about_attempts(error, rules, attempts):
    class RulesJob(Job):
        job_type = "rules"
        stages: ClassVar = [Stage("fail", retry={"max_attempts": 3, **rules})]

    def fail(params, context):
        raise error

    result = run_job(RulesJob, handlers=[Handler("fail", fail, "tasks")])
    (failed,) = result.failures
    assert (failed.attempt, failed.error["type"]) == (attempts, type(error).__name__)


def test_typed_parameters_that_do_not_fit_fail_the_task():
    @dataclass
    class Wanted:
        item: int

    def typed(wanted: Wanted, context):
        return {}

    result = run_job(ElementsJob, handlers=[Handler("take", typed, "tasks")])
    assert result.status == "failed"
    assert result.failures[0].error["message"].splitlines() == [
        "parameters of the task, as Wanted:",
        "item: expected int, found str 'a'; write it without quotes",
    ]
    assert result.failures[0].error["type"] == "InvalidTaskParameters"
