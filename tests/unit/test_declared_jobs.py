"""Jobs that are mostly declared: stages as objects, the defaults of `Job`, marked and typed handlers."""

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Generic, Literal, NewType, Optional, TypeVar

import pytest
from pydantic import BaseModel, Field

from core.context import TaskContext
from core.errors import PermanentTaskError
from core.fan_in import FanInResults
from core.models import StageDefinition, TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext, StageSummary
from core.models.definition import FailurePolicy, RetryPolicy
from jobs.base import JobBase, JobDefinitionError, is_job_class
from jobs.handlers import find_marked, handler
from jobs.job import Job
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry
from jobs.stages import Stage
from jobs.typed import InvalidTaskParameters

T = TypeVar("T")


class Thumbnails(Job):
    job_type = "thumbnails"
    stages: ClassVar = [Stage("list"), Stage("resize", over="names"), Stage("collect", "fan_in")]

    @handler("list")
    @staticmethod
    def list_files(params, context):
        return {"names": ["a"]}

    @staticmethod
    @handler("resize", queue="raster")
    def resize(params, context):
        return {}


@handler("collect")
def collect(params, context):
    return {}


def stage(**declared):
    return StageDefinition.model_validate({"number": 1, "name": "s", "task_type": "t", **declared})


def job_of(*stages, **attributes):
    return type("Made", (Job,), {"job_type": "made", "stages": list(stages), **attributes})


def plan_one(stage, job_params, job_id, previous_results):
    return [TaskDefinition(name="x")]


def problems_of(*stages, **attributes):
    with pytest.raises(JobDefinitionError) as refused:
        job_of(*stages, **attributes)
    return "\n".join(refused.value.problems)


def test_what_a_stage_leaves_out_follows_from_its_place_and_name():
    described = [
        (each.number, each.name, each.task_type, each.parallelism, each.over) for each in Thumbnails.definition().stages
    ]
    assert described == [
        (1, "list", "list", "single", None),
        (2, "resize", "resize", "fan_out", "names"),
        (3, "collect", "collect", "fan_in", None),
    ]


def test_stage_objects_have_every_key_of_a_stage():
    assert set(Stage.__dataclass_fields__) - {"_"} == set(StageDefinition.model_fields)


def test_a_stage_object_is_the_same_as_its_dict():
    values = {
        "number": 1,
        "name": "a",
        "task_type": "t",
        "parallelism": "single",
        "retry": {"max_attempts": 2},
        "failure": {"on_failure": "continue"},
        "tasks_per_message": 3,
        "lease_seconds": 30,
        "timeout_seconds": 60,
    }
    assert job_of(Stage(**values)).definition() == job_of(values).definition()
    assert job_of(Stage("a", retry=RetryPolicy(max_attempts=2))).definition().stages[0].retry.max_attempts == 2


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("continue", {"on_failure": "continue"}),
        ({"max_failed_percent": 20}, {"on_failure": "tolerate", "max_failed_percent": 20}),
        (
            {"max_failed": 3, "max_failed_percent": 20},
            {"on_failure": "tolerate", "max_failed": 3, "max_failed_percent": 20},
        ),
        (FailurePolicy(on_failure="continue"), {"on_failure": "continue"}),
    ],
    ids=repr,
)
def test_failure_policies_may_be_short(short, whole):
    assert job_of(Stage("a", failure=short)).definition().stages[0].failure == FailurePolicy(**whole)


@pytest.mark.parametrize("wrong", ["tolerate", "stop", {"on_failure": "continue", "max_failed": 1}, 3], ids=repr)
def test_failure_policies_that_mean_nothing_are_refused(wrong):
    assert "stages[0].failure" in problems_of(Stage("a", failure=wrong))


