"""The contract of a job class: six methods and a list of stages, checked when the class is made."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, TypeGuard

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from core.authors.own_code import of_declarations
from core.basics.canonical import shown
from core.models import JobQueueMessage, JobRecord, Parallelism, StageDefinition, TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from core.models.definition import JobDefinition, Priority, TimeoutSeconds
from core.models.fields import without_consequences
from core.models.limit import places_in
from jobs.functions import function_problems
from jobs.mixins import JobBaseMixin
from jobs.model_parameters import is_model
from jobs.model_problems import name_problem
from jobs.names import job_type_problems, name_problems, text_problems
from jobs.parameter_schema import check_schema
from jobs.parameters import nearest_name_hint
from jobs.stages import Stage, stage_values
from jobs.views import view_problems

# Of a parameter whose value is part of a name.
_NAMING_TYPES = {"str", "int"}


class JobDefinitionError(TypeError):
    """A job class, or the registry of all, is not what it must be; names each problem, one per line."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.where, self.problems = where, tuple(problems)
        super().__init__(f"{where}:\n" + "\n".join(f"  - {problem}" for problem in problems))


class JobBase(ABC):
    """One job type. Authors list `JobBaseMixin` before it and write the last two methods.

    Class attributes:
        job_type: The name in URLs and messages: letters, digits, `_`, `-` and `.`, at most 100.
        description: A sentence for people.
        stages: One `Stage` or mapping per stage, with `StageDefinition`'s fields.
        parameters_schema: Entries by name, see `jobs.parameters`; or a pydantic model.
        timeout_seconds: How long a run of the job may take, from its submission; None is for ever.
        priority: "high", "normal" or "low": the share that its large stages have of a queue which other jobs use, too.
        view: A function that shows the job's result as a page, as `package.module:function`; see `jobs.views`.
        figure: One that gives the image and the places that the dashboard shows of the result, named in the same way.
    """

    job_type: ClassVar[str]
    description: ClassVar[str] = ""
    stages: ClassVar[Sequence[Mapping[str, Any] | Stage]]
    parameters_schema: ClassVar[Mapping[str, Mapping[str, Any]] | type[BaseModel]] = {}
    resource_validators: ClassVar[Sequence[Mapping[str, Any]]] = ()
    timeout_seconds: ClassVar[float | None] = None
    priority: ClassVar[Priority | None] = None
    view: ClassVar[str | None] = None
    _checked: ClassVar[tuple[object, JobDefinition] | None] = None
    figure: ClassVar[str | None] = None

    def __init_subclass__(cls, *, is_base: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        problems = [] if is_base else job_problems(cls)
        if problems:
            raise JobDefinitionError(f"job class {cls.__module__}.{cls.__qualname__}", problems)

    @classmethod
    @abstractmethod
    def validate_job_parameters(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Validated parameters with defaults. Raises `InvalidParameters`, or `ParameterErrors` with all problems."""

    @classmethod
    @abstractmethod
    def generate_job_id(cls, params: Mapping[str, Any]) -> str:
        """64 hex characters: the same for the same type and validated parameters."""

    @classmethod
    @abstractmethod
    def create_job_record(cls, job_id: str, params: Mapping[str, Any], *, correlation_id: str) -> JobRecord:
        """The row to submit, of what it is given, with a snapshot of the definition."""

    @classmethod
    @abstractmethod
    def queue_job(cls, job_id: str, params: Mapping[str, Any], *, correlation_id: str) -> JobQueueMessage:
        """The message that starts the job's first stage; the machine sends it, or the janitor if this gives none."""

    @staticmethod
    @abstractmethod
    def create_tasks_for_stage(
        stage: int,
        job_params: Mapping[str, Any],
        job_id: str,
        previous_results: Iterable[CompletedTask],
    ) -> Iterable[TaskDefinition]:
        """The stage's tasks; may be a generator. Not called for fan_in stages, nor for those with `over`.

        Called once a stage and run, and again if a process died before they were written: it changes nothing outside.

        Args:
            previous_results: An iterator over the previous stage's completed tasks, which can be read once and has no
                length; empty for stage 1.
        """

    @staticmethod
    @abstractmethod
    def finalize_job(context: JobExecutionContext) -> dict[str, Any]:
        """The job's own summary, stored as its result. As the other, it changes nothing outside."""

    @classmethod
    def planning_problems(cls) -> list[str]:
        """What is wrong with how tasks are made, a sentence each; for base classes that make some."""
        return []

    @classmethod
    @of_declarations
    def definition(cls) -> JobDefinition:
        """What it declares, checked again only if that has changed."""
        declared = cls.job_type, cls.timeout_seconds, cls.priority, cls.stages
        if cls._checked is None or cls._checked[0] != declared:
            values = (stage_values(stage, place) for place, stage in enumerate(cls.stages))
            stages = tuple(map(StageDefinition.model_validate, values))
            definition = JobDefinition(
                job_type=cls.job_type, timeout_seconds=cls.timeout_seconds, priority=cls.priority, stages=stages
            )
            cls._checked = copy.deepcopy(declared), definition
        return cls._checked[1]


def job_problems(job: type[JobBase]) -> list[str]:
    """What is wrong with a job class, a sentence each."""
    problems = [
        f"method {name} is missing{_mixin_hint(name)}"
        for name in sorted(vars(JobBase))
        if getattr(getattr(job, name, None), "__isabstractmethod__", False)
    ]
    if len(problems) > 0 and not hasattr(job, "job_type") and not hasattr(job, "stages"):
        problems.append(
            "a class that only others extend is no job: leave JobBase out, and list it before JobBase there"
        )
    problems += job_type_problems("job_type", getattr(job, "job_type", None))
    problems += text_problems("description", job.description)
    problems += _stage_problems(getattr(job, "stages", None))
    if not problems:
        problems += job.planning_problems() + _limit_problems(job) + _over_problems(job)
    problems += _timeout_problems(getattr(job, "timeout_seconds", None))
    problems += _priority_problems(getattr(job, "priority", None))
    for name in ("view", "figure"):
        problems += view_problems(getattr(job, name, None), name)
    problems += _method_problems(job)
    problems += check_schema(job.parameters_schema, "parameters_schema")
    problems += _list_problems("resource_validators", job.resource_validators, Mapping, "dicts")
    outside_id: object = getattr(job, "parameters_outside_job_id", ())
    return problems + _list_problems("parameters_outside_job_id", outside_id, str, "names")


def _list_problems(what: str, value: object, kind: type, words: str) -> list[str]:
    """A name alone would be taken for its letters, and a dict for its names."""
    if isinstance(value, list | tuple | AbstractSet) and all(isinstance(item, kind) for item in value):
        return []
    return [f"{what}: expected a list, tuple or set of {words}, found {shown(value, 120)}; `(x)` alone is no tuple"]


def _method_problems(job: type[JobBase]) -> list[str]:
    """What is wrong with how the author's methods are called. Those that are missing are reported before."""
    hint = "; @staticmethod or @classmethod may be missing"
    planner, finalizer = job.create_tasks_for_stage, job.finalize_job
    arguments = ("stage", "job_params", "job_id", "previous_results")
    return [
        *function_problems("method create_tasks_for_stage", planner, arguments, may_yield=True, hint=hint),
        *function_problems("method finalize_job", finalizer, ("context",), hint=hint),
        *(
            problem
            for name in ("validate_job_parameters", "generate_job_id")
            for problem in function_problems(f"method {name}", getattr(job, name), ("params",), hint=hint)
        ),
        *(
            problem
            for name in ("create_job_record", "queue_job")
            for problem in function_problems(
                f"method {name}", getattr(job, name), ("job_id", "params"), by_name=("correlation_id",), hint=hint
            )
        ),
    ]


def _mixin_hint(name: str) -> str:
    from_mixin = name not in {"create_tasks_for_stage", "finalize_job"}
    return "; JobBaseMixin, listed before JobBase, provides it" if from_mixin else ""


def _stage_problems(stages: Any) -> list[str]:
    if not isinstance(stages, list | tuple) or not stages:
        return [f"stages: expected a list with at least one stage, found {shown(stages, 120)}"]
    problems = []
    for place, stage in enumerate(stages):
        try:
            checked = StageDefinition.model_validate(stage_values(stage, place))
        except ValidationError as error:
            problems += [_told_problem(f"stages[{place}]", item) for item in without_consequences(error.errors())]
            continue
        if checked.number != place + 1:
            found = checked.number
            problems.append(f"stages[{place}].number: expected {place + 1} (numbers count from 1), found {found}")
        problems += _text_problems(f"stages[{place}]", checked)
    first = stage_values(stages[0], 0)
    if isinstance(first, Mapping) and first.get("parallelism") in {"fan_out", "fan_in"}:
        problems.append("stages[0].parallelism: the first stage has no earlier results; expected 'single'")
    return problems


def _told_problem(what: str, item: ErrorDetails) -> str:
    path = ".".join([what, *map(str, item["loc"])])
    told = name_problem(item, StageDefinition) if item["type"] == "extra_forbidden" else None
    if told is None:
        text = item["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
        # A rule of ours names what it found itself.
        return f"{path}: {text}" if ", found " in text else f"{path}: {text}, found {shown(item['input'], 120)}"
    expected, found, *hint = told
    return "; ".join([f"{path}: expected {expected}, found {found}", *filter(None, hint)])


def _limit_problems(job: type[JobBase]) -> list[str]:
    """Places in the names of limits that no parameter could fill."""
    problems = []
    for place, stage in enumerate(job.stages):
        for limit in StageDefinition.model_validate(stage_values(stage, place)).limits or ():
            what = f"stages[{place}].limits: {limit.name!r}"
            try:
                parameters = places_in(limit.name)
            except ValueError as error:
                problems.append(f"{what}: {error}")
                continue
            missing = [_not_declared_as(job, name, _NAMING_TYPES) for name in parameters]
            problems += [
                f"{what}: expected a parameter that is a text or an integer, found {found}"
                for found in missing
                if found
            ]
    return problems


def _over_problems(job: type[JobBase]) -> list[str]:
    """Lists of the job's parameters from which a stage makes its tasks, and which are not declared."""
    problems = []
    for place, declared_stage in enumerate(job.stages):
        stage = StageDefinition.model_validate(stage_values(declared_stage, place))
        if stage.over is not None and stage.parallelism is Parallelism.SINGLE:
            found = _not_declared_as(job, stage.over, {"list"})
            if found is not None:
                problems.append(f"stages[{place}].over: expected a parameter that is a list, found {found}")
    return problems


def _function_of(job: Any) -> object:
    return getattr(job.validate_job_parameters, "__func__", None)


def _not_declared_as(job: type[JobBase], name: str, types: AbstractSet[str]) -> str | None:
    """What a parameter of the job is, if it can have none of these types."""
    declared: Any = job.parameters_schema
    is_readable = isinstance(declared, Mapping) or is_model(declared)
    if not is_readable or _function_of(job) is not _function_of(JobBaseMixin):
        return None  # an author's own validation may make it of something else
    entry: Any = None
    if is_model(declared):
        is_open = declared.model_config.get("extra") == "allow"
        names = [*declared.model_fields, *declared.model_computed_fields]
    else:
        is_open, names, entry = False, list(declared), declared.get(name)
    if name not in names:
        hint = nearest_name_hint(name, names) if names else "declare it in parameters_schema"
        return None if is_open else f"no parameter named {name!r}; {hint}"
    is_other = isinstance(entry, Mapping) and entry.get("type") not in types
    return f"{name!r} of type {entry.get('type')}" if is_other else None


def _text_problems(what: str, stage: StageDefinition) -> list[str]:
    problems = name_problems(f"{what}.name", stage.name) + name_problems(f"{what}.task_type", stage.task_type)
    if stage.queue is not None:
        problems += name_problems(f"{what}.queue", stage.queue)
    return problems + text_problems(f"{what}.description", stage.description or "")


def _timeout_problems(timeout_seconds: Any) -> list[str]:
    try:
        TypeAdapter(TimeoutSeconds | None).validate_python(timeout_seconds)
    except ValidationError:
        return [f"timeout_seconds: expected seconds above 0, at most a month of them, found {timeout_seconds!r}"]
    return []


def _priority_problems(priority: Any) -> list[str]:
    try:
        TypeAdapter(Priority | None).validate_python(priority)
    except ValidationError:
        return [f"priority: expected 'high', 'normal' or 'low', found {priority!r}"]
    return []


def is_job_class(candidate: object) -> TypeGuard[type[JobBase]]:
    """Whether it is a finished job class, for registries that look through a module."""
    is_finished = isinstance(candidate, type) and issubclass(candidate, JobBase) and not inspect.isabstract(candidate)
    return is_finished and hasattr(candidate, "job_type")
