"""Jobs and handlers are checked as a whole, and everything that does not fit is said at once."""

import enum
import functools

import pytest

from core.context import TaskContext
from core.errors import RetryableTaskError, TaskCancelled
from core.models.context import CompletedTask, JobExecutionContext, StageSummary
from jobs.base import JobBase, JobDefinitionError
from jobs.hello_world import HANDLERS, HelloWorldJob, greet, reply
from jobs.mixins import JobBaseMixin
from jobs.registry import Handler, Registry, UnknownJobType


def context(**job_parameters):
    parameters = HelloWorldJob.validate_job_parameters(job_parameters)
    return TaskContext(
        job_id="0" * 64,
        job_type="hello_world",
        stage=1,
        task_id="t",
        task_index=0,
        attempt=1,
        job_parameters=parameters,
    )


def test_hello_world_fits_its_handlers():
    registry = Registry([HelloWorldJob], HANDLERS, ["tasks"])

    assert registry.get_job("hello_world") is HelloWorldJob
    assert registry.find_handler("hello_world_reply").function is reply
    assert registry.find_handler("of another app") is None


def test_unknown_job_type_is_refused_with_the_nearest_name():
    registry = Registry([HelloWorldJob], HANDLERS, ["tasks"])

    with pytest.raises(UnknownJobType, match="did you mean 'hello_world'"):
        registry.get_job("hello_wrold")


def test_everything_that_does_not_fit_is_said_at_once():
    """An import that failed switched a feature off in silence (lesson D39)."""

    class Checked(HelloWorldJob):
        job_type = "checked"
        resource_validators = ({"type": "source_exist", "param": "message"},)

    handlers = [
        Handler("hello_world_greeting", greet, queue="nowhere"),
        Handler("hello_world_greeting", "not a function", queue="tasks"),
    ]
    with pytest.raises(JobDefinitionError) as refused:
        Registry([HelloWorldJob, HelloWorldJob, Checked, object], handlers, ["tasks"])

    for expected in (
        "expected a queue of ['tasks'], found 'nowhere'",
        "'hello_world_greeting' has two handlers",
        "expected a function, found 'not a function'",
        "'hello_world' is there twice",
        "stage 2 (reply): no handler for task type 'hello_world_reply'",
        "'checked': resource_validators: expected a resource validator, found 'source_exist'",
        "expected a job class",
    ):
        assert expected in str(refused.value)


def stages_with(queue):
    first, second = HelloWorldJob.stages
    return [first, {**second, "queue": queue}]


def test_stage_that_names_its_queue_may_leave_the_handler_to_another_app():
    class Split(HelloWorldJob):
        job_type = "split"
        stages = stages_with("elsewhere")

    registry = Registry([Split], HANDLERS[:1], ["tasks", "elsewhere"])
    assert registry.find_handler("hello_world_reply") is None


def test_queue_of_a_stage_has_to_be_one_of_the_app():
    class Split(HelloWorldJob):
        job_type = "split"
        stages = stages_with("nowhere")

    problem = (
        r"stage 2 \(reply\): task type 'hello_world_reply': expected a queue of \['tasks'\], found 'nowhere'; "
        r'name another queue, or add nowhere = "<its real name>" to \[tool.coremachine.queues\] in pyproject.toml, or '
        "nowhere=<its real name> to COREMACHINE_TASK_QUEUES where that is set"
    )
    with pytest.raises(JobDefinitionError, match=problem):
        Registry([Split], HANDLERS, ["tasks"])


def test_replies_see_their_greeting():
    params = HelloWorldJob.validate_job_parameters({"n": 2, "message": "Hi"})
    tasks = list(HelloWorldJob.create_tasks_for_stage(1, params, "j", []))
    greetings = [
        CompletedTask(f"g{index}", index, task.name, task.parameters, greet(task.parameters, context(message="Hi")))
        for index, task in enumerate(tasks)
    ]
    replies = list(HelloWorldJob.create_tasks_for_stage(2, params, "j", iter(greetings)))

    assert [reply(task.parameters, context())["reply"] for task in replies] == ["You said: Hi #0", "You said: Hi #1"]


def test_asked_for_failures_are_retryable():
    with pytest.raises(RetryableTaskError):
        greet({"number": 0}, context(failure_rate=1))


def test_summary_counts_both_stages():
    summary = HelloWorldJob.finalize_job(
        JobExecutionContext(
            "j",
            "hello_world",
            {},
            (StageSummary(1, "completed", 3, 0), StageSummary(2, "completed_with_errors", 2, 1)),
            lambda _stage: iter(()),
        )
    )
    assert summary == {"greetings": 3, "replies": 2}


def test_handler_learns_that_nobody_wants_its_work():
    context().check_cancelled()
    stopped = TaskContext("j", "t", 1, "t", 0, 1, {}, _stop_requested=lambda: True)

    with pytest.raises(TaskCancelled):
        stopped.check_cancelled()


