"""function_app.py as each mode loads it: which functions, with which bindings, importing how much."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triggers.app_shape import find_thread_shortage, read_shape
from triggers.functions import create_app

ROOT = Path(__file__).parents[3]
HEAVY = (
    "azure.identity",
    "azure.servicebus",
    "core.machine",
    "core.models",
    "fastapi",
    "infrastructure",
    "jobs",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "pydantic_settings",
    "rasterio",
)
SAYS_WHAT_IT_IMPORTED = """
import json, sys
import function_app
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""
API = ["livez", "web_api"]
JOBS = ["process_jobs"]
TASKS = ["process_tasks_tasks", "process_tasks_raster"]
DEAD = ["dead_letters_jobs", "dead_letters_tasks", "dead_letters_raster"]
JANITOR = ["janitor_sweep"]


def bindings(**settings: str) -> dict[str, list[dict]]:
    """The bindings by function name, as the host is told them."""
    functions = create_app(read_shape(settings)).get_functions()
    return {
        function.get_function_name(): [json.loads(text) for text in function.get_raw_bindings()]
        for function in functions
    }


@pytest.mark.parametrize(
    ("mode", "functions"),
    [
        ("standalone", [*API, *JOBS, *TASKS, *DEAD, *JANITOR]),
        ("platform", [*API, *JOBS, *DEAD, *JANITOR]),
        ("worker", TASKS),
    ],
)
def test_each_mode_has_its_functions(mode, functions):
    assert list(bindings(COREMACHINE_APP_MODE=mode)) == functions


def test_worker_serves_the_queues_it_is_told():
    functions = bindings(COREMACHINE_APP_MODE="worker", COREMACHINE_WORKER_QUEUES="raster")
    assert list(functions) == ["process_tasks_raster"]


def test_queue_functions_read_the_real_queues_of_the_settings():
    functions = bindings(COREMACHINE_JOBS_QUEUE="my-jobs", COREMACHINE_TASK_QUEUES="tasks=my-tasks")
    found = {name: functions[name][0]["queueName"] for name in ("process_jobs", "process_tasks_tasks")}
    assert found == {"process_jobs": "my-jobs", "process_tasks_tasks": "my-tasks"}
    for name in found:
        assert functions[name][0]["connection"] == "ServiceBusConnection"
        # One message an invocation: a batch is abandoned as a whole.
        assert "cardinality" not in functions[name][0]


def test_dead_letters_of_each_queue_are_taken_as_bytes():
    functions = bindings(COREMACHINE_JOBS_QUEUE="my-jobs", COREMACHINE_TASK_QUEUES="tasks=my-tasks")
    found = {name: binding[0] for name, binding in functions.items() if name.startswith("dead_letters_")}
    assert {name: binding["queueName"] for name, binding in found.items()} == {
        "dead_letters_jobs": "my-jobs/$DeadLetterQueue",
        "dead_letters_tasks": "my-tasks/$DeadLetterQueue",
    }
    assert {(binding["connection"], binding["dataType"]) for binding in found.values()} == {
        ("ServiceBusConnection", "BINARY")
    }


def test_http_asks_for_a_key_except_for_the_probe():
    """Destructive routes without a key, secrets in rows, pickles (lesson D42)."""
    functions = bindings()
    assert [functions[name][0]["authLevel"] for name in API] == ["ANONYMOUS", "FUNCTION"]
    assert [functions[name][0]["route"] for name in API] == ["api/livez", "{*route}"]
    assert "DELETE" in functions["web_api"][0]["methods"]
    assert bindings(COREMACHINE_HTTP_AUTH="anonymous")["web_api"][0]["authLevel"] == "ANONYMOUS"


def test_janitor_sweeps_on_the_schedule_of_the_settings():
    assert bindings(COREMACHINE_SWEEP_SCHEDULE="0 * * * * *")["janitor_sweep"][0]["schedule"] == "0 * * * * *"


def test_misconfigured_app_serves_http_to_say_so():
    """An import that failed switched a feature off in silence (lesson D39)."""
    assert list(bindings(COREMACHINE_APP_MODE="wroker")) == API


def run_python(code: str, *arguments: str, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COREMACHINE_")}
    environment |= {"PYTHONPATH": str(ROOT), **settings}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["standalone", "platform", "worker"])
def test_cold_start_imports_nothing_heavy(mode):
    output = run_python(SAYS_WHAT_IT_IMPORTED, json.dumps(HEAVY), COREMACHINE_APP_MODE=mode)
    assert json.loads(output) == []


def test_process_that_ran_nothing_imports_nothing_to_end():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([n for n in ('pydantic', 'psycopg', 'core.machine') if n in sys.modules]))\n"
        "import function_app"
    )
    assert run_python(code, COREMACHINE_APP_MODE="worker").strip() == "[]"


SHOWS_WHAT_A_PROJECT_HAS = """
import json, os, pathlib
from triggers.functions import load_app
app = load_app(pathlib.Path.cwd())
names = [function.get_function_name() for function in app.get_functions()]
print(json.dumps([names, os.environ.get("COREMACHINE_JOBS"), os.environ.get("COREMACHINE_JOBS_QUEUE")]))
"""


def test_a_project_s_own_table_counts_where_a_setting_is_missing(tmp_path, monkeypatch):
    table = '[tool.coremachine]\njobs = "mine"\nqueues = { jobs = "my-jobs", heavy = "my-heavy" }\n'
    (tmp_path / "pyproject.toml").write_text(table)
    monkeypatch.chdir(tmp_path)
    names, jobs, queue = json.loads(run_python(SHOWS_WHAT_A_PROJECT_HAS))
    assert "process_tasks_heavy" in names
    assert "process_tasks_tasks" not in names
    assert (jobs, queue) == ("mine", "my-jobs")
    _, jobs, queue = json.loads(run_python(SHOWS_WHAT_A_PROJECT_HAS, COREMACHINE_JOBS="other"))
    assert (jobs, queue) == ("other", "my-jobs")


def test_an_app_with_a_table_that_cannot_be_used_serves_http_to_say_so(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.coremachine]\njob = "mine"\n')
    monkeypatch.chdir(tmp_path)
    names, _, _ = json.loads(run_python(SHOWS_WHAT_A_PROJECT_HAS))
    assert names == API


def test_worker_imports_no_http_framework_when_it_runs():
    code = (
        "import sys, triggers.queues, triggers.timers; print([n for n in ('fastapi', 'rasterio') if n in sys.modules])"
    )
    assert run_python(code, COREMACHINE_APP_MODE="worker").strip() == "[]"


def test_host_json_is_what_the_app_needs():
    host = json.loads((ROOT / "host.json").read_text())
    # FastAPI's paths begin with /api themselves.
    assert host["extensions"]["http"]["routePrefix"] == ""
    service_bus = host["extensions"]["serviceBus"]
    # A lock that is renewed for less than an invocation may last would hand the message to a second worker.
    assert service_bus["maxAutoLockRenewalDuration"] == host["functionTimeout"] == "00:30:00"
    assert service_bus["autoCompleteMessages"] is True


def test_example_settings_make_a_usable_app():
    values = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]
    assert read_shape(values).problems == ()
    assert all(isinstance(value, str) for value in values.values())
    # Messages beyond the pool of threads would sit locked in the worker while their lock runs out.
    assert find_thread_shortage(read_shape(values), values, ROOT / "host.json") is None
