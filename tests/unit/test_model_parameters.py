"""Parameters that a pydantic model declares: the rules of a `parameters_schema`, with dates, enums and models."""

from datetime import date
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import jsonschema
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    DirectoryPath,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from core.errors import ContractViolationError
from jobs.base import JobDefinitionError
from jobs.job import Job
from jobs.model_parameters import validate_with_model
from jobs.parameter_schema import check_schema, to_json_schema
from jobs.parameters import ParameterErrors
from jobs.stages import Stage


class Kind(StrEnum):
    DEPTH = "depth"
    SPEED = "speed"


class Box(BaseModel):
    west: float = Field(ge=-180)
    east: float


class Wanted(BaseModel):
    since: date
    until: date | None = None
    kind: Kind = Kind.DEPTH
    boxes: list[Box] = []
    days: int = Field(3, ge=1, le=10, multiple_of=1, description="how many")
    label: str = Field("x", min_length=1, max_length=5, pattern="[a-z]+")
    mode: Literal["fast", "exact"] = "fast"
    source: Path = Path("in")

    @model_validator(mode="after")
    def _in_order(self):
        if self.until is not None and self.until < self.since:
            raise ValueError("until at or after since")
        return self


class WantedJob(Job):
    job_type = "wanted"
    stages: ClassVar = [Stage("one")]
    parameters_schema = Wanted
    parameters_outside_job_id = frozenset({"mode"})


GOOD = {"since": "2026-01-31"}


def messages(parameters):
    with pytest.raises(ParameterErrors) as refused:
        WantedJob.validate_job_parameters(parameters)
    return [error.message for error in refused.value.errors]


def test_values_are_stored_as_json_with_their_defaults():
    assert WantedJob.validate_job_parameters(GOOD | {"boxes": [{"west": 1, "east": 2}]}) == {
        "since": "2026-01-31",
        "until": None,
        "kind": "depth",
        "boxes": [{"west": 1.0, "east": 2.0}],
        "days": 3,
        "label": "x",
        "mode": "fast",
        "source": "in",
    }


def test_what_was_validated_is_valid_again_and_the_same_job():
    """A rerun validates the stored parameters again."""
    once = WantedJob.validate_job_parameters(GOOD | {"boxes": [{"west": 1, "east": 2}]})
    assert WantedJob.validate_job_parameters(once) == once
    other_mode = WantedJob.validate_job_parameters(once | {"mode": "exact"})
    assert WantedJob.generate_job_id(once) == WantedJob.generate_job_id(other_mode)
    assert WantedJob.generate_job_id(once) != WantedJob.generate_job_id(once | {"days": 4})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "since: expected a value, found nothing; this parameter is required"),
        ({"since": "soon"}, "since: expected a valid date in the format YYYY-MM-DD, found str 'soon'"),
        ({"since": 20260131}, "since: expected a valid date, found int 20260131"),
        (GOOD | {"days": "3"}, "days: expected int, found str '3'; write it without quotes"),
        (GOOD | {"days": True}, "days: expected int, found bool True; true and false are not numbers"),
        (GOOD | {"days": 0}, "days: expected at least 1, found int 0"),
        (GOOD | {"days": 11}, "days: expected at most 10, found int 11"),
        (GOOD | {"label": ""}, "label: expected at least 1 character, found 0"),
        (GOOD | {"label": "abcdef"}, "label: expected at most 5 characters, found 6"),
        (GOOD | {"label": "7"}, "label: expected text that matches '[a-z]+', found str '7'"),
        (GOOD | {"kind": "dept"}, "kind: expected one of depth, speed, found str 'dept'; did you mean 'depth'?"),
        (GOOD | {"mode": "exac"}, "mode: expected one of fast, exact, found str 'exac'; did you mean 'exact'?"),
        (GOOD | {"boxes": {}}, "boxes: expected list, found dict {}"),
        (GOOD | {"boxes": [{"west": 1}]}, "boxes[0].east: expected a value, found nothing; this parameter is required"),
        (GOOD | {"dayz": 3}, "dayz: expected a known name, found unknown name 'dayz'; did you mean 'days'?"),
        (
            GOOD | {"boxes": [{"west": 1, "east": 2, "weast": 3}]},
            "boxes[0].weast: expected a known name, found unknown name 'weast'; did you mean 'west'?",
        ),
    ],
    ids=repr,
)
def test_what_is_wrong_is_refused_as_a_declared_schema_does(parameters, message):
    assert messages(parameters) == [message]