def test_progress_is_a_percentage():
    reports = []
    reporting = TaskContext("j", "t", 1, "t", 0, 1, {}, _report=reports.append)
    reporting.progress(40, "tile 4 of 10")

    assert reports == [{"percent": 40, "message": "tile 4 of 10"}]
    with pytest.raises(ValueError, match="0 to 100"):
        reporting.progress(140)


@pytest.mark.parametrize("handler", [None, ("work", greet, "tasks"), greet, Handler])
def test_handler_that_is_none_is_named_by_its_place(handler):
    with pytest.raises(
        JobDefinitionError, match=r"handlers\[1\]: expected a Handler\(task_type, function, queue\), found"
    ):
        Registry([], [Handler("work", greet, "tasks"), handler], ["tasks"])


@pytest.mark.parametrize("name", [None, "", 7, [], "x" * 101, "a\nb", "a\x00", "\ud800", " ", "\x1b[2J"])
@pytest.mark.parametrize("field", ["task_type", "queue"])
def test_handler_of_a_name_that_cannot_be_one_is_refused(field, name):
    names = {"task_type": "work", "queue": "tasks", field: name}
    with pytest.raises(JobDefinitionError, match=rf"handlers\[0\].{field}: expected a name of 1 to 100 characters"):
        Registry([], [Handler(function=greet, **names)], ["tasks"])


def test_class_is_looked_at_again_when_it_is_registered():
    class Changed(HelloWorldJob):
        job_type = "changed"

    Changed.job_type, Changed.description, Changed.stages = "a/b", None, []
    with pytest.raises(JobDefinitionError) as refused:
        Registry([Changed], HANDLERS, ["tasks"])

    for expected in ("job_type: expected a name", "description: expected str", "stages: expected a list"):
        assert expected in str(refused.value)


async def awaited(params, context):
    return {}


async def awaited_items(params, context):
    yield {}


def yielding(params, context):
    yield {}


def of_none():
    return {}


def of_one(params):
    return {}


def of_three(params, context, more):
    return {}


def of_names(*, params, context):
    return {}


def of_any(*args):
    return {}


def of_some(params, context=None, *rest, more=1):
    return {}


class Callable2:
    def __call__(self, params, context):
        return {}


class AwaitedCallable:
    async def __call__(self, params, context):
        return {}


@functools.wraps(of_three)
def decorated(params, context):
    return of_three(params, context, "more")


@functools.wraps(awaited)
def runs_the_loop(params, context):
    return {}


@functools.wraps(greet)
def decorated_wrongly(params):
    return {}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (awaited, "found awaited, an async def function; write def, and call asyncio.run"),
        (awaited_items, "found awaited_items, an async generator function"),
        (yielding, "found yielding, a generator function; return the value"),
        (functools.partial(awaited), "found awaited, an async def function"),
        (AwaitedCallable(), "an async def function"),
        (of_one, "expected a function of (params, context), found of_one(params)"),
        (of_three, "found of_three(params, context, more)"),
        (of_names, "found of_names(*, params, context)"),
        (functools.partial(of_one, params={}), "expected a function of (params, context)"),
        (decorated_wrongly, "expected a function of (params, context)"),
        (of_none, "found of_none()"),
        (None, "expected a function, found None"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "function",
)
def test_handler_that_could_not_be_called_is_refused_when_it_is_registered(function, said):
    with pytest.raises(JobDefinitionError) as refused:
        Registry([], [Handler("work", function, queue="tasks")], ["tasks"])
    assert "handler of 'work': " in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "function",
    [
        greet,
        decorated,
        runs_the_loop,
        Callable2(),
        functools.partial(of_three, more=1),
        of_any,
        of_some,
        dict,
        print,
        max,
    ],
)
def test_handler_that_can_be_called_is_not(function):
    assert Registry([], [Handler("work", function, queue="tasks")], ["tasks"]).find_handler("work")


def test_methods_that_could_not_be_called_are_refused_when_the_class_is_made():
    with pytest.raises(JobDefinitionError) as refused:

        class Wrong(HelloWorldJob):
            job_type = "wrong"

            async def create_tasks_for_stage(stage, job_params, job_id, previous_results):  # noqa: N805
                return []

            def finalize_job(self, context):
                return {}

            @classmethod
            async def validate_job_parameters(cls, params):
                return dict(params)

    assert "method create_tasks_for_stage: expected an ordinary function, found" in str(refused.value)
    assert "method finalize_job: expected a function of (context), found" in str(refused.value)
    assert "(self, context); @staticmethod or @classmethod may be missing" in str(refused.value)
    assert "method validate_job_parameters: expected an ordinary function" in str(refused.value)


def refused_class(**declared):
    with pytest.raises(JobDefinitionError) as refused:
        type("Wrong", (HelloWorldJob,), {"job_type": "wrong", **declared})
    return str(refused.value)


