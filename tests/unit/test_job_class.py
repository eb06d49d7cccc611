"""What a job class answers is looked at before anything is written, and refused with a reason."""

import dataclasses
from collections import ChainMap, OrderedDict, UserDict
from types import MappingProxyType, SimpleNamespace

import pytest
from pydantic import BaseModel

from core.authors.job_class import draft_job, first_message, validate
from core.errors import AuthorError, InvalidParameters
from core.models import JobQueueMessage, JobRecord
from core.models.submission import SubmissionOutcome, Submitted
from jobs.hello_world import HelloWorldJob
from jobs.parameters import ParameterError, ParameterErrors

PARAMETERS = HelloWorldJob.validate_job_parameters({"n": 2})
JOB_ID = HelloWorldJob.generate_job_id(PARAMETERS)
RECORD = HelloWorldJob.create_job_record(JOB_ID, PARAMETERS, correlation_id="c")
MESSAGE = HelloWorldJob.queue_job(JOB_ID, PARAMETERS, correlation_id="c")
SUBMITTED = Submitted(SubmissionOutcome.CREATED, JOB_ID, "queued", 3, "c", True)


class Evil:
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class EvilRefusal(InvalidParameters):
    def __str__(self):
        raise SystemExit(1)


class Unfinished(ParameterErrors):
    def __init__(self):
        pass


class Computed(ParameterErrors):
    @property
    def errors(self):
        raise RuntimeError("no errors")

    @errors.setter
    def errors(self, _):
        pass


def job_that(**methods):
    names = ("validate_job_parameters", "generate_job_id", "create_job_record", "queue_job")
    return SimpleNamespace(**{name: getattr(HelloWorldJob, name) for name in names} | methods)


def drafted(job):
    return draft_job(job, "hello_world", {"n": 2}, 10_000, "c")


def refused_by(make_error):
    def validator(_):
        raise make_error()

    with pytest.raises(InvalidParameters) as refused:
        validate(job_that(validate_job_parameters=validator), "hello_world", {}, 1000)
    return refused.value


@pytest.mark.parametrize(
    ("make_error", "said"),
    [
        (lambda: InvalidParameters("tile: no such tile"), "tile: no such tile"),
        (lambda: InvalidParameters("a\x00b\ud800"), "a\N{REPLACEMENT CHARACTER}b?"),
        (lambda: InvalidParameters("x" * 20_000_000), "[cut here: 20,000,000 characters in all]"),
        (InvalidParameters, "InvalidParameters"),
        (EvilRefusal, "whose text cannot be read"),
        (Unfinished, "Unfinished"),
        (lambda: Computed([]), "Computed"),
        (lambda: ParameterErrors([]), "ParameterErrors"),
        (lambda: ParameterErrors(["n is odd", None, Evil()]), "found n is odd"),
        (
            lambda: ParameterErrors([ParameterError(1, None, Evil(), Evil())]),
            "1: expected None, found <Evil whose text",
        ),
        (lambda: ParameterErrors([ParameterError("n", "x" * 20_000_000, "1")]), "n: expected xxx"),
        (
            lambda: ParameterErrors([ParameterError("n\x00", "int", "1", hint="\ud800")] * 50, more="many"),
            "and 30 more",
        ),
    ],
)
def test_refusal_of_a_validator_is_bounded_plain_text(make_error, said):
    refusal = refused_by(make_error)

    assert type(refusal) in {InvalidParameters, ParameterErrors}
    assert said in str(refusal)
    assert len(str(refusal).encode()) < 100_000
    for error in getattr(refusal, "errors", ()):
        parts = [error.field, error.expected, error.found, *([error.hint] if error.hint is not None else [])]
        assert all(type(part) is str and "\x00" not in part for part in parts)


def test_problems_of_a_refusal_stay_apart():
    refusal = refused_by(
        lambda: ParameterErrors([ParameterError("n", "int", "1", "hint"), ParameterError("m", "b", "c")])
    )

    assert [error.field for error in refusal.errors] == ["n", "m"]
    assert str(refusal) == "n: expected int, found 1; hint\nm: expected b, found c"


class Liar(dict):
    def items(self):
        return [("n", "\x00")]


def test_validated_parameters_are_the_engines_own():
    validated = validate(job_that(validate_job_parameters=lambda _: OrderedDict(n=1)), "x", {}, 1000)

    assert (validated, type(validated)) == ({"n": 1}, dict)


def test_validated_parameters_that_say_what_cannot_be_stored_are_refused():
    with pytest.raises(AuthorError, match=r"parameters\.n: expected text without NUL"):
        validate(job_that(validate_job_parameters=lambda _: Liar(n=1)), "x", {}, 1000)


@dataclasses.dataclass
class Settings:
    n: int = 1


class Model(BaseModel):
    n: int = 1


