"""Limits as they are declared: their numbers, and names that parameters of the job are in."""

import pytest
from pydantic import BaseModel, create_model

from core.advancing.submission import Submitter
from core.errors import InvalidParameters
from core.models.definition import JobDefinition, StageDefinition
from core.models.limit import Limit, Rate, filled_in
from core.models.submission import SubmitRequest
from core.orchestration_manager import AppRole
from coremachine import Job, JobDefinitionError, Stage
from jobs.registry import Handler, Registry


def stage(*limits, **settings):
    return StageDefinition.model_validate(
        {"number": 1, "name": "s", "task_type": "t", "parallelism": "single", "limits": list(limits)} | settings
    )


def job_class(*limits, schema=None):
    return type(
        "LimitedJob",
        (Job,),
        {
            "job_type": "limited",
            "parameters_schema": schema if schema is not None else {"server": {"type": "str", "required": False}},
            "stages": [Stage("fetch", limits=list(limits))],
        },
    )


def test_a_name_alone_an_object_and_a_mapping_are_limits():
    found = stage("a", Limit(name="b", at_once=4), {"name": "c", "rate": "100/min"}).limits
    assert [limit.name for limit in found] == ["a", "b", "c"]
    assert found[2].rate == Rate(count=100, seconds=60)
    again = StageDefinition.model_validate(stage("a", {"name": "c", "rate": "100/min"}).model_dump(mode="json"))
    assert again.limits[1].rate == Rate(count=100, seconds=60)


@pytest.mark.parametrize(
    "limit",
    [
        {"name": "a", "rate": "fast"},
        {"name": "a", "rate": "1/0s"},
        {"name": "a", "rate": "1/40day"},
        {"name": "a", "at_once": -1},
        {"name": ""},
        {"name": "a\nb"},
        {"name": " a"},
        {"name": "x" * 201},
        {"name": "a", "most": 4},
        4,
    ],
)
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(ValueError, match="limits"):
        stage(limit)


def test_a_stage_names_a_limit_once_and_no_more_than_eight():
    with pytest.raises(ValueError, match="expected each name once, found a twice"):
        stage("a", {"name": "a", "at_once": 1})
    with pytest.raises(ValueError, match="at most 8"):
        stage(*(f"n{number}" for number in range(9)))


@pytest.mark.parametrize("text", ["10/s", "5/30s", "100/min", "7/90s", "1000/h", "3/2day"])
def test_a_rate_is_written_as_it_is_read(text):
    assert str(Rate.model_validate(Rate.read(text))) == text


@pytest.mark.parametrize("value", [5, True, ["1/s"], "many"], ids=repr)
def test_what_is_no_rate_is_told_how_one_is_written(value):
    """A number was told to be an object."""
    with pytest.raises(ValueError, match="expected a rate such as '100/min'"):
        Rate.read(value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("license:{params.host}", "expected a parameter that is a text or an integer, found no parameter named 'host'"),
        ("license:{params.servr}", "no parameter named 'servr'; did you mean 'server'"),
        ("license:{server}", "only in places such as"),
        ("license:{params.server", "only in places such as"),
    ],
)
def test_a_place_that_no_parameter_fills_is_reported_when_the_class_is_made(name, problem):
    with pytest.raises(JobDefinitionError, match=problem):
        job_class(name)


class Open(BaseModel, extra="allow"):
    server: str


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({}, "no parameter named 'server'; declare it in parameters_schema"),
        ({"server": {"type": "list", "default": []}}, "'server' of type list"),
        ({"server": {"type": "float", "default": 1.5}}, "'server' of type float"),
        (create_model("Model", host=(str, "a")), "no parameter named 'server'"),
    ],
)
def test_a_limit_whose_every_submission_would_be_refused_is_refused_with_the_class(schema, problem):
    with pytest.raises(JobDefinitionError, match=problem):
        job_class("license:{params.server}", schema=schema)


@pytest.mark.parametrize(
    "schema", [{"server": {"type": "int", "default": 1}}, create_model("Model", server=(str, "a")), Open]
)
def test_a_limit_that_a_parameter_can_name_is_taken(schema):
    assert job_class("license:{params.server}", schema=schema).stages
    assert schema is not Open or job_class("license:{params.more}", schema=schema).stages


def test_own_validation_may_make_the_parameter_that_names_a_limit():
    class OwnJob(Job):
        job_type = "own"
        stages = (Stage("fetch", limits=["license:{params.server}"]),)

        @classmethod
        def validate_job_parameters(cls, params):
            return {**params, "server": "north"}

    assert OwnJob.stages


@pytest.mark.parametrize(
    ("server", "problem"),
    [
        (None, "parameters.server: expected a text or an integer, .* found nothing"),
        ("", "found nothing"),
        (["a"], "found list"),
        (True, "found bool"),
        ("a\nb", "printable characters"),
        ("x" * 200, "at most 200 characters"),
    ],
)
def test_a_parameter_that_makes_no_name_is_refused(server, problem):
    with pytest.raises(InvalidParameters, match=problem):
        filled_in(Limit(name="license:{params.server}"), {"server": server})


def test_names_that_become_the_same_are_refused():
    definition = JobDefinition(job_type="j", stages=(stage("l:{params.a}", "l:{params.b}"),))
    assert definition.with_limit_names({"a": 1, "b": 2}).stages[0].limit_names == ("l:1", "l:2")
    with pytest.raises(InvalidParameters, match="each name once"):
        definition.with_limit_names({"a": 1, "b": 1})


class Kept:
    """A state that keeps what it is given to write."""

    def submit_jobs(self, wishes):
        raise NotImplementedError

    def submit_job(self, job, **_):
        self.job = job
        raise InterruptedError


def submit(parameters):
    registry = Registry(
        [job_class({"name": "license:{params.server}", "at_once": 2})],
        [Handler("fetch", lambda *_: {}, queue="tasks")],
        queues=["tasks"],
    )
    state = Kept()
    orchestration = type("Orchestration", (), {"role": AppRole()})()
    with pytest.raises(InterruptedError):
        Submitter(registry, state, orchestration).submit(SubmitRequest("limited", parameters))
    return state.job


def test_the_snapshot_of_a_job_has_names_with_its_parameters():
    (declared,) = submit({"server": "north/{1}"}).definition["stages"][0]["limits"]
    assert declared == {"name": "license:north/{1}", "at_once": 2}
    with pytest.raises(InvalidParameters, match="found nothing"):
        submit({})


@pytest.mark.parametrize("limit", [{"name": "a", "rate": "fast"}, {"name": ""}])
def test_a_limit_that_is_refused_is_the_only_problem(limit):
    """Of a tuple without its only item pydantic says that it is too short, too."""
    with pytest.raises(JobDefinitionError) as refused:
        Registry([job_class(limit)], [], ["tasks"])
    assert "limits.0" in str(refused.value)
    assert "at least 1 item" not in str(refused.value)


def test_no_limits_where_there_must_be_one_is_a_problem():
    with pytest.raises(JobDefinitionError, match=r"limits: .* at least 1 item"):
        Registry([job_class()], [], ["tasks"])