@pytest.mark.parametrize("name", ["create_job_record", "queue_job"])
def test_method_that_cannot_take_what_it_is_given_by_name_is_refused(name):
    """It was met by each submission, as a TypeError."""

    def method(cls, job_id, params):
        del cls, job_id, params

    said = refused_class(**{name: classmethod(method)})
    assert f"method {name}: expected a function of (job_id, params, *, correlation_id), found" in said


def test_arguments_that_can_only_be_given_by_name_are_told_from_a_missing_decorator():
    said = refused_class(finalize_job=staticmethod(lambda *, context: {**context}))
    assert "(*, context); it is called with these in this order, and not by name" in said
    assert "may be missing" not in said


class Kind(enum.StrEnum):
    WRONG = "wrong"


def test_name_that_is_no_plain_text_is_told_from_one_that_is():
    """`found 'wrong'` was said of a member of an enum that reads so."""
    said = refused_class(job_type=Kind.WRONG)
    assert "found a Kind, which is a kind of str of its own; write the text itself" in said


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"parameters_outside_job_id": "failure_rate"}, "found 'failure_rate'; `(x)` alone is no tuple"),
        ({"parameters_outside_job_id": [1]}, "expected a list, tuple or set of names, found [1]"),
        ({"resource_validators": {"type": "source_exists", "param": "n"}}, "expected a list, tuple or set of dicts"),
        ({"resource_validators": None}, "resource_validators: expected a list, tuple or set of dicts, found None"),
        ({"resource_validators": ["source_exists"]}, "found ['source_exists']"),
    ],
)
def test_declaration_that_would_be_read_letter_by_letter_is_refused(declared, said):
    """Of "rate", a parameter r was outside the job's id too; of a dict, the app's start raised AttributeError."""
    assert said in refused_class(**declared)


def test_base_class_of_others_is_told_what_to_do():
    with pytest.raises(JobDefinitionError, match="leave JobBase out, and list it before JobBase there"):
        type("Common", (JobBaseMixin, JobBase), {"finalize_job": staticmethod(dict)})


def test_finalizer_that_yields_is_refused():
    with pytest.raises(JobDefinitionError, match="method finalize_job: expected an ordinary function"):

        class Wrong(HelloWorldJob):
            job_type = "wrong"

            @staticmethod
            def finalize_job(context):
                yield {}


def greet_alone(params, context):
    return {"greeting": params["number"]}


def processes(function, **options):
    handlers = [HANDLERS[1], Handler("hello_world_greeting", function, queue="tasks", isolation="process", **options)]
    return Registry([HelloWorldJob], handlers, ["tasks"])


def test_handler_that_a_process_finds_may_have_one():
    registered = processes(greet, memory_limit_mb=500).find_handler("hello_world_greeting")
    assert registered.function.function is greet


def local_function():
    def inner(params, context): ...

    return inner


class Callable:
    def __call__(self, params, context): ...


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda *_: None, "made inside another function; write it with def at the top of a module"),
        (local_function(), "made inside another function"),
        (functools.partial(greet), "found partial object without a name of its own"),
        (Callable(), "found Callable object without a name of its own"),
    ],
)
def test_handler_that_no_process_would_find_is_refused(function, reason):
    with pytest.raises(JobDefinitionError, match="finds by import") as refused:
        processes(function)
    assert reason in str(refused.value)


def test_handler_of_the_script_itself_or_under_another_name_is_refused(monkeypatch):
    monkeypatch.setattr(greet_alone, "__module__", "__main__")
    with pytest.raises(JobDefinitionError, match="found greet_alone in the script that was started"):
        processes(greet_alone)
    monkeypatch.setattr(greet_alone, "__module__", "jobs.hello_world")
    monkeypatch.setattr(greet_alone, "__qualname__", "greet")
    with pytest.raises(JobDefinitionError, match=r"an import gives something else; a decorator needs functools\.wraps"):
        processes(greet_alone)
    monkeypatch.setattr(greet_alone, "__module__", "no_such_module")
    with pytest.raises(JobDefinitionError, match=r"no module no_such_module on sys\.path"):
        processes(greet_alone)


def test_limits_that_make_no_sense_are_refused():
    with pytest.raises(JobDefinitionError, match="memory_limit_mb: expected a whole number from 1, found 0"):
        processes(greet, memory_limit_mb=0)
    with pytest.raises(JobDefinitionError, match="tasks_per_process: expected a whole number from 1, found True"):
        processes(greet, tasks_per_process=True)
    for options, expected in [
        ({"memory_limit_mb": 100}, "memory_limit_mb: expected isolation='process' beside it"),
        ({"isolation": "container"}, "isolation: expected 'thread' or 'process', found 'container'"),
    ]:
        handler = Handler("hello_world_greeting", greet, queue="tasks", **options)
        with pytest.raises(JobDefinitionError, match=expected):
            Registry([HelloWorldJob], [handler, HANDLERS[1]], ["tasks"])