def test_the_author_s_own_rule_is_reported_in_its_words():
    (message,) = messages({"since": "2026-02-01", "until": "2026-01-01"})
    assert message.startswith("Wanted: expected until at or after since, found ")


def test_all_problems_are_reported_at_once():
    assert len(messages({"days": 0, "label": "", "kid": 1})) == 4


def test_credentials_and_what_is_not_json_are_refused():
    (message,) = messages(GOOD | {"source": "https://u:secret@host/in"})
    assert "text without credentials" in message
    assert "secret" not in message
    (message,) = messages(GOOD | {"days": float("nan")})
    assert message.startswith("days: expected")


def test_json_schema_describes_what_is_accepted():
    schema = to_json_schema(Wanted)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$ref" not in repr(schema)
    assert schema["required"] == ["since"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["boxes"]["items"]["additionalProperties"] is False
    assert schema["properties"]["since"] == {"type": "string", "format": "date"}
    assert schema["properties"]["kind"] == {"type": "string", "enum": ["depth", "speed"], "default": "depth"}
    assert schema["properties"]["until"]["type"] == ["string", "null"]
    assert schema["properties"]["source"]["format"] == "path"  # `coremachine submit` makes it absolute
    assert schema["properties"]["days"]["description"] == "how many"
    for parameters in (GOOD, WantedJob.validate_job_parameters(GOOD)):
        jsonschema.validate(parameters, schema)


def test_a_field_may_be_called_as_a_keyword_is():
    class Titles(BaseModel):
        title: str = "x"
        properties: int = 1

    assert set(to_json_schema(Titles)["properties"]) == {"title", "properties"}


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: int = 0


class Pets(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: dict[str, Cat] = {}
    tags: set[str] = set()
    share: float = 0.5


class PetsJob(WantedJob):
    job_type = "pets"
    parameters_schema = Pets
    parameters_outside_job_id = frozenset()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "cow"}, "pet.kind: expected one of cat, dog, found str 'cow'"),
        ({}, "pet.kind: expected a value, found nothing"),
        ({"kind": "dog", "trick": 1}, "pet.dog.trick: expected a known name, found unknown name 'trick'; did you mean"),
        ({"kind": "dog", "lives": 1}, "found unknown name 'lives'; known names: kind, tricks"),
    ],
    ids=repr,
)
def test_what_is_wrong_in_a_member_of_a_union_is_named(parameters, message):
    with pytest.raises(ParameterErrors) as refused:
        PetsJob.validate_job_parameters({"pet": parameters})
    assert message in str(refused.value)


def test_names_below_a_key_are_known():
    with pytest.raises(ParameterErrors, match=r"others.tom.live: .* did you mean 'lives'"):
        PetsJob.validate_job_parameters({"pet": {"kind": "cat"}, "others": {"tom": {"kind": "cat", "live": 3}}})


def test_a_number_that_becomes_infinite_is_named():
    with pytest.raises(ParameterErrors, match=r"^share: expected a finite number, found float inf$"):
        PetsJob.validate_job_parameters({"pet": {"kind": "cat"}, "share": 10**400})


def test_a_set_is_kept_in_one_order():
    """That of a set of texts is another one in each process, and the job's id would be too."""
    tags = [f"t{number:02}" for number in range(50)]
    kept = PetsJob.validate_job_parameters({"pet": {"kind": "cat"}, "tags": tags[::-1]})
    assert kept["tags"] == tags


class Lower(BaseModel):
    model_config = ConfigDict(str_to_lower=True, extra="allow")
    name: str = "A"


def test_a_default_is_kept_as_it_will_be_read():
    job = type("LowerJob", (PetsJob,), {"parameters_schema": Lower})
    assert job.validate_job_parameters({}) == {"name": "a"}
    assert job.validate_job_parameters({"more": 1}) == {"name": "a", "more": 1}
    with pytest.raises(ParameterErrors, match="password: expected text without credentials"):
        job.validate_job_parameters({"password": "x1y2z3"})


