"""Which functions an app has, from its settings."""

import json
import re

import pytest

from core.app_queues import DEFAULT_SWEEP_SCHEDULE
from infrastructure.settings import AppMode, SettingsError, load_settings
from triggers.app_shape import (
    MODES,
    AppShape,
    find_slot_shortage,
    find_thread_shortage,
    read_shape,
)

CONNECTIONS = {
    "COREMACHINE_DATABASE_URL": "postgresql://user@host/database",
    "ServiceBusConnection__fullyQualifiedNamespace": "my-namespace.servicebus.windows.net",
}
QUEUES = {"tasks": "coremachine-tasks", "raster": "coremachine-raster-tasks"}


def test_without_settings_everything_runs_in_one_app():
    assert read_shape({}) == AppShape(
        serves_http=True,
        http_auth="function",
        jobs_queue="coremachine-jobs",
        task_queues=QUEUES,
        sweep_schedule=DEFAULT_SWEEP_SCHEDULE,
        dead_letter_queues={"jobs": "coremachine-jobs", **QUEUES},
    )


def test_platform_advances_jobs_and_runs_no_tasks():
    shape = read_shape({"COREMACHINE_APP_MODE": "platform", "COREMACHINE_SWEEP_SCHEDULE": "0 * * * * *"})
    assert (shape.serves_http, shape.jobs_queue, shape.task_queues) == (True, "coremachine-jobs", {})
    assert shape.sweep_schedule == "0 * * * * *"
    # Also of the queues that worker apps read: their messages expire when these are down.
    assert shape.dead_letter_queues == {"jobs": "coremachine-jobs", **QUEUES}


def test_worker_runs_tasks_and_nothing_else():
    shape = read_shape({"COREMACHINE_APP_MODE": "worker", "COREMACHINE_WORKER_QUEUES": "raster"})
    assert shape == AppShape(serves_http=False, task_queues={"raster": "coremachine-raster-tasks"})


def test_names_come_from_settings_and_blanks_do_not_matter():
    shape = read_shape(
        {
            "COREMACHINE_JOBS_QUEUE": "j",
            "COREMACHINE_TASK_QUEUES": " a = x , b=y,",
            "COREMACHINE_WORKER_QUEUES": "b , a",
            "COREMACHINE_HTTP_AUTH": "anonymous",
        }
    )
    assert (shape.jobs_queue, dict(shape.task_queues), shape.http_auth) == ("j", {"b": "y", "a": "x"}, "anonymous")


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_settings_count_as_not_set(empty):
    names = ("APP_MODE", "HTTP_AUTH", "JOBS_QUEUE", "TASK_QUEUES", "WORKER_QUEUES", "SWEEP_SCHEDULE")
    assert read_shape({f"COREMACHINE_{name}": empty for name in names}) == read_shape({})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"COREMACHINE_JOBS_QUEUE": "j", "COREMACHINE_SWEEP_SCHEDULE": "0 * * * * *"},
        {"COREMACHINE_TASK_QUEUES": " a = x , b=y,"},
        {"COREMACHINE_TASK_QUEUES": "a=x,b=y,c=z", "COREMACHINE_WORKER_QUEUES": "c, a,c"},
        {"COREMACHINE_JOBS_QUEUE": " ", "COREMACHINE_TASK_QUEUES": "", "COREMACHINE_WORKER_QUEUES": ""},
    ],
)
def test_functions_are_those_that_the_settings_of_the_engine_name(mode, variables):
    """Cold start reads the variables on its own: were it to read them otherwise, messages would find no reader."""
    environment = {
        "COREMACHINE_APP_MODE": mode,
        **CONNECTIONS,
        **variables,
    }
    settings = load_settings(environment)
    shape = read_shape(environment)
    assert shape.problems == ()
    assert shape.task_queues == {name: settings.queue_name(name) for name in settings.served_queues}
    is_worker = settings.app_mode is AppMode.WORKER
    assert shape.serves_http is not is_worker
    assert shape.jobs_queue == (None if is_worker else settings.jobs_queue)
    assert shape.sweep_schedule == (None if is_worker else settings.sweep_schedule)


