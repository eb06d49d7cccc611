"""Names in a task's parameters that the type of its handler's parameters does not have."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NewType

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel, model_validator

from core.errors import AuthorError
from core.models import JobRecord, StageDefinition, TaskDefinition
from core.orchestration_manager import AppRole, OrchestrationManager
from jobs.job import Job
from jobs.known_names import name_check
from jobs.registry import Handler, Registry
from jobs.stages import Stage
from jobs.typed import InvalidTaskParameters, with_types


class Band(BaseModel):
    number: int = 1
    scale: float = Field(1.0, validation_alias=AliasChoices("factor", AliasPath("factors", 0)))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    band: Band = Band()


class Ready(BaseModel):
    size: int = 1

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, values):
        return {"size": values.pop("width", 1)}


class Listed(RootModel[list[Band]]):
    pass


@dataclass
class Box:
    west: float = 0.0
    known: ClassVar[int] = 3
    made: int = field(init=False, default=0)


class Tile(BaseModel):
    zoom: int = 3
    bands: list[Band] = []
    box: Box | None = None
    by_name: dict[str, Band] = {}
    of_two: Band | Box | str = "x"
    free: dict[str, Any] = {}
    part: "Tile | None" = None


REFUSED = [
    ({"zom": 9}, "zom", "did you mean 'zoom'?"),
    ({"bands": [{}, {"numbr": 2}]}, "bands[1].numbr", "did you mean 'number'?"),
    ({"box": {"wst": 1.0}}, "box.wst", "did you mean 'west'?"),
    ({"box": {"made": 1}}, "box.made", "known names: west"),
    ({"by_name": {"a": {"numbr": 2}}}, "by_name.a.numbr", "did you mean 'number'?"),
    ({"of_two": {"sth": 2}}, "of_two.sth", ""),
    ({"part": {"part": {"zom": 1}}}, "part.part.zom", "did you mean 'zoom'?"),
]


@pytest.mark.parametrize(("parameters", "path", "hint"), REFUSED, ids=[path for _, path, _ in REFUSED])
def test_a_name_that_the_type_does_not_have_is_found_with_its_path(parameters, path, hint):
    problem = name_check(Tile)(parameters, "")
    assert problem.field == path
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("kind", "parameters", "hint"),
    [
        (Tile, {"zom": 1}, "did you mean 'zoom'? Tile may take others: model_config = ConfigDict(extra='ignore')"),
        # It read as if one of the names was "west Box may take", with the setting of a model.
        (Box, {"x": 1}, "known names: west. Box may take others: __pydantic_config__ = ConfigDict(extra='ignore')"),
    ],
)
def test_the_hint_is_of_whole_sentences_and_of_the_kind_of_class(kind, parameters, hint):
    assert name_check(kind)(parameters, "").hint == hint


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (
            Tile,
            {"zoom": 1, "bands": [{"number": 1, "factor": 2.0, "factors": [1], "scale": 1}], "free": {"x": {"y": 1}}},
        ),
        (Tile, {"of_two": {"west": 1.0}}),
        (Tile, {"of_two": "text", "box": None, "bands": "not a list"}),
        (Annotated[NewType("Known", Tile), "said"], {"zoom": 1}),
        (Tile | Literal["none"], {"zoom": 1}),
        (Open, {"anything": 1}),
        (Ready, {"width": 4}),
        (Listed, [{"numbr": 1}]),
        (dict[str, Any], {"x": 1}),
        (Any, {"x": 1}),
        (Tile | dict[str, Any], {"x": 1}),
    ],
    ids=repr,
)
def test_what_the_type_takes_is_not_refused(kind, parameters):
    check = name_check(kind)
    assert check is None or check(parameters, "") is None


def tile(params: Tile, context):
    return {}


class Tiles(Job):
    job_type = "tiles"
    stages: ClassVar = [Stage("tile")]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results):
        yield TaskDefinition(parameters={"zoom": 1})
        yield TaskDefinition(parameters={"zom": 9})


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_misspelt_name_fails_the_plan_and_not_in_silence(isolation):
    registry = Registry([Tiles], [Handler("tile", tile, "tasks", isolation=isolation)], ["tasks"])
    manager = OrchestrationManager(registry, sender=None, role=AppRole())
    stage = StageDefinition(number=1, name="tile", task_type="tile", parallelism="single")
    job = JobRecord(job_id="0" * 64, job_type="tiles", total_stages=1, definition={}, correlation_id="c")
    rows = manager.tasks_of_stage(job, stage, (), previous_count=0)
    with pytest.raises(AuthorError) as refused:
        list(rows)
    message = refused.value.failure.message
    assert "task 1: parameters.zom: expected a known name, found unknown name 'zom'; did you mean 'zoom'?" in message
    assert "extra='ignore'" in message


def test_a_task_that_was_planned_elsewhere_is_refused_before_its_handler_is_called():
    with pytest.raises(InvalidTaskParameters, match="zom: expected a known name"):
        with_types(tile)({"zom": 9}, None)
