"""What a job's author declares: stages, parallelism, retries, failure policy. A job row keeps a snapshot of it."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from core.basics.cache import LatestCache
from core.basics.keywords import constructor_suggests_names
from core.errors import InvalidParameters, UnknownWork
from core.models.limit import MOST_PER_STAGE, DeclaredLimit, filled_in
from core.models.status import StoredEnum


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parallelism(StoredEnum):
    """How a stage gets its tasks.

    single: the count is known when planned. fan_out: tasks come from the previous stage's results.
    fan_in: the machine makes one task that reads all of them.
    """

    SINGLE = "single"
    FAN_OUT = "fan_out"
    FAN_IN = "fan_in"


# The number of messages of a large stage that are sent at first, where nothing is known of how long its tasks last.
FIRST_MESSAGES = 32
MOST_TASKS_PER_MESSAGE = 100
# A message of one short task goes on with the next ones of its stage for this long, and one of several tasks gives up
# what it has not begun then, if that lasts. It is also what a message of another job waits for, once for each of those
# before it in the queue that runs side by side with others.
SLICE_SECONDS = 0.1
# A message of a large stage has as many tasks as take this long, if they last.
MESSAGE_SECONDS = 0.1
# A message whose work lasts no longer than this is not divided: a hundred short tasks cost no more than they must.
WHOLE_SECONDS = 0.5

StoredParallelism = Annotated[Parallelism, BeforeValidator(Parallelism.stored)]


_CLASS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def _check_class_name(name: str) -> str:
    if not _CLASS_NAME.fullmatch(name):
        raise ValueError(
            "expected the name of an exception class, such as 'TimeoutError' or 'PIL.UnidentifiedImageError'"
        )
    return name


ClassNames = Annotated[tuple[Annotated[str, AfterValidator(_check_class_name)], ...], Field(min_length=1)]


@constructor_suggests_names
class RetryPolicy(FrozenModel):
    """Exponential back-off, capped, with full jitter. Seconds; `max_attempts` counts the first attempt too.

    `never` and `always` name exception classes. The nearest class of an exception's ancestors that is named decides;
    where none is, the exception's type does, as without them.
    """

    max_attempts: Annotated[
        int, Field(ge=1, le=100, description="How often a task is attempted before it fails; the first attempt counts.")
    ] = 4
    base_delay_seconds: Annotated[
        float, Field(gt=0, le=3600, description="The longest delay before the second attempt; it doubles from there.")
    ] = 5.0
    max_delay_seconds: Annotated[float, Field(gt=0, le=86400, description="The longest delay before any attempt.")] = (
        300.0
    )
    never: ClassNames | None = Field(
        default=None,
        description="Exceptions after which a task has failed at once: class names, with or without their module. "
        "Subclasses count.",
    )
    always: ClassNames | None = Field(
        default=None,
        description="Exceptions after which another attempt follows, though their type would fail the task at once.",
    )

    @model_validator(mode="after")
    def _no_name_is_in_both(self) -> "RetryPolicy":
        if both := sorted(set(self.never or ()) & set(self.always or ())):
            raise ValueError(f"expected each exception class in never or in always, found {', '.join(both)} in both")
        return self


@constructor_suggests_names
class FailurePolicy(FrozenModel):
    """When failed tasks fail their stage, and with it the job.

    fail_job: the first failed task does. continue: none does.
    tolerate: more than `max_failed` tasks, or more than `max_failed_percent` of the stage's tasks, do.
    """

    on_failure: Annotated[
        Literal["fail_job", "continue", "tolerate"],
        Field(
            description="fail_job: the first failed task fails the stage and the job, and the other tasks are "
            "cancelled. continue: failed tasks never fail the stage. tolerate: as continue up to the limit, as "
            "fail_job above it."
        ),
    ] = "fail_job"
    max_failed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="The number of failed tasks that `tolerate` permits."
    )
    max_failed_percent: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="The share of the stage's tasks that may fail under `tolerate`."
    )

    @model_validator(mode="after")
    def _limits_go_with_tolerate(self) -> "FailurePolicy":
        has_limit = self.max_failed is not None or self.max_failed_percent is not None
        if has_limit != (self.on_failure == "tolerate"):
            raise ValueError(
                "max_failed or max_failed_percent go with on_failure='tolerate', and it needs one of them; "
                f"found on_failure={self.on_failure!r}, max_failed={self.max_failed}, "
                f"max_failed_percent={self.max_failed_percent}"
            )
        return self


# A time that is declared, at most a month: beyond that nobody waits.
TimeoutSeconds = Annotated[float, Field(gt=0, le=31 * 86400)]


# As job classes declare a `JobPriority`.
Priority = Literal["high", "normal", "low"]


_NAME_TEXT = (
    "A name for people. Stages are known by their numbers: two that run the same handler may have the same name."
)


class StageDefinition(FrozenModel):
    """One ordered step of a job, as declared in `stages`.

    Three times, none unless declared: `task_timeout_seconds` for an attempt at a task, from its claim;
    `timeout_seconds` for the whole stage and `queue_timeout_seconds` for its tasks to be begun, both from the moment
    that the job comes to it.
    """

    number: Annotated[int, Field(ge=1, le=100, description="The stage's place; stages are numbered from 1.")]
    name: Annotated[str, Field(min_length=1, max_length=100, description=_NAME_TEXT)]
    task_type: Annotated[
        str, Field(min_length=1, max_length=100, description="The handler that runs the stage's tasks.")
    ]
    parallelism: Parallelism = Field(
        description="single: the tasks are known when the stage is planned. fan_out: the tasks are made from the "
        "results of the stage before. fan_in: the engine makes one task that reads all of those results."
    )
    description: str | None = Field(default=None, description="A text for people.")
    over: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="The name of a list; the stage has one task per element, and `create_tasks_for_stage` is not "
        "called for it. fan_out: the list is in each result of the stage before. single: it is a parameter of the job. "
        "An element that is an object becomes the task's parameters; any other becomes its parameter `item`.",
    )
    name_from: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="The task parameter whose value names the task. Without it a text names its task, and others are "
        "numbered.",
    )
    retry: RetryPolicy = Field(default=RetryPolicy(), description="How failed attempts at a task are repeated.")
    failure: FailurePolicy = Field(
        default=FailurePolicy(), description="What failed tasks do to the stage and the job."
    )
    lease_seconds: Annotated[float, Field(ge=5, le=3600)] = Field(
        default=60.0,
        description="How long a task of a dead worker waits until it is taken back. A living worker renews its lease "
        "each third of this time.",
    )
    max_interruptions: Annotated[int, Field(ge=0, le=100)] = Field(
        default=5,
        description="How many lost workers a task survives; they do not count as attempts. From half of them on the "
        "task runs alone in its worker process.",
    )
    tasks_per_message: Annotated[int, Field(ge=1, le=MOST_TASKS_PER_MESSAGE)] | None = Field(
        default=None,
        description="The most tasks that one message carries. In a large stage it carries fewer where they last, as is "
        "measured while the stage runs. Without it the first number is chosen when the stage is planned, from the "
        "duration of its tasks in the last job of the type; without such a job it is one, or ten in a stage of more "
        "than a hundred tasks.",
    )
    max_parallel: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="How many tasks of the stage may be announced and not ended at a time, over all workers, so that "
        "no more of them run. Without it only the workers' slots limit them.",
    )
    limits: Annotated[tuple[DeclaredLimit, ...], Field(min_length=1, max_length=MOST_PER_STAGE)] | None = Field(
        default=None,
        description="Limits that its tasks share with those of all stages, jobs and apps that name the same ones: a "
        "list of names, or of objects with `name`, `at_once` (how many tasks run at a time) and `rate` (how many begin "
        "in a time, such as `100/min`). `{params.x}` in a name becomes the job's parameter `x`. Operators change "
        "the numbers at run time. Its tasks go one per message unless tasks_per_message is declared.",
    )
    task_timeout_seconds: TimeoutSeconds | None = Field(
        default=None, description="How long one attempt at a task may run, from its claim."
    )
    timeout_seconds: TimeoutSeconds | None = Field(
        default=None, description="How long the stage may take, from the moment that the job comes to it."
    )
    queue_timeout_seconds: TimeoutSeconds | None = Field(
        default=None, description="By when each task must have begun, from the moment that the job comes to the stage."
    )
    queue: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="The logical queue of the stage's tasks, needed where the handler is in another app. Without it "
        "the handler names the queue.",
    )

    @model_validator(mode="after")
    def _tasks_have_one_source(self) -> "StageDefinition":
        if self.over is not None and self.parallelism is Parallelism.FAN_IN:
            raise ValueError(
                f"over goes with fan_out or single; the engine makes the task of fan_in, found {self.over!r}"
            )
        if self.name_from is not None and self.over is None:
            raise ValueError(f"name_from goes with over, found name_from={self.name_from!r} alone")
        return self

    @model_validator(mode="after")
    def _limits_are_named_once(self) -> "StageDefinition":
        names = [limit.name for limit in self.limits or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"limits: expected each name once, found {', '.join(twice)} twice")
        return self

    @property
    def goes_on(self) -> bool:
        """Whether a message of one task may go on with tasks that have none: nothing bounds how many run at once.

        The database decides it again (`claim_tasks_in_line`): `max_parallel` may change while the stage runs.
        """
        return self.tasks_per_message in {None, 1} and self.max_parallel is None and not self.limits

    @property
    def limit_names(self) -> tuple[str, ...]:
        return tuple(limit.name for limit in self.limits or ())


class JobDefinition(FrozenModel):
    """The snapshot in a job row: deploying new code never changes a job in flight.

    `timeout_seconds` is for a whole run of the job, from its submission to its end. `priority` is its weight where its
    large stages share a queue with others: null is normal.
    """

    job_type: str
    timeout_seconds: TimeoutSeconds | None = None
    priority: Priority | None = None
    stages: Annotated[tuple[StageDefinition, ...], Field(min_length=1)]

    def with_limit_names(self, parameters: Mapping[str, Any]) -> "JobDefinition":
        """With the job's parameters in the names of its limits. Raises InvalidParameters where one is missing."""
        if all(stage.limits is None for stage in self.stages):
            return self
        stages = tuple(
            stage.model_copy(update={"limits": tuple(filled_in(limit, parameters) for limit in stage.limits)})
            if stage.limits
            else stage
            for stage in self.stages
        )
        for stage in stages:
            if len(set(stage.limit_names)) < len(stage.limit_names):
                raise InvalidParameters(
                    f"limits of stage {stage.number}: expected each name once, found {', '.join(stage.limit_names)}"
                )
        return self.model_copy(update={"stages": stages})

    def stage(self, number: int) -> StageDefinition:
        """Raises UnknownWork for one that is not among them."""
        if not 1 <= number <= len(self.stages):
            raise UnknownWork("stage", f"{number} of a job of type {self.job_type!r} with {len(self.stages)} stages")
        return self.stages[number - 1]