@pytest.mark.parametrize(
    "variables",
    [
        {"COREMACHINE_APP_MODE": "Worker"},
        {"COREMACHINE_TASK_QUEUES": "tasks"},
        {"COREMACHINE_TASK_QUEUES": "Tasks=x"},
        {"COREMACHINE_TASK_QUEUES": "a=x,a=y"},
        {"COREMACHINE_TASK_QUEUES": ","},
        {"COREMACHINE_TASK_QUEUES": "jobs=x"},
        {"COREMACHINE_WORKER_QUEUES": "nobody"},
        {"COREMACHINE_TASK_QUEUES": "a=-x"},
        {"COREMACHINE_TASK_ROUTES": "convert=gpu"},
        {"COREMACHINE_TASK_ROUTES": "convert"},
        {"COREMACHINE_TASK_QUEUES": "a=" + "x" * 261},
    ],
)
def test_what_the_engine_refuses_is_refused_at_cold_start_too(variables):
    with pytest.raises(SettingsError) as refused:
        load_settings({**CONNECTIONS, **variables})
    (name,) = variables
    assert [name in problem for problem in refused.value.problems] == [True]
    assert [problem.startswith(name) for problem in read_shape(variables).problems] == [True]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"COREMACHINE_APP_MODE": "wroker"},
            "COREMACHINE_APP_MODE: expected one of standalone, platform, worker, found 'wroker'",
        ),
        (
            {"COREMACHINE_HTTP_AUTH": "none"},
            "COREMACHINE_HTTP_AUTH: expected one of function, anonymous, found 'none'",
        ),
        (
            {"COREMACHINE_TASK_QUEUES": "tasks"},
            "COREMACHINE_TASK_QUEUES: expected pairs such as 'tasks=coremachine-tasks', found 'tasks'",
        ),
        (
            {"COREMACHINE_TASK_QUEUES": "a b=x"},
            "COREMACHINE_TASK_QUEUES: expected pairs such as 'tasks=coremachine-tasks', found 'a b=x'",
        ),
        (
            {"COREMACHINE_TASK_QUEUES": "a=x,a=y"},
            "COREMACHINE_TASK_QUEUES: expected each logical name once, found 'a' twice",
        ),
        (
            {"COREMACHINE_WORKER_QUEUES": "rastre"},
            (
                "COREMACHINE_WORKER_QUEUES: expected some of tasks, raster, found rastre; "
                'leave it out, or add rastre = "<its real name>" to [tool.coremachine.queues] in pyproject.toml, or '
                "rastre=<its real name> to COREMACHINE_TASK_QUEUES where that is set"
            ),
        ),
    ],
)
def test_settings_that_cannot_be_used_leave_http_alone_to_say_why(settings, problem):
    shape = read_shape({"COREMACHINE_APP_MODE": "worker", **settings})
    assert shape.problems == (problem,)
    assert shape == AppShape(serves_http=True, http_auth="function", problems=(problem,))


def test_all_problems_are_told_at_once():
    assert len(read_shape({"COREMACHINE_APP_MODE": "x", "COREMACHINE_TASK_QUEUES": "y"}).problems) == 2


@pytest.mark.parametrize(
    ("settings", "calls", "said"),
    [
        ({"PYTHON_THREADPOOL_THREAD_COUNT": "56"}, 8, None),
        ({"PYTHON_THREADPOOL_THREAD_COUNT": "55"}, 8, "expected at least 56 .* found 55;"),
        ({"PYTHON_THREADPOOL_THREAD_COUNT": "many"}, 8, r"found [0-9]+ \(the default\);"),
        ({}, 8, r"found [0-9]+ \(the default\);"),
        ({"COREMACHINE_APP_MODE": "worker", "PYTHON_THREADPOOL_THREAD_COUNT": "24"}, 8, None),
        # The host takes its settings over its file.
        (
            {
                "PYTHON_THREADPOOL_THREAD_COUNT": "56",
                "AzureFunctionsJobHost__extensions__serviceBus__maxConcurrentCalls": "9",
            },
            8,
            "expected at least 62 ",
        ),
        # Nothing is guessed.
        ({}, None, None),
        ({"COREMACHINE_APP_MODE": "wroker"}, 8, None),
    ],
)
def test_pool_that_messages_can_fill_is_told(settings, calls, said, tmp_path):
    host = {"extensions": {"serviceBus": {} if calls is None else {"maxConcurrentCalls": calls}}}
    (tmp_path / "host.json").write_text(json.dumps(host))
    found = find_thread_shortage(read_shape(settings), settings, tmp_path / "host.json")
    assert (found is None) == (said is None)
    assert said is None or re.search(said, found)
    assert find_thread_shortage(read_shape(settings), settings, tmp_path / "no.json") is None


def test_messages_are_shared_by_the_processes_of_an_instance(tmp_path):
    (tmp_path / "host.json").write_text('{"extensions": {"serviceBus": {"maxConcurrentCalls": 24}}}')
    settings = {"PYTHON_THREADPOOL_THREAD_COUNT": "80"}
    alone = find_thread_shortage(read_shape(settings), settings, tmp_path / "host.json")
    assert "(24 of maxConcurrentCalls 24 for each queue function" in alone
    shared = settings | {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}
    assert find_thread_shortage(read_shape(shared), shared, tmp_path / "host.json") is None


@pytest.mark.parametrize(
    ("settings", "calls", "said"),
    [
        ({}, 8, None),
        ({}, 7, r"expected at least 8 \(COREMACHINE_TASK_THREADS 8 in each of 1 processes\), found 7;"),
        ({"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}, 12, "expected at least 16 .* found 12;"),
        ({"FUNCTIONS_WORKER_PROCESS_COUNT": "2", "COREMACHINE_TASK_THREADS": "6"}, 12, None),
        # It runs no tasks.
        ({"COREMACHINE_APP_MODE": "platform"}, 1, None),
        ({}, None, None),
    ],
)
def test_slots_that_messages_cannot_fill_are_told(settings, calls, said, tmp_path):
    host = {"extensions": {"serviceBus": {} if calls is None else {"maxConcurrentCalls": calls}}}
    (tmp_path / "host.json").write_text(json.dumps(host))
    found = find_slot_shortage(read_shape(settings), settings, tmp_path / "host.json")
    assert (found is None) == (said is None)
    assert said is None or re.search(said, found)
