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
                {"number": 4, "name": "d", "task_type": "t", "parallelism": "single", "failure": {"max_fail": 1}},
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
        "stages[3].failure.max_fail: expected a known name, found unknown name 'max_fail'; did you mean 'max_failed'?",
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


@pytest.mark.parametrize(
    "name",
    [None, 7, b"x", "", "a/b", ".", "..", "a b", "a\x00", "a\n", "a?b", "\u00e9", "\ud800", "x" * 101, "x" * 1_000_000],
    ids=lambda name: repr(name)[:20],
)
def test_job_type_that_could_be_no_part_of_a_url_is_refused(name):
    """Such a class was registered, and its jobs could not be submitted or broke the list of job types for everybody."""
    with pytest.raises(JobDefinitionError, match="job_type: expected a name of 1 to 100 letters") as refused:
        type("Named", (Greetings,), {"job_type": name})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["a", "flood_risk.cog-2", "...a", "x" * 100])
def test_job_type_of_letters_digits_and_marks_is_taken(name):
    assert type("Named", (Greetings,), {"job_type": name}).definition().job_type == name


@pytest.mark.parametrize("field", ["name", "task_type", "queue"])
@pytest.mark.parametrize("name", ["", 7, "x" * 101, "a\nb", "a\x00", "\ud800", "  ", "\x1b[2J"], ids=repr)
def test_name_in_a_stage_that_cannot_be_one_is_refused(field, name):
    with pytest.raises(JobDefinitionError, match=rf"stages\[0\].{field}: .*found") as refused:
        type("Named", (Greetings,), {"stages": [{**STAGES[0], field: name}]})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", [7, ["x"], "\ud800", "a\x00"], ids=repr)
def test_text_for_people_that_cannot_be_shown_is_refused(text):
    """It made the list of job types and the API's description answer 500, for everybody."""
    schema = {"n": {"type": "int", "description": text}}
    for declared, where in (
        ({"description": text}, "description"),
        ({"stages": [{**STAGES[0], "description": text}]}, r"stages\[0\].description"),
        ({"parameters_schema": schema}, "parameters_schema.n.description"),
    ):
        with pytest.raises(JobDefinitionError, match=where):
            type("Told", (Greetings,), declared)
    for entry in ({"default": "\ud800"}, {"allowed": ["\ud800"]}, {"example": "\ud800"}, {"pattern": "\ud800"}):
        with pytest.raises(JobDefinitionError, match=r"parameters_schema\.n"):
            type("Told", (Greetings,), {"parameters_schema": {"n": {"type": "str", **entry}}})
    with pytest.raises(JobDefinitionError, match="parameter names"):
        type("Told", (Greetings,), {"parameters_schema": {"\ud800": {"type": "str"}}})


def test_description_of_none_is_refused():
    with pytest.raises(
        JobDefinitionError, match="description: expected str without NUL and lone surrogates, found None"
    ):
        type("Told", (Greetings,), {"description": None})


def test_class_without_stages_is_refused():
    with pytest.raises(JobDefinitionError, match="at least one stage"):
        type("Empty", (Greetings,), {"stages": []})
