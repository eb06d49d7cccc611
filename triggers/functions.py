"""The functions of an app's mode, and nothing that runs.

standalone: HTTP, jobs queue, task queues, dead letters, janitor. platform: all but the task queues. worker: its task
queues alone.
With settings that cannot be used it still serves HTTP, where /api/readyz and every other answer names the problem.
"""

import os
from pathlib import Path

import azure.functions as func

from core.authors.intact import intact
from core.basics.first_imports import IMPORTS
from core.project_file import ProjectFileError, read_project_settings
from core.safety.safe_log import safe_logger
from triggers.app_shape import AppShape, find_slot_shortage, find_thread_shortage, read_shape
from triggers.drain import install_drain
from triggers.presence import start_presence
from triggers.worker_log import show_fields_in_worker_log

CONNECTION = "ServiceBusConnection"
# Without it there is nothing to register with.
DATABASE_SETTING = "COREMACHINE_DATABASE_URL"
# All: what a path does not know is answered by the API, not by the host. By name, since the library's list grows.
HTTP_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(shape: AppShape) -> func.FunctionApp:
    """The app with the functions that its shape asks for; what they run is imported when they first run."""
    level = func.AuthLevel.ANONYMOUS if shape.http_auth == "anonymous" else func.AuthLevel.FUNCTION
    function_app = func.FunctionApp(http_auth_level=level)
    for problem in shape.problems:
        safe_logger(__name__).error("app_misconfigured %s", problem)
    if shape.serves_http:
        _add_http(function_app, shape.problems)
    if shape.jobs_queue is not None:
        _add_jobs_queue(function_app, shape.jobs_queue)
    for logical, real in shape.task_queues.items():
        _add_task_queue(function_app, logical, real)
    for logical, real in shape.dead_letter_queues.items():
        _add_dead_letters(function_app, logical, real)
    if shape.sweep_schedule is not None:
        _add_janitor(function_app, shape.sweep_schedule)
    return function_app


def _add_http(function_app: func.FunctionApp, problems: tuple[str, ...]) -> None:
    # Before the catch-all, also by name: Azure tries routes in the order of names, and probes have no key.
    @function_app.function_name("livez")
    @function_app.route(route="api/livez", methods=["GET", "HEAD"], auth_level=func.AuthLevel.ANONYMOUS)
    async def livez(req: func.HttpRequest) -> func.HttpResponse:
        # On the event loop: handlers may have all threads.
        del req
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return func.HttpResponse('{"status":"alive"}', mimetype="application/json", headers=headers)

    @function_app.function_name("web_api")
    @function_app.route(route="{*route}", methods=HTTP_METHODS)
    async def web_api(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
        with IMPORTS.first("triggers.http"):
            from triggers.http import answer  # noqa: PLC0415 - FastAPI is for apps that get requests

        return await answer(req, context, problems=problems)


def _add_jobs_queue(function_app: func.FunctionApp, queue: str) -> None:
    @function_app.function_name("process_jobs")
    @function_app.service_bus_queue_trigger(arg_name="message", queue_name=queue, connection=CONNECTION)
    def process_jobs(message: func.ServiceBusMessage) -> None:
        with IMPORTS.first("triggers.queues"):
            from triggers.queues import receive_job_message  # noqa: PLC0415 - at the first message

        with intact.looking():
            receive_job_message(message)


def _add_task_queue(function_app: func.FunctionApp, logical: str, queue: str) -> None:
    @function_app.function_name(f"process_tasks_{logical}")
    @function_app.service_bus_queue_trigger(arg_name="message", queue_name=queue, connection=CONNECTION)
    def process_tasks(message: func.ServiceBusMessage) -> None:
        with IMPORTS.first("triggers.queues"):
            from triggers.queues import receive_task_message  # noqa: PLC0415 - at the first message

        with intact.looking():
            receive_task_message(message, queue=logical)


def _add_dead_letters(function_app: func.FunctionApp, logical: str, queue: str) -> None:
    @function_app.function_name(f"dead_letters_{logical}")
    @function_app.service_bus_queue_trigger(
        arg_name="message",
        queue_name=f"{queue}/$DeadLetterQueue",
        connection=CONNECTION,
        # As it came: what nobody could read may be no text.
        data_type=func.DataType.BINARY,
    )
    def dead_letters(message: func.ServiceBusMessage) -> None:
        with IMPORTS.first("triggers.dead_letters"):
            from triggers.dead_letters import receive_dead_letter  # noqa: PLC0415 - at the first message

        with intact.looking():
            receive_dead_letter(logical, message)


def _add_janitor(function_app: func.FunctionApp, schedule: str) -> None:
    @function_app.function_name("janitor_sweep")
    @function_app.timer_trigger(arg_name="timer", schedule=schedule, use_monitor=False)
    def janitor_sweep(timer: func.TimerRequest) -> None:
        with IMPORTS.first("triggers.timers"):
            from triggers.timers import sweep  # noqa: PLC0415 - at the first sweep

        with intact.looking():
            sweep(past_due=timer.past_due)


def _tell_shortages(shape: AppShape, host_json: Path) -> None:
    if (threads := find_thread_shortage(shape, os.environ, host_json)) is not None:
        safe_logger(__name__).warning("too_few_threads %s", threads)
    if (messages := find_slot_shortage(shape, os.environ, host_json)) is not None:
        safe_logger(__name__).warning("too_few_messages %s", messages)


def load_app(folder: Path) -> func.FunctionApp:
    """The app that the environment describes.

    Args:
        folder: Holds host.json, and perhaps pyproject.toml with the project's jobs and queues.
    """
    install_drain()
    show_fields_in_worker_log()
    try:
        # In the environment, so that everything else in this process and its children has them.
        os.environ.update(read_project_settings(folder) | os.environ)
    except ProjectFileError as error:
        return create_app(AppShape(http_auth=read_shape(os.environ).http_auth, problems=tuple(error.problems)))
    shape = read_shape(os.environ)
    _tell_shortages(shape, folder / "host.json")
    if not shape.problems and os.environ.get(DATABASE_SETTING):
        start_presence()
    return create_app(shape)
