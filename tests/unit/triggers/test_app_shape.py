"""Which functions an app has, from its settings."""

import pytest

from triggers.app_shape import DEFAULT_SWEEP_SCHEDULE, AppShape, read_shape

QUEUES = {"tasks": "coremachine-tasks", "raster": "coremachine-raster-tasks"}


def test_without_settings_everything_runs_in_one_app():
    assert read_shape({}) == AppShape(
        serves_http=True,
        http_auth="function",
        jobs_queue="coremachine-jobs",
        task_queues=QUEUES,
        sweep_schedule=DEFAULT_SWEEP_SCHEDULE,
    )


def test_platform_moves_jobs_and_runs_no_tasks():
    shape = read_shape({"COREMACHINE_APP_MODE": "platform", "COREMACHINE_SWEEP_SCHEDULE": "0 * * * * *"})
    assert (shape.serves_http, shape.jobs_queue, shape.task_queues) == (True, "coremachine-jobs", {})
    assert shape.sweep_schedule == "0 * * * * *"


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


def test_empty_settings_count_as_not_set():
    names = ("APP_MODE", "HTTP_AUTH", "JOBS_QUEUE", "TASK_QUEUES", "WORKER_QUEUES", "SWEEP_SCHEDULE")
    assert read_shape({f"COREMACHINE_{name}": "" for name in names}) == read_shape({})


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
                "COREMACHINE_WORKER_QUEUES: expected logical names out of tasks, raster (COREMACHINE_TASK_QUEUES), "
                "found 'rastre'"
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
