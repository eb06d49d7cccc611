"""Which apps are loaded, which are refused as a whole, and what costs one function: as in Azure, with the reason."""

import json
import os
import subprocess
import sys

import pytest

from coremachine.local.host.errors import AppLoadError
from coremachine.local.host.indexing import index_app
from coremachine.local.host.retry import RetryPolicy

from .conftest import HERE, NO_BROKER
from .load_cases import APP, BLOB, HTTP, LOADED, REFUSED, REQ, SB
from .test_ms_runtime import microsoft

ENVIRONMENT = {"C": NO_BROKER, "JUNK": "junk", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}


@pytest.fixture
def index(tmp_path):
    def load(source: str, environment: dict[str, str] = ENVIRONMENT, **options):
        (tmp_path / "function_app.py").write_text(source)
        return index_app(tmp_path, environment, **options)

    return load


@pytest.mark.parametrize("name", LOADED)
def test_app_is_loaded(index, name):
    found = index(LOADED[name])
    assert len(found.functions) + len(found.errors) == 1


@pytest.mark.parametrize("name", REFUSED)
def test_app_is_refused(index, name):
    with pytest.raises(AppLoadError) as refused:
        index(REFUSED[name])
    assert any(word in str(refused.value) for word in ("found", "resolved", "failed", "unique"))


@pytest.mark.parametrize("failing", ["raise KeyboardInterrupt", "raise Mute()"])
def test_an_import_that_raises_what_nobody_expects_is_refused_with_its_name(index, failing):
    mute = "class Mute(ValueError):\n    def __str__(self): raise RuntimeError\n"
    with pytest.raises(AppLoadError, match=r"KeyboardInterrupt|Mute: \(its __str__ raised RuntimeError\)"):
        index(mute + failing)