@pytest.mark.parametrize("made", [MappingProxyType({"n": 1}), UserDict(n=1), ChainMap({"n": 1}), OrderedDict(n=1)])
def test_any_mapping_is_taken_for_parameters(made):
    assert validate(job_that(validate_job_parameters=lambda _: made), "x", {}, 1000) == {"n": 1}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Settings(), "found Settings Settings(n=1); return dataclasses.asdict(...) of it"),
        (Model(), "found Model Model(n=1); return its .model_dump(mode='json')"),
        ([("n", 1)], "found list [('n', 1)]"),
        (None, "found NoneType None"),
    ],
)
def test_other_parameters_are_refused_with_the_way_to_a_dict(made, said):
    with pytest.raises(AuthorError) as refused:
        validate(job_that(validate_job_parameters=lambda _: made), "x", {}, 1000)
    assert f"expected it to return a dict, {said}" in str(refused.value)


def changed(**fields):
    return RECORD.model_copy(update=fields)


STAGES = RECORD.definition["stages"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "expected it to return a JobRecord, found NoneType None"),
        ({}, "expected it to return a JobRecord, found dict"),
        (JobRecord.model_construct(), "AttributeError|no attribute"),
        (changed(job_id="0" * 64), f"job_id: expected '{JOB_ID}', found '000"),
        (changed(job_id=None), "job_id: expected "),
        (changed(job_type="other"), "job_type: expected 'hello_world', found 'other'"),
        (changed(run=2), "run: expected 1, found 2"),
        (changed(run=True), "run: expected 1, found True"),
        (changed(correlation_id="\ud800"), "correlation_id: expected 'c'"),
        (changed(total_stages=7), "total_stages: expected 2, found 7"),
        (changed(parameters={**PARAMETERS, "n": 3}), "parameters: expected the parameters that it was given"),
        (changed(parameters={**PARAMETERS, "n": 2.0}), "parameters: expected the parameters that it was given"),
        (changed(parameters={**PARAMETERS, "more": "x" * 2_000_000}), "parameters: expected the parameters"),
        (changed(parameters={"n": {1}}), "expected a JSON value, found set"),
        (changed(parameters=None), "parameters: expected the parameters that it was given"),
        (changed(definition={}), "job_type"),
        (changed(definition=None), "JobDefinition"),
        (changed(definition={**RECORD.definition, "job_type": "x"}), "definition: expected one of 'hello_world'"),
        (changed(definition={**RECORD.definition, "stages": STAGES[1:]}), "with stages numbered from 1"),
        (
            changed(definition={**RECORD.definition, "stages": [{**STAGES[0], "description": "\x00"}]}, total_stages=1),
            "text without NUL",
        ),
    ],
)
def test_record_that_is_not_this_jobs_is_refused(made, said):
    job = job_that(create_job_record=lambda *_, **__: made)

    with pytest.raises(AuthorError, match=f"(?s){said}") as told:
        drafted(job)
    assert len(str(told.value)) < 100_000


def test_record_is_written_as_its_class_made_it():
    in_another_order = changed(parameters=dict(reversed(PARAMETERS.items())))
    for made in (RECORD, in_another_order):
        job = job_that(create_job_record=lambda *_, made=made, **__: made)
        assert drafted(job).record == RECORD


@pytest.mark.parametrize("job_id", [None, "", "x", "A" * 64, "a" * 65, 7, Evil()])
def test_job_id_that_is_none_is_refused(job_id):
    with pytest.raises(
        AuthorError, match="generate_job_id of 'hello_world': expected 64 hexadecimal digits in lower case, found"
    ):
        drafted(job_that(generate_job_id=lambda _: job_id))


def test_what_a_class_changes_in_the_parameters_it_is_given_changes_nothing():
    def generate(params):
        params["n"] = 99
        return JOB_ID

    assert drafted(job_that(generate_job_id=generate)).record == RECORD


@pytest.mark.parametrize(
    "made",
    [
        None,
        {},
        "x",
        RECORD,
        MESSAGE.model_copy(update={"job_id": "0" * 64}),
        MESSAGE.model_copy(update={"job_type": "other"}),
        MESSAGE.model_copy(update={"stage": 2}),
        MESSAGE.model_copy(update={"attempt": 0}),
        MESSAGE.model_copy(update={"correlation_id": "\ud800"}),
        JobQueueMessage.model_construct(),
    ],
)
def test_message_that_is_not_this_jobs_is_not_sent(made):
    with pytest.raises(AuthorError):
        first_message(job_that(queue_job=lambda *_, **__: made), "hello_world", SUBMITTED, PARAMETERS)


def test_message_is_of_the_run_that_was_submitted():
    assert first_message(job_that(), "hello_world", SUBMITTED, PARAMETERS) == MESSAGE.model_copy(update={"run": 3})
