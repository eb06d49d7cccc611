"""Parameters that a pydantic model declares: the rules of a `parameters_schema`, with dates, enums and models."""

from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, model_validator

from jobs.base import JobDefinitionError
from jobs.job import Job
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
        (GOOD | {"label": ""}, "label: expected a length of at least 1, found length 0"),
        (GOOD | {"label": "abcdef"}, "label: expected a length of at most 5, found length 6"),
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


class Tree(BaseModel):
    children: "list[Tree]" = []


class Aliased(BaseModel):
    n: int = Field(1, alias="N")


class Computed(BaseModel):
    @computed_field
    @property
    def n(self) -> int:
        return 1


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
        (int, "p: expected a dict of entries by parameter name or a pydantic model, found"),
    ],
    ids=["recursive", "alias", "computed", "opaque", "root", "no_model"],
)
def test_models_that_cannot_declare_parameters_are_refused(model, problem):
    (found,) = check_schema(model, "p")
    assert problem in found
    with pytest.raises(JobDefinitionError, match="parameters_schema"):
        type("Refused", (WantedJob,), {"parameters_schema": model})
