"""A job class that is incomplete fails when it is made, and says everything that is wrong."""

import pytest

from core.models import TaskDefinition
from jobs.base import JobBase, JobDefinitionError, is_job_class
from jobs.mixins import JobBaseMixin
from jobs.parameters import ParameterErrors

STAGES = [
    {"number": 1, "name": "greet", "task_type": "greeting", "parallelism": "single"},
    {"number": 2, "name": "reply", "task_type": "reply", "parallelism": "fan_out"},
]


class Greetings(JobBaseMixin, JobBase):
    job_type = "greetings"
    stages = STAGES
    parameters_schema = {
        "n": {"type": "int", "default": 3, "min": 1, "max": 1000},
        "failure_rate": {"type": "float", "default": 0.0, "min": 0, "max": 1},
    }
    parameters_outside_job_id = frozenset({"failure_rate"})

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        return [TaskDefinition(parameters={"index": index}) for index in range(job_params["n"])]

    @staticmethod
    def finalize_job(context):
        return {"stages": len(context.stages)}


def test_two_methods_and_declarations_make_a_job():
    assert is_job_class(Greetings)
    assert not is_job_class(JobBase)
    params = Greetings.validate_job_parameters({})
    job_id = Greetings.generate_job_id(params)
    record = Greetings.create_job_record(job_id, params, correlation_id="c")

    assert (record.total_stages, record.parameters) == (2, {"n": 3, "failure_rate": 0.0})
    assert [stage["name"] for stage in record.definition["stages"]] == ["greet", "reply"]
    assert Greetings.queue_job(job_id, params, correlation_id="c").job_id == job_id


def test_job_id_depends_on_what_identifies_the_job_alone():
    def job_id(params):
        return Greetings.generate_job_id(Greetings.validate_job_parameters(params))

    assert job_id({}) == job_id({"n": 3}) == job_id({"failure_rate": 0.5})
    assert job_id({"n": 4}) != job_id({})


def test_misspelt_parameter_is_refused_with_the_nearest_name():
    """Unknown parameters were dropped (lesson D43)."""
    with pytest.raises(ParameterErrors, match="failure_rate"):
        Greetings.validate_job_parameters({"failure_rat": 0.1})


def test_everything_wrong_with_a_class_is_said_at_once():
    with pytest.raises(JobDefinitionError) as refused:

        class Broken(JobBase):
            stages = (
                {"number": 1, "name": "a", "task_type": "t", "parallelism": "fan_out"},
                {"number": 3, "name": "b", "task_type": "t", "parallelism": "parallel"},
                {"number": 2, "name": "c", "task_type": "t", "parallelism": "single"},
            )
            parameters_schema = {"n": {"type": "integer"}}

    message = str(refused.value)
    for expected in (
        "method create_tasks_for_stage is missing",
        "method finalize_job is missing",
        "method generate_job_id is missing; JobBaseMixin",
        "job_type: expected a name",
        "stages[0].parallelism: the first stage has no earlier results",
        "stages[1].parallelism",
        "stages[2].number: expected 3",
        "parameters_schema",
    ):
        assert expected in message


def test_undeclared_timeouts_stay_out_of_the_snapshot_and_declared_ones_are_in_it():
    def definition_of(job):
        params = job.validate_job_parameters({})
        return job.create_job_record(job.generate_job_id(params), params, correlation_id="c").definition

    plain = definition_of(Greetings)
    assert not [key for key in (*plain, *plain["stages"][0]) if "timeout" in key]
    stages = [{**STAGES[0], "task_timeout_seconds": 30, "queue_timeout_seconds": 3600}, STAGES[1]]
    timed = definition_of(type("Timed", (Greetings,), {"stages": stages, "timeout_seconds": 600}))
    assert timed["timeout_seconds"] == 600
    assert {key: timed["stages"][0][key] for key in ("task_timeout_seconds", "queue_timeout_seconds")} == {
        "task_timeout_seconds": 30,
        "queue_timeout_seconds": 3600,
    }


@pytest.mark.parametrize("seconds", [0, -1, "soon", float("nan"), float("inf"), 32 * 86400])
def test_timeout_that_cannot_be_one_is_refused(seconds):
    with pytest.raises(JobDefinitionError, match="timeout_seconds: expected seconds above 0"):
        type("Timed", (Greetings,), {"timeout_seconds": seconds})
    with pytest.raises(JobDefinitionError, match=r"stages\[0\].task_timeout_seconds"):
        type("Timed", (Greetings,), {"stages": [{**STAGES[0], "task_timeout_seconds": seconds}, STAGES[1]]})


def test_class_without_stages_is_refused():
    with pytest.raises(JobDefinitionError, match="at least one stage"):
        type("Empty", (Greetings,), {"stages": []})
