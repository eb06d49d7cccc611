"""`coremachine run-task`: a task of a job once more, in this process, where a debugger can look at it."""

import json
import logging
import os
import pdb  # noqa: T100 - what --pdb is for
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import uuid4

import typer

from core.app_queues import DEFAULT_TASK_QUEUES, read_task_queues
from core.context import TaskContext
from core.fan_in import fan_in_reader
from core.isolation.function import ProcessFunction
from core.models import StageRef
from core.models.context import CompletedTask, FailedTask
from core.project_file import ProjectFileError, read_project_settings
from core.safety.safe_text import text_of, type_name
from coremachine.cli.client import ApiClient, Json, choose_server
from coremachine.cli.errors import CliError, Exit, UsageProblem
from coremachine.cli.options import JobArgument, OutputOption, UrlOption, wants_json
from coremachine.cli.render import print_json, print_whole, say
from coremachine.cli.tasks import RunOption, TaskArgument, find_task
from coremachine.local.app_folder import find_app
from coremachine.local.stack_file import find_stack_of

if TYPE_CHECKING:
    from core.ports import HandlerFunction
    from jobs.registry import Registry

_MOST_TASKS = 1_000_000
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class ServerResults:
    """A `ResultStore` that reads over the HTTP API. It holds a stage's rows in memory, to give them in their order."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def stream_results(self, ref: StageRef) -> Iterator[CompletedTask]:
        for row in self._rows(ref, "completed"):
            yield CompletedTask(row["task_id"], row["task_index"], row["name"], row["parameters"], row["result"] or {})

    def stream_failures(self, ref: StageRef) -> Iterator[FailedTask]:
        for row in self._rows(ref, "failed"):
            yield FailedTask(row["task_id"], row["task_index"], row["name"], row["parameters"], row["error"] or {})

    def _rows(self, ref: StageRef, status: str) -> Iterator[Json]:
        found = self._client.list_tasks(ref.job_id, status=status, stage=ref.stage, run=ref.run, limit=_MOST_TASKS)
        for row in sorted(found, key=lambda row: int(row["task_index"])):
            is_cut = status == "failed" or any(map(_is_cut, (row["parameters"], row["result"])))
            yield self._client.get_task(ref.job_id, row["task_id"], run=ref.run) if is_cut else row


def run_task(
    job_id: JobArgument,
    task_id: TaskArgument,
    run: RunOption = None,
    pdb_after: Annotated[
        bool, typer.Option("--pdb", help="Open the debugger where the handler raises; breakpoint() works without it.")
    ] = False,
    app_dir: Annotated[
        Path | None,
        typer.Option(
            "--app-dir",
            exists=True,
            file_okay=False,
            help="Holds function_app.py. Default: this folder or one above it.",
        ),
    ] = None,
    output: OutputOption = None,
    url: UrlOption = None,
) -> None:
    """Run a task's handler again, in this process, with the parameters and earlier results that it had.

    The job is not touched.

    The handler is that of this folder's code. What it does outside (files, requests) it really does. Exit code 1 if
    it fails.

    For example:

        coremachine run-task 3f2a9c s2-three.txt

        coremachine run-task 3f2a9c three.txt --pdb
    """
    with ApiClient(choose_server(url)) as client:
        whole_id = client.resolve_job_id(job_id)
        task = find_task(client, whole_id, task_id, run)
        context = _context_of(client, whole_id, task)
        _adopt_environment(client.url, app_dir)
        function = _find_handler(task["task_type"])
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=_LOG_FORMAT)
        logging.getLogger("httpx").setLevel(logging.WARNING)
        with fan_in_reader(cast("Any", ServerResults(client))):
            returned = _call(function, dict(task["parameters"]), context, pdb_after=pdb_after)
    _show_result(task["task_type"], returned, as_json=wants_json(output))


def _context_of(client: ApiClient, job_id: str, task: Json) -> TaskContext:
    job = client.get_job(job_id)
    parameters = job["parameters"] if job["run"] == task["run"] else client.get_run(job_id, task["run"])["parameters"]
    return TaskContext(
        job_id=job_id,
        job_type=job["job_type"],
        stage=task["stage"],
        task_id=task["task_id"],
        task_index=task["task_index"],
        attempt=max(1, task["attempt"]),
        job_parameters=parameters,
        correlation_id=job["correlation_id"],
        # Of no attempt: what it writes under this name is nobody else's.
        lease_id=uuid4(),
        _report=_show_progress,
    )


def _adopt_environment(url: str, app_dir: Path | None) -> None:
    """Settings and module path as the app has them: of the stack, if the server is the one of this folder."""
    from coremachine.local.host.local_settings import app_environment  # noqa: PLC0415 - other commands start faster without

    stack = find_stack_of(Path.cwd())
    stack = stack if stack is not None and stack.url == url else None
    folder = app_dir or find_app(Path.cwd()) or (Path(stack.app_dir) if stack is not None else Path.cwd())
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        settings = read_project_settings(folder)
    except ProjectFileError as error:
        raise UsageProblem(str(error)) from error
    environment = {**settings, **app_environment(folder, stack.environment if stack is not None else {})}
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def _find_handler(task_type: str) -> "HandlerFunction":
    handler = _load_registry().find_handler(task_type)
    if handler is None:
        raise UsageProblem(
            f"expected a handler for task type {task_type!r} in {_jobs_name()}, found none; run this in the folder of "
            "the app that has it, or set COREMACHINE_JOBS"
        )
    # Here a debugger can look at it; in a process of its own it could not.
    return handler.function.in_this_process() if isinstance(handler.function, ProcessFunction) else handler.function


def _load_registry() -> "Registry":
    from triggers.ports import ServicesNotReady  # noqa: PLC0415 - other commands start faster without
    from triggers.services import load_registry  # noqa: PLC0415

    queues, _ = read_task_queues(os.environ.get("COREMACHINE_TASK_QUEUES") or DEFAULT_TASK_QUEUES)
    try:
        return load_registry(_jobs_name(), queues)
    except ServicesNotReady as error:
        raise UsageProblem(str(error)) from error


def _jobs_name() -> str:
    from infrastructure.settings import Settings  # noqa: PLC0415 - as above

    return os.environ.get("COREMACHINE_JOBS") or str(Settings.model_fields["jobs"].default)


def _call(function: "HandlerFunction", params: dict[str, Any], context: TaskContext, *, pdb_after: bool) -> object:
    try:
        return function(params, context)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # From the handler on: the frames of this command are nobody's problem.
        trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
        say("".join(traceback.format_exception(type(error), error, trace)).rstrip())
        if pdb_after:
            _debug(trace or error.__traceback__)
        raise HandlerFailed(error) from error


def _debug(trace: TracebackType | None) -> None:
    """The debugger at the last line of the author's code; below it are the frames of what that called."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    below = next((number for number, name in enumerate(reversed(frames)) if _is_own(name)), 0)
    debugger = pdb.Pdb()
    debugger.reset()
    if below:
        debugger.cmdqueue.append(f"up {below}")
    debugger.interaction(None, trace)