class Growing(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _next(cls, n: int) -> int:
        return n + 1


class Written(BaseModel):
    n: int

    @field_serializer("n")
    def _text(self, n: int) -> str:
        return f"<{n}>"


class Placed(BaseModel):
    folder: DirectoryPath = Path("/nowhere")


@pytest.mark.parametrize(
    ("model", "error", "problem"),
    [
        (Growing, ContractViolationError, "Growing: n: expected the same value whenever it is read, found int"),
        (Written, ContractViolationError, "Written: expected it to read again what it writes; .* n: expected int"),
        (Placed, ParameterErrors, "folder: expected Path does not point to a directory"),
    ],
)
def test_what_would_be_read_as_another_value_is_not_kept(model, error, problem):
    """A handler makes the model of what was kept, and a rerun validates it."""
    job = type("ReadAgain", (PetsJob,), {"parameters_schema": model})
    with pytest.raises(error, match=problem):
        job.validate_job_parameters({"n": 3} if "n" in model.model_fields else {})


class Tree(BaseModel):
    children: "list[Tree]" = []


class Aliased(BaseModel):
    n: int = Field(1, alias="N")


class Computed(BaseModel):
    @computed_field
    @property
    def n(self) -> int:
        return 1


class Inner(BaseModel):
    n: int = Field(1, alias="N")


class Nested(BaseModel):
    inner: list[Inner] = []


class Left(BaseModel):
    n: int = Field(1, exclude=True)


class Hidden(BaseModel):
    keys: list[SecretStr]


class Wrong(BaseModel):
    n: int = Field(0, ge=1)


class Unkept(BaseModel):
    n: int = None


class Objects(Enum):
    ONE = object()


class Odd(BaseModel):
    n: Objects = Objects.ONE


class Opaque(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    lock: object = object()


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (Tree, "Tree contains itself; declare that parameter as dict"),
        (Aliased, "p.n: has an alias"),
        (Computed, "p.n: is computed"),
        (Opaque, "JSON Schema can describe, found Opaque"),
        (RootModel[int], "expected a model with named fields"),
        (BaseModel, "expected a model with named fields"),
        (Left, "Left.n: expected a name that is read and written, found it read alone"),
        (Hidden, "p.keys: expected a type that is kept and shown, found one for secrets"),
        (Wrong, "p.n: default: expected at least 1, found int 0"),
        (Unkept, "p.n: default: expected int, found null"),
        (Odd, "JSON Schema can describe, found Odd: PydanticSerializationError"),
        (int, "p: expected a dict of entries by parameter name or a pydantic model, found"),
    ],
    ids=[
        "recursive",
        "alias",
        "computed",
        "opaque",
        "root",
        "base",
        "excluded",
        "secret",
        "bound",
        "null",
        "enum",
        "no_model",
    ],
)
def test_models_that_cannot_declare_parameters_are_refused(model, problem):
    (found,) = check_schema(model, "p")
    assert problem in found
    with pytest.raises(JobDefinitionError, match="parameters_schema"):
        type("Refused", (WantedJob,), {"parameters_schema": model})


def test_an_alias_below_a_model_is_refused():
    assert [problem.partition(": expected")[0] for problem in check_schema(Nested, "p")] == ["p: Inner.N", "p: Inner.n"]


class Looked(BaseModel):
    zone: str = "a"
    size: int = 1

    @field_validator("zone")
    @classmethod
    def _known(cls, value):
        return {"a": "a"}[value]

    @model_validator(mode="after")
    def _fits(self):
        assert [0, 1][self.size] >= 0
        return self


@pytest.mark.parametrize(
    ("parameters", "field", "found"),
    [({"zone": "b"}, "zone", "KeyError: 'b'"), ({"size": 7}, "Looked", "IndexError: list index out of range")],
)
def test_whatever_a_validator_raises_refuses_the_value_that_it_looked_at(parameters, field, found, caplog):
    with pytest.raises(ParameterErrors) as refused:
        validate_with_model(Looked, parameters)
    (problem,) = refused.value.errors
    assert (problem.field, problem.found) == (field, found)
    assert caplog.records[0].getMessage() == "parameter_validator_failed"