def test_the_first_stage_may_go_over_a_parameter():
    schema = {"urls": {"type": "list", "required": True}}
    (first,) = job_of(Stage("fetch", over="urls"), parameters_schema=schema).definition().stages
    assert (first.parallelism, first.over) == ("single", "urls")


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([Stage("a", "fan_out")], "stages[0].parallelism: the first stage has no earlier results"),
        ([Stage("a", "fan_in")], "stages[0].parallelism: the first stage has no earlier results"),
        ([Stage("a", "parallel")], "stages[0].parallelism"),
        ([Stage("a"), Stage("b", "fan_in", over="x")], "over goes with fan_out or single"),
        ([Stage("a"), Stage("b", name_from="x")], "name_from goes with over"),
        ([Stage("a"), Stage("b", over="")], "stages[1].over"),
        ([Stage("a", number=2)], "stages[0].number: expected 1"),
        ([Stage(""), "b"], "stages[1]: "),
        (
            [Stage("a"), Stage("b", "fan_out")],
            "create_tasks_for_stage is missing: stages[1] is fan_out; name in `over`",
        ),
        ([Stage("a", retry={"never": ["a b"]})], "stages[0].retry.never.0"),
        ([Stage("a", retry={"never": []})], "stages[0].retry.never"),
        ([Stage("a", retry={"never": ["X"], "always": ["X"]})], "in never or in always, found X in both"),
    ],
    ids=repr,
)
def test_wrong_declarations_are_refused_when_the_class_is_made(stages, problem):
    assert problem in problems_of(*stages)


def test_a_planner_that_nobody_would_call_is_refused():
    assert "would never be called" in problems_of(
        Stage("a", over="urls"), create_tasks_for_stage=staticmethod(plan_one)
    )


def test_a_stage_before_a_planned_one_still_comes_from_the_planner():
    made = job_of(
        Stage("a"),
        Stage("b", "fan_out"),
        create_tasks_for_stage=staticmethod(plan_one),
    )
    assert [task.name for task in made.create_tasks_for_stage(1, {}, "", ())] == ["x"]


def test_job_itself_is_no_job_and_the_old_bases_still_need_both_methods():
    assert not is_job_class(Job)
    assert is_job_class(Thumbnails)
    with pytest.raises(JobDefinitionError, match="method finalize_job is missing"):

        class Old(JobBaseMixin, JobBase):
            job_type = "old"
            stages: ClassVar = [Stage("a")]


@pytest.mark.parametrize(
    ("last", "result"), [((1, 0), {"total": 3}), ((2, 0), None), ((1, 1), None), ((0, 0), None)], ids=repr
)
def test_the_default_summary_has_counts_and_the_only_result_of_the_last_stage(last, result):
    context = JobExecutionContext(
        job_id="j",
        job_type="thumbnails",
        parameters={},
        stages=(StageSummary(1, "completed", 1, 0), StageSummary(2, "completed", 5, 2), StageSummary(3, "x", *last)),
        results=lambda stage: iter([CompletedTask("t", 0, None, {}, {"total": stage})]),
    )
    assert Thumbnails.finalize_job(context) == {
        "stages": [
            {"name": "list", "completed": 1, "failed": 0},
            {"name": "resize", "completed": 5, "failed": 2},
            {"name": "collect", "completed": last[0], "failed": last[1]},
        ],
        "result": result,
    }


def test_marked_handlers_are_found_in_the_class_and_its_module():
    registry = Registry([Thumbnails], [], ["tasks", "raster"])
    found = {name: registry.find_handler(name) for name in ("list", "resize", "collect")}
    assert {name: (entry.function, entry.queue) for name, entry in found.items()} == {
        "list": (Thumbnails.list_files, "tasks"),
        "resize": (Thumbnails.resize, "raster"),
        "collect": (collect, "tasks"),
    }


def test_handlers_of_two_jobs_of_a_module_are_found_once():
    other = type("Other", (Thumbnails,), {"job_type": "other", "__module__": __name__})
    assert Registry([Thumbnails, other], [], ["tasks", "raster"]).job_types == ("other", "thumbnails")
    assert [mark.task_type for _, mark in find_marked(other)] == ["list", "resize", "collect"]