def _is_own(file: str) -> bool:
    """Not of Python, nor of an installed package."""
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return Path(file).is_file() and not any(Path(file).is_relative_to(folder) for folder in libraries)


class HandlerFailed(CliError):
    """What the handler raised; its traceback has been shown."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the handler failed: {type_name(error)}: {text_of(error)}\nThe job was not touched.")


def _show_result(task_type: str, returned: object, *, as_json: bool) -> None:
    from core.authors.author_code import judge_returned  # noqa: PLC0415 - as above
    from core.errors import ContractViolationError, Failure  # noqa: PLC0415

    try:
        judged = judge_returned(task_type, returned)
    except ContractViolationError as error:
        raise HandlerFailed(error) from error
    if isinstance(judged, Failure):
        say(f"the handler reports a failure: {judged.error_type}: {judged.message}")
        raise typer.Exit(Exit.FAILED)
    result = json.loads(judged)
    if as_json:
        print_json(result)
    else:
        print_whole(result)
    say("The job was not touched: this result is not stored.")


def _show_progress(progress: Mapping[str, Any]) -> None:
    say(f"{progress['percent']:g} % {progress['message'] or ''}".rstrip())


def _is_cut(value: Any) -> bool:
    return isinstance(value, dict) and value.get("truncated") is True and "stored_bytes" in value