# The latest snapshot of a job type, and the definition read from it.
_read: LatestCache[str, tuple[Mapping[str, Any], JobDefinition]] = LatestCache(256)


def read_definition(document: Mapping[str, Any]) -> JobDefinition:
    """The snapshot in a job row, which a newer release may have written.

    A field that is not known here may be null: it is not used then. With any other value it could mean that the job
    is not to be run as this release would run it.

    Raises:
        UnknownWork: It has something that this release does not know.
    """
    job_type = str(document.get("job_type"))
    known = _read.get(job_type)
    if known is not None and known[0] == document:
        return known[1]
    definition = _read_new(document)
    _read.put(job_type, (document, definition))
    return definition


def _read_new(document: Mapping[str, Any]) -> JobDefinition:
    try:
        return JobDefinition.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    for problem in problems:
        if problem["type"] != "extra_forbidden" or problem["input"] is not None:
            place = ".".join(map(str, problem["loc"]))
            raise UnknownWork("definition", f"{place} = {problem['input']!r:.100} ({problem['msg']})")
    return _read_new(_without(document, [problem["loc"] for problem in problems]))


def _without(document: Mapping[str, Any], places: Iterable[Sequence[int | str]]) -> Mapping[str, Any]:
    left = copy.deepcopy(document)
    for *path, name in places:
        within: Any = left
        for step in path:
            within = within[step]
        del within[name]
    return left


@constructor_suggests_names
class TaskDefinition(FrozenModel):
    """One task that `create_tasks_for_stage` asks for.

    Args:
        name: The logical unit (a tile, a file): stable across reruns and unique within the stage. The task's id is
            made from it; an index is used where it is missing.
        parameters: What this task needs beyond the job's own parameters.
        task_type: Another handler than the stage's, if it must be.
    """

    parameters: dict[str, Any] = {}
    name: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    task_type: str | None = None