def test_two_handlers_of_a_task_type_are_refused():
    with pytest.raises(JobDefinitionError, match=r"task type 'collect' has two handlers"):
        Registry([Thumbnails], [Handler("collect", lambda _p, _c: {}, "tasks")], ["tasks", "raster"])
    assert Registry([Thumbnails], [Handler("collect", collect, "tasks")], ["tasks", "raster"])


def test_tests_may_replace_a_handler():
    mine = Handler("collect", lambda _p, _c: {"mine": True}, "tasks")
    registry = Registry([Thumbnails], [], ["tasks", "raster"], instead=[mine])
    assert registry.find_handler("collect") == mine


def test_a_module_may_hold_anything(monkeypatch):
    class Odd:
        __slots__ = ()

        def __getattr__(self, name):
            raise RuntimeError(name)

    monkeypatch.setitem(globals(), "odd", Odd())
    assert [mark.task_type for _, mark in find_marked(Thumbnails)] == ["list", "resize", "collect"]


@pytest.mark.parametrize("wrong", [lambda: handler(collect), lambda: handler("x")(len)], ids=["no_type", "builtin"])
def test_what_cannot_be_marked_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^handler"):
        wrong()


class Item(BaseModel):
    name: str
    day: date
    size: int = Field(1, ge=1)


@dataclass
class Place:
    x: float
    day: date


def called(function, params):
    """What a handler returns for a task's parameters, as the engine calls it."""
    registry = Registry([], [Handler("t", function, "tasks")], ["tasks"])
    context = TaskContext("j", "t", 1, "s1", 0, 1, {})
    return registry.find_handler("t").function(params, context)


def test_parameters_are_validated_into_a_model_or_a_dataclass():
    def of_model(item: Item, context: TaskContext) -> dict[str, Any]:
        return {"item": item}

    def of_dataclass(place: Place, context):
        return {"place": place}

    params = {"name": "a", "day": "2026-01-31"}
    assert called(of_model, params) == {"item": Item(name="a", day=date(2026, 1, 31), size=1)}
    assert called(of_dataclass, {"x": 1, "day": "2026-01-31"}) == {"place": Place(1.0, date(2026, 1, 31))}


def test_parameters_that_do_not_fit_fail_the_task_for_good():
    def of_model(item: Item, context):
        raise AssertionError("it must not be called")

    with pytest.raises(PermanentTaskError) as refused:
        called(of_model, {"name": 7, "day": "2026-01-31", "size": 0})
    assert str(refused.value).splitlines() == [
        "parameters of the task, as Item:",
        "name: expected str, found int 7",
        "size: expected at least 1, found int 0",
    ]


def test_annotations_as_texts_and_behind_decorators_are_read():
    def of_text(item: "Item", context: "TaskContext"):
        return {"name": item.name}

    @functools.wraps(of_text)
    def wrapped(*args, **kwargs):
        return of_text(*args, **kwargs)

    assert called(of_text, {"name": "a", "day": "2026-01-31"}) == {"name": "a"}
    assert called(wrapped, {"name": "a", "day": "2026-01-31"}) == {"name": "a"}


@pytest.mark.parametrize(
    "annotation",
    [dict, dict[str, Any], Mapping[str, Any], Any, object, None, "dict[str, Missing]", "t.Mapping[str, X]"],
)
def test_mappings_stay_as_they_are(annotation):
    def plain(params, context):
        return params

    if annotation is not None:
        plain.__annotations__["params"] = annotation
    params = {"n": 1}
    assert called(plain, params) is params


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (int, "a pydantic model, a dataclass, a union of them or FanInResults, found <class 'int'>"),
        (list[str], "found list[str]"),
        (Optional[Item], "Item"),  # noqa: UP045 - another class than that of `|`, up to Python 3.13
        ("Item | None", "Item | None"),
        (Item | dict[str, Any], "dict[str, typing.Any]"),
        (Literal["a"], "Literal['a']"),
        (TypeVar("T"), "~T"),
        ("Missing", "import the class outside of `if TYPE_CHECKING`"),
    ],
    ids=repr,
)
def test_annotations_of_which_nothing_can_be_made_are_refused(annotation, problem):
    def wrong(params, context):
        return params

    wrong.__annotations__["params"] = annotation
    with pytest.raises(JobDefinitionError) as refused:
        called(wrong, {})
    assert problem in str(refused.value)


