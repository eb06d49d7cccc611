"""host.json, local.settings.json, the environment."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coremachine.local.host.errors import MissingSettingError, SettingsError
from coremachine.local.host.key_store import Keys
from coremachine.local.host.settings import (
    is_disabled,
    read_host_settings,
    resolve_references,
    share_of,
)
from coremachine.local.host.tracing import child_trace_parent


@pytest.fixture
def write_host(tmp_path):
    def write(document):
        (tmp_path / "host.json").write_text(json.dumps(document))
        return tmp_path

    return write


def test_defaults_are_those_of_the_real_host(write_host):
    settings = read_host_settings(write_host({"version": "2.0"}), {})
    assert settings.function_timeout_seconds == 1800
    assert settings.http.route_prefix == "api"
    assert settings.service_bus.max_concurrent_calls == 16
    assert settings.service_bus.auto_complete_messages
    assert settings.service_bus.max_auto_lock_renewal_seconds == 300
    assert settings.warnings == ()


def test_values_are_read_with_their_units(write_host):
    document = {
        "version": "2.0",
        "functionTimeout": "00:10:00",
        "logging": {"logLevel": {"default": "Debug"}},
        "extensions": {
            "http": {"routePrefix": "", "maxOutstandingRequests": 20, "maxConcurrentRequests": -1},
            "serviceBus": {"maxConcurrentCalls": 8, "maxAutoLockRenewalDuration": "-00:00:00.0010000"},
        },
    }
    settings = read_host_settings(write_host(document), {})
    assert settings.function_timeout_seconds == 600
    assert settings.log_level == "DEBUG"
    assert settings.http.route_prefix == ""
    assert settings.http.max_outstanding_requests == 20
    assert settings.http.max_concurrent_requests is None
    assert settings.service_bus.max_concurrent_calls == 8
    assert settings.service_bus.max_auto_lock_renewal_seconds is None


def test_environment_overrides_the_file(write_host):
    directory = write_host({"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 8}}})
    environment = {
        "AzureFunctionsJobHost__extensions__serviceBus__maxConcurrentCalls": "3",
        "AzureFunctionsJobHost__functionTimeout": "-1",
    }
    settings = read_host_settings(directory, environment)
    assert settings.service_bus.max_concurrent_calls == 3
    assert settings.function_timeout_seconds is None


def test_keys_that_change_nothing_here_are_named_in_a_warning(write_host):
    document = {
        "version": "2.0",
        "extensionBundle": {"id": "x", "version": "[4.*, 5.0.0)"},
        "extensions": {"serviceBus": {"prefetchCount": 10}},
        "concurrency": {"dynamicConcurrencyEnabled": True},
    }
    warnings = "\n".join(read_host_settings(write_host(document), {}).warnings)
    assert "extensions.servicebus.prefetchcount" in warnings
    assert "concurrency.dynamicconcurrencyenabled" in warnings
    assert "bundle" not in warnings


def test_unknown_keys_are_told_from_those_that_are_not_supported(write_host):
    document = {"version": "2.0", "extension": {"http": {"routePrefix": ""}}}
    document["concurrency"] = {"dynamicConcurrencyEnabled": True}
    document["extensions"] = {"serviceBus": {"messageHandlerOptions": {"maxConcurrentCalls": 1}}}
    document["logging"] = {"logLevel": {"Azure.Core": "Warning", "orders": "Debug"}}
    unknown, ignored, old, category = read_host_settings(write_host(document), {}).warnings
    assert "'extension.http.routeprefix' is unknown" in unknown
    assert "'concurrency.dynamicconcurrencyenabled' is not supported" in ignored
    assert "version 4" in old
    assert "'logging.loglevel.orders' is unknown" in category


def test_functions_to_run_may_be_listed(write_host):
    assert read_host_settings(write_host({"version": "2.0", "functions": ["a", "b"]}), {}).functions == ("a", "b")
    overrides = {"AzureFunctionsJobHost__functions__0": "c"}
    assert read_host_settings(write_host({"version": "2.0"}), overrides).functions == ("c",)
    assert read_host_settings(write_host({"version": "2.0"}), {}).functions is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"maxRetryCount": 3, "delayInterval": "00:00:05"}, (3, 5.0, 5.0)),
        ({"strategy": "FixedDelay", "maxRetryCount": -1, "delayInterval": "00:00:00"}, (None, 0.0, 0.0)),
        (
            {
                "strategy": "exponentialBackoff",
                "maxRetryCount": "5",
                "minimumInterval": "00:00:04",
                "maximumInterval": "00:15:00",
            },
            (5, 4.0, 900.0),
        ),
    ],
)
def test_retry_of_host_json_is_read(write_host, fields, expected):
    policy = read_host_settings(write_host({"version": "2.0", "retry": fields}), {}).retry
    assert (policy.max_retry_count, policy.first_seconds, policy.longest_seconds) == expected


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"delayInterval": "00:00:05"}, "maxRetryCount"),
        ({"maxRetryCount": 1}, "delayInterval"),
        ({"strategy": "exponentialBackoff", "maxRetryCount": 1, "minimumInterval": "00:00:05"}, "maximumInterval"),
        ({"strategy": "linear", "maxRetryCount": 1}, "'linear'"),
        ({"maxRetryCount": 1, "delayInterval": "00:00:05", "delay": 3}, "found delay"),
    ],
)
def test_unusable_retry_of_host_json_is_refused_by_the_name_of_its_key(write_host, fields, named):
    with pytest.raises(SettingsError, match=f"retry: .*{named}"):
        read_host_settings(write_host({"version": "2.0", "retry": fields}), {})


def test_log_levels_are_read_by_category(write_host):
    levels = {"default": "Warning", "Function.orders": "Debug", "Host": "None"}
    settings = read_host_settings(write_host({"version": "2.0", "logging": {"logLevel": levels}}), {})
    assert settings.log_level == "WARNING"
    assert settings.log_levels == {"function.orders": "DEBUG", "host": "CRITICAL"}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"version": "2.0", "functions": "all"}, "functions"),
        ({"version": "2.0", "extensions": {"queues": {"messageEncoding": "utf8"}}}, "messageEncoding"),
        ({"version": "2.0", "extensions": {"serviceBus": {"maxBatchWaitTime": "-1"}}}, "maxBatchWaitTime"),
        ({"version": "2.0", "logging": {"logLevel": {"Host": "Loud"}}}, "host"),
        ({}, '"version": "2.0"'),
        ({"version": "1.0"}, "'1.0'"),
        ([], "JSON object"),
        ({"version": "2.0", "functionTimeout": "soon"}, "functionTimeout"),
        ({"version": "2.0", "functionTimeout": "00:00:00"}, "functionTimeout"),
        ({"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 0}}}, "maxConcurrentCalls"),
        ({"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": "many"}}}, "maxConcurrentCalls"),
        ({"version": "2.0", "extensions": {"serviceBus": {"autoCompleteMessages": 1}}}, "autoCompleteMessages"),
        ({"version": "2.0", "extensions": {"http": {"routePrefix": None}}}, "routePrefix"),
        ({"version": "2.0", "logging": {"logLevel": {"default": "Loud"}}}, "logLevel"),
    ],
)
def test_unusable_host_json_is_refused_by_the_name_of_its_key(write_host, document, named):
    with pytest.raises(SettingsError, match=named):
        read_host_settings(write_host(document), {})


def test_missing_or_broken_host_json_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"host\.json does not exist"):
        read_host_settings(tmp_path, {})
    (tmp_path / "host.json").write_text("{")
    with pytest.raises(SettingsError, match="not valid JSON"):
        read_host_settings(tmp_path, {})


def test_references_are_replaced_and_a_missing_one_is_named():
    assert resolve_references("%A%/x/%B%", {"A": "1", "B": "2"}, "f") == "1/x/2"
    with pytest.raises(MissingSettingError, match="its queue needs the app setting 'B'"):
        resolve_references("%A%/%B%", {"A": "1"}, "its queue")


def test_function_is_disabled_by_either_form_of_the_setting():
    assert is_disabled("tick", {"AzureWebJobs.tick.Disabled": "true"})
    assert is_disabled("tick", {"AzureWebJobs_tick_Disabled": "1"})
    assert not is_disabled("tick", {"AzureWebJobs.tick.Disabled": "false", "AzureWebJobs.tock.Disabled": "true"})


@given(st.integers(1, 100), st.integers(1, 20))
def test_shares_add_up_to_the_limit_and_nobody_gets_none(total, workers):
    shares = [share_of(total, workers, index) for index in range(workers)]
    assert min(shares) >= 1
    assert sum(shares) == max(total, workers)
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("level", "presented", "allowed"),
    [
        ("anonymous", "", True),
        ("function", "", False),
        ("function", "host-key", True),
        ("function", "master-key", True),
        ("function", "other", False),
        ("admin", "host-key", False),
        ("admin", "master-key", True),
    ],
)
def test_keys_open_what_their_level_allows(level, presented, allowed):
    assert Keys("master-key", {"default": "host-key"}).allow(level, presented) is allowed


def test_span_stays_in_the_trace_of_its_parent():
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    child = child_trace_parent(parent)
    assert child.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert child.endswith("-01")
    assert child != parent
    assert child_trace_parent("nonsense") != child_trace_parent("nonsense")