@microsoft
def test_microsofts_runtime_loads_and_refuses_the_same(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    environment.pop("CONTAINER_NAME", None)
    command = [sys.executable, str(HERE / "load_apps.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, reason in verdicts.items() if reason} == set(REFUSED)
    # For reasons of its own, not for what the messages that it is given here lack.
    assert [name for name, reason in verdicts.items() if "AttributeError" in (reason or "")] == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (LOADED["http with a malformed route"], "route '{x'"),
        (APP + "@app.route(route=5)\ndef f(req): ...\n", "a value that cannot be used: expected string"),
        (
            APP + "@app.function_name('my func!')\n@app.route(route='x')\ndef f(req): ...\n",
            "expected a name of 1 to 128",
        ),
        (APP + "@app.function_name('Host')\n@app.route(route='x')\ndef f(req): ...\n", "is not 'host'"),
        (SB.replace("'C'", "'JUNK'") + "def f(m): ...\n", "app setting JUNK: expected 'Endpoint=sb://"),
        (LOADED["timer with a missing setting"], "'NO_SUCH'"),
        (APP + "@app.timer_trigger(arg_name='t', schedule='0 * *')\ndef f(t: func.TimerRequest): ...\n", "3 fields"),
        (SB.replace("'q'", "'q/$Odd'") + "def f(m: func.ServiceBusMessage): ...\n", "sub-queue"),
        (BLOB.replace("'c/{name}'", "'c/{name'") + "def f(b: func.InputStream): ...\n", "path 'c/{name'"),
        (BLOB.replace("arg_name", "source='EventGrid', arg_name") + "def f(b: bytes): ...\n", "LogsAndContainerScan"),
        (SB.replace("'C'", "'D'") + "def f(m: func.ServiceBusMessage): ...\n", "D__fullyQualifiedNamespace"),
        (
            APP + "@app.cosmos_db_trigger(arg_name='d', container_name='c', database_name='d', connection='C')\n"
            "def f(d: func.DocumentList): ...\n",
            "cosmosDBTrigger",
        ),
        (
            HTTP + "@app.table_input(arg_name='b', table_name='t', connection='C')\n" + REQ + ", b: str) -> str: ...\n",
            "input binding 'table'",
        ),
        (
            HTTP
            + "@app.table_output(arg_name='b', table_name='t', connection='C')\n"
            + REQ
            + ", b: func.Out[str]) -> str: ...\n",
            "'table'",
        ),
    ],
)
def test_binding_that_cannot_work_costs_one_function(index, source, reason):
    good = "@app.route(route='good')\ndef good(req: func.HttpRequest) -> str: ...\n"
    found = index(source + good)
    assert list(found.functions) == ["good"]
    (error,) = found.errors
    assert reason in str(error)


def test_trigger_for_blobs_needs_the_account_of_the_host_too(index):
    """Azure keeps receipts there, whatever account the blobs are in."""
    (error,) = index(BLOB + "def f(b: func.InputStream): ...\n", {"C": NO_BROKER}).errors
    assert "AzureWebJobsStorage" in str(error)


def test_functions_of_host_json_are_the_only_ones(index):
    """Upper and lower case are the same, as in Azure."""
    found = index(LOADED["http"] + "@app.route(route='y')\ndef g(req): ...\n", only=["G", "h"])
    assert list(found.functions) == ["g"]
    assert found.disabled == ("f",)
    assert "'h'" in found.warnings[0]


def test_retry_policy_counts_for_timers_and_is_said_to_be_ignored_for_others(index):
    retry = "@app.retry(strategy='fixed_delay', max_retry_count='3', delay_interval='00:00:05')\n"
    timer = "@app.timer_trigger(arg_name='t', schedule='0 * * * * *')\ndef t(t: func.TimerRequest): ...\n"
    found = index(f"{APP}{retry}{timer}{retry}@app.route(route='y')\ndef g(req): ...\n")
    policy = found.functions["t"].retry
    assert (policy.max_retry_count, policy.delay(1), policy.delay(3)) == (3, 5.0, 5.0)
    assert found.functions["g"].retry is None
    assert "'g'" in found.warnings[0]
    assert "ignored" in found.warnings[0]


def test_retry_of_host_json_counts_for_timers_without_a_policy_of_their_own(index):
    of_host = RetryPolicy(9, 1.0, 1.0)
    retry = "@app.retry(strategy='fixed_delay', max_retry_count='3', delay_interval='00:00:05')\n"
    timer = "@app.timer_trigger(arg_name='t', schedule='0 * * * * *')\ndef {}(t: func.TimerRequest): ...\n"
    source = f"{APP}{retry}{timer.format('own')}{timer.format('other')}@app.route(route='y')\ndef g(req): ...\n"
    found = index(source, retry=of_host)
    retries = {name: function.retry and function.retry.max_retry_count for name, function in found.functions.items()}
    assert retries == {"own": 3, "other": 9, "g": None}
    assert not found.warnings


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("strategy='linear', max_retry_count='1'", "strategy"),
        ("strategy='fixed_delay', max_retry_count='x', delay_interval='00:00:05'", "max_retry_count"),
        ("strategy='fixed_delay', max_retry_count='1'", "delay_interval"),
        ("strategy='exponential_backoff', max_retry_count='1', minimum_interval='00:00:05'", "maximum_interval"),
    ],
)
def test_malformed_retry_policy_costs_its_function(index, fields, reason):
    timer = "@app.timer_trigger(arg_name='t', schedule='0 * * * * *')\ndef t(t: func.TimerRequest): ...\n"
    (error,) = index(f"{APP}@app.retry({fields})\n{timer}").errors
    assert reason in str(error)


def test_app_of_the_v1_model_is_named_as_such(tmp_path):
    (tmp_path / "Orders").mkdir()
    (tmp_path / "Orders" / "function.json").write_text("{}")
    with pytest.raises(AppLoadError, match=r"v1 programming model.*Orders"):
        index_app(tmp_path, {})


def test_functions_of_the_v1_model_beside_others_are_named(index, tmp_path):
    (tmp_path / "Orders").mkdir()
    (tmp_path / "Orders" / "function.json").write_text("{}")
    assert "Orders" in index(LOADED["http"]).warnings[0]