class Listed(BaseModel):
    urls: list[str]


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"urls": {"type": "list"}}, None),
        (
            {"url": {"type": "list"}},
            "stages[0].over: expected a parameter that is a list, found no parameter named",
        ),
        ({"urls": {"type": "str"}}, "stages[0].over: expected a parameter that is a list, found 'urls' of type str"),
        ({}, "found no parameter named 'urls'; declare it in parameters_schema"),
        (Listed, None),
        (Item, "found no parameter named 'urls'"),
    ],
    ids=repr,
)
def test_list_that_a_stage_is_made_over_is_declared(schema, problem):
    """Every job failed at its first stage otherwise."""
    attributes = {"job_type": "listed", "stages": [Stage("each", over="urls")], "parameters_schema": schema}
    if problem is None:
        assert is_job_class(type("Fits", (Job,), attributes))
        return
    with pytest.raises(JobDefinitionError) as refused:
        type("Unfit", (Job,), attributes)
    assert problem in str(refused.value)


@dataclass(frozen=True)
class Boxed(Generic[T]):
    name: T


@pytest.mark.parametrize(
    ("annotation", "params", "expected"),
    [
        (Item | Boxed[int], {"name": 3}, Boxed(3)),
        ("Item | Boxed[int]", {"name": 3}, Boxed(3)),
        (Annotated[Boxed[int], "documented"], {"name": 3}, Boxed(3)),
        (NewType("Known", Boxed), {"name": 3}, Boxed(3)),
    ],
    ids=repr,
)
def test_what_stands_for_models_is_validated_into_them(annotation, params, expected):
    def of_it(params, context):
        return params

    of_it.__annotations__["params"] = annotation
    assert called(of_it, params) == expected


def test_the_arguments_of_a_generic_class_count():
    def of_box(params: Boxed[int], context: "TaskContext"):
        return {}

    with pytest.raises(InvalidTaskParameters, match="name: expected int, found str 'a'"):
        called(of_box, {"name": "a"})


def test_fan_in_results_are_loaded():
    def of_results(results: FanInResults, context):
        return results

    source = {"fan_in_source": {"job_id": "0" * 64, "run": 1, "stage": 2, "expected_count": 3}}
    from core.fan_in import fan_in_reader

    with fan_in_reader(types.SimpleNamespace()):
        assert called(of_results, source).expected_count == 3


def test_retry_rules_name_classes():
    assert RetryPolicy(never=["PIL.UnidentifiedImageError"], always=("ValueError",)).always == ("ValueError",)
    with pytest.raises(ValueError, match="the name of an exception class, such as"):
        RetryPolicy(never=["no-class"])


def test_snapshots_of_jobs_without_the_new_keys_have_none_of_them():
    """A release that does not know them reads what it always read."""
    document = job_of({"number": 1, "name": "a", "task_type": "t", "parallelism": "single"})
    record = document.create_job_record("0" * 64, {}, correlation_id="c")
    stored = record.definition["stages"][0]
    assert not {"over", "name_from"} & set(stored)
    assert not {"never", "always"} & set(stored["retry"])


def test_an_isolated_handler_with_typed_parameters_is_bound_in_its_process():
    from tests.integration.isolation import handlers

    registry = Registry([], [Handler("t", handlers.typed, "tasks", isolation="process")], ["tasks"])
    function = registry.find_handler("t").function
    assert function._target.startswith("jobs.typed:with_types(")
    # `coremachine run-task` calls it in its own process.
    context = TaskContext("j", "t", 1, "s1", 0, 1, {})
    assert function.in_this_process()({"number": 3, "day": "2026-01-31"}, context)["type"] == "Tile"


def test_the_decorator_takes_what_a_handler_takes():
    options = set(Handler.__dataclass_fields__) - {"task_type", "function"}
    assert set(next(find_marked(Thumbnails))[1].options) == options
