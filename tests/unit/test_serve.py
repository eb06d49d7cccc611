"""What `coremachine serve` refuses before anything starts, and its log of JSON lines."""

import json
import logging
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coremachine.local.host.logs import FORMAT_SETTING, JsonFormatter
from coremachine.local.jobs_check import find_jobs_problem
from coremachine.local.serve import AppServer, CannotServe, Serving, check_environment

ROOT = Path(__file__).parents[2]
SERVING = Serving(ROOT)
GIVEN = {
    "COREMACHINE_DATABASE_URL": "postgresql://x/y",
    "ServiceBusConnection": "Endpoint=sb://x;SharedAccessKeyName=n;SharedAccessKey=k",
    "COREMACHINE_FUNCTION_KEY": "k",
}


def test_settings_are_completed_with_threads_and_key():
    settings = check_environment(SERVING, GIVEN)
    assert settings["LOCAL_HOST_FUNCTION_KEY"] == "k"
    assert int(settings["PYTHON_THREADPOOL_THREAD_COUNT"]) > 8


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"COREMACHINE_DATABASE_URL": ""}, "COREMACHINE_DATABASE_URL: expected a PostgreSQL URL"),
        ({"COREMACHINE_FUNCTION_KEY": ""}, "COREMACHINE_FUNCTION_KEY: expected the key that requests have to send"),
        ({"COREMACHINE_HTTP_AUTH": "none"}, "COREMACHINE_HTTP_AUTH: expected one of function, anonymous, found 'none'"),
        (
            {"COREMACHINE_TASK_ROUTES": "cut=gpu"},
            "COREMACHINE_TASK_ROUTES: task type 'cut': expected one of the queues tasks, raster, found 'gpu'",
        ),
        ({"AzureFunctionsJobHost__functionTimeout": "soon"}, "functionTimeout must be a TimeSpan"),
        ({"COREMACHINE_SWEEP_SCHEDULE": "* * * * * 99"}, "COREMACHINE_SWEEP_SCHEDULE: schedule '* * * * * 99': "),
        ({"COREMACHINE_LOG_FORMAT": "xml"}, "COREMACHINE_LOG_FORMAT: expected one of text, json, found 'xml'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(changed, problem):
    with pytest.raises(CannotServe) as refused:
        check_environment(SERVING, GIVEN | changed)
    assert [problem in found for found in refused.value.problems] == [True]


def test_settings_of_a_developers_machine_are_not_those_of_a_container(tmp_path, caplog):
    """A copied local.settings.json opened the HTTP API to any caller: it has COREMACHINE_HTTP_AUTH anonymous."""
    for name in ("host.json", "function_app.py"):
        shutil.copy(ROOT / name, tmp_path)
    values = {"COREMACHINE_HTTP_AUTH": "anonymous", "PYTHON_THREADPOOL_THREAD_COUNT": "1"}
    (tmp_path / "local.settings.json").write_text(json.dumps({"Values": values}))
    with pytest.raises(CannotServe, match="COREMACHINE_FUNCTION_KEY: expected the key"):
        check_environment(Serving(tmp_path), GIVEN | {"COREMACHINE_FUNCTION_KEY": ""})
    assert int(check_environment(Serving(tmp_path), GIVEN)["PYTHON_THREADPOOL_THREAD_COUNT"]) > 8
    server = AppServer(Serving(tmp_path), GIVEN)
    assert not set(values.items()) & set(server._host._environment.items())
    assert "local_settings_not_read" in caplog.text


def test_a_port_for_probes_that_is_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=f"for probes on 127.0.0.1, port {port}: .*choose another --host or --h"):
            AppServer(Serving(ROOT, health_port=port), GIVEN)._probes()


def test_an_app_without_its_jobs_is_not_ready(tmp_path):
    """Workers load them with their first message: a rollout of a release that cannot import them went on."""
    (tmp_path / "my_jobs").mkdir()
    (tmp_path / "my_jobs" / "__init__.py").touch()
    (tmp_path / "my_jobs" / "sums.py").write_text("print('hello')\nimport numpi\n")
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    (tmp_path / "function_app.py").touch()
    serving = Serving(tmp_path, port=0, health_port=0)
    with pytest.raises(
        CannotServe, match=r"COREMACHINE_JOBS=my_jobs: my_jobs.sums.py, line 2: expected the module 'numpi'"
    ) as refused:
        AppServer(serving, GIVEN | {"COREMACHINE_JOBS": "my_jobs"}).run()
    assert ["hello" in problem for problem in refused.value.problems] == [False]
    (tmp_path / "my_jobs" / "sums.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(CannotServe, match=r"imported the jobs ended with 7"):
        AppServer(serving, GIVEN | {"COREMACHINE_JOBS": "my_jobs"}).run()


def test_jobs_that_are_there_are_no_problem():
    assert find_jobs_problem(ROOT, ROOT, check_environment(SERVING, GIVEN), 60) is None


@pytest.mark.parametrize("changed", [{"COREMACHINE_APP_MODE": "worker"}, {"COREMACHINE_HTTP_AUTH": "anonymous"}])
def test_no_key_is_needed_where_none_is_asked_for(changed):
    assert check_environment(SERVING, GIVEN | {"COREMACHINE_FUNCTION_KEY": ""} | changed)


def test_command_ends_with_the_reason(tmp_path):
    command = [sys.executable, "-m", "coremachine.cli", "serve", "--port", "0", "--health-port", "0"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", FORMAT_SETTING: "json"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "COREMACHINE_DATABASE_URL: expected a PostgreSQL URL" in done.stdout


def formatted(**fields):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "a %s", "args": ("b\u2028\n",), **fields})
    (line,) = JsonFormatter("worker 0").format(record).split("\n")
    return json.loads(line)


def test_record_is_one_line_of_json_with_its_fields():
    found = formatted(job_id="j", count=3, when=Path("x"), nothing=None)
    assert found.pop("time").endswith("+00:00")
    base = {"level": "INFO", "process": "worker 0", "logger": "n", "message": "a b\u2028\n"}
    assert found == {**base, "job_id": "j", "count": 3, "when": "x"}


def test_exception_is_a_field():
    try:
        int("no luck")
    except ValueError:
        found = formatted(exc_info=sys.exc_info(), level="mine")
    assert found["exception"].splitlines()[-1] == "ValueError: invalid literal for int() with base 10: 'no luck'"
    assert found["level"] == "INFO"
