"""The page that compares the host with Azure's, row by row: each claim has its test, each message is the code's."""

import re

import pytest

from coremachine.local.host import host_keys
from tests.documents import ROOT

PAGE = (ROOT / "docs/reference/functions-host.md").read_text(encoding="utf-8")
# The beginning of each row, and the tests that hold it.
TESTS = {
    "`Values` of local.settings.json": ("test_real_environment_wins_over_the_file",),
    "`Host` of local.settings.json": ("test_host_says_how_to_listen", "test_page_that_is_let_in_may_read_the_answer"),
    "local.settings.json may be encrypted": ("test_unusable_values_are_refused_by_name",),
    "`ConnectionStrings`": ("test_what_is_ignored_is_named",),
    "`%NAME%`": ("test_references_are_replaced_and_a_missing_one_is_named",),
    "`AzureFunctionsJobHost__": ("test_environment_overrides_the_file",),
    "`AzureWebJobs.": ("test_function_is_disabled_by_either_form_of_the_setting",),
    "host.json has version 2.0": ("test_missing_or_broken_host_json_is_refused",),
    "`functionTimeout`": ("test_worker_with_an_overdue_function_is_replaced", "test_values_are_read_with_their_units"),
    "`functions` lists": ("test_functions_of_host_json_are_the_only_ones", "test_functions_to_run_may_be_listed"),
    "`extensions.http`: `routePrefix`": ("test_more_requests_than_allowed_are_told_to_come_again",),
    "`extensions.http`: `customHeaders`": ("test_keys_that_change_nothing_here_are_named_in_a_warning",),
    "`extensions.serviceBus`: `autoComplete": ("test_values_are_read_with_their_units",),
    "`extensions.serviceBus`: `clientRetry": ("test_keys_that_change_nothing_here_are_named_in_a_warning",),
    "the Service Bus sections of extension 4": ("test_unknown_keys_are_told_from_those_that_are_not_supported",),
    "`extensions.queues`": ("test_storage_queues_and_blobs_are_written_and_read",),
    "`extensions.blobs`": ("test_blobs_run_their_function_once_for_each_version",),
    "`logging.logLevel`": ("test_level_of_the_longest_category_counts", "test_log_levels_are_read_by_category"),
    "`retry` counts": ("test_retry_of_host_json_counts_for_timers_without_a_policy_of_their_own",),
    "telemetry, extension bundles": ("test_keys_that_change_nothing_here_are_named_in_a_warning",),
    "an unknown key": ("test_unknown_keys_are_told_from_those_that_are_not_supported",),
    "routes with ASP.NET's constraints": (
        "test_template_matches_the_paths_it_should",
        "test_malformed_template_is_refused_with_its_text",
    ),
    "routes are tried in the order": ("test_routes_are_tried_in_the_order_of_names",),
    "the method is part of the route": ("test_wrong_method_is_a_missed_route",),
    "header names in lower case": ("test_http_function_sees_the_request_and_shapes_the_response",),
    "text is the body": ("test_json_with_a_body_describes_the_response_and_other_text_is_its_body",),
    "other JSON text": ("test_json_with_a_body_describes_the_response_and_other_text_is_its_body",),
    "`None` fails": ("test_response_may_be_an_output_and_none_is_a_failure",),
    "a function that raises": ("test_failing_function_answers_500_and_the_log_has_the_traceback",),
    "keys in `x-functions-key`": (
        "test_keys_are_asked_for_when_authorization_is_on",
        "test_keys_open_what_their_level_allows",
    ),
    "keys for one function": (
        "test_a_function_key_opens_its_function_alone",
        "test_host_keys_open_every_function_until_they_are_removed",
        "test_the_master_key_is_changed_and_never_deleted",
    ),
    "`/admin/host/status`": ("test_functions_are_run_by_hand",),
    "NCRONTAB": ("test_next_time_is_the_first_match_after_the_instant", "test_day_and_weekday_must_both_match"),
    "`WEBSITE_TIME_ZONE`": (
        "test_zone_comes_from_the_environment_and_defaults_to_utc",
        "test_interval_runs_through_the_repeated_hour",
    ),
    "a timer never overlaps": ("test_timer_that_was_missed_fires_at_once_as_past_due",),
    "a failure does not end": ("test_timer_is_run_again_by_its_retry_policy", "test_retry_of_host_json_is_read"),
    "one instance fires": ("test_timers_fire_in_one_worker_and_on_startup_once",),
    "one message: peek-lock": (
        "test_success_completes_and_failure_abandons",
        "test_without_auto_complete_success_is_not_settled_but_failure_still_is",
    ),
    "its lock is renewed": (
        "test_lock_is_renewed_while_the_function_runs",
        "test_lock_is_not_renewed_beyond_the_limit",
    ),
    "a batch: all or none": ("test_function_that_fails_gives_back_its_whole_batch",),
    "a session: its messages": (
        "test_session_is_read_in_order_and_left_when_idle",
        "test_messages_of_a_session_run_beside_each_other_if_host_json_says_so",
    ),
    "a body is AMQP data": (
        "test_a_value_that_is_text_is_given_to_the_function",
        "test_a_body_that_is_no_data_fails_as_a_function_that_raises",
        "test_a_dead_letter_that_no_function_can_be_given_rests_before_it_is_abandoned",
    ),
    "queues, subscriptions": ("test_outputs_reach_queue_and_topic_and_their_functions",),
    "fields of a message": (
        "test_function_gets_what_the_real_host_sends",
        "test_fields_that_the_real_host_never_sends_are_none",
    ),
    "a batch without `data_type`": (),
    "a retry policy is ignored": ("test_retry_policy_counts_for_timers_and_is_said_to_be_ignored_for_others",),
    "what is under way": (
        "test_stop_takes_no_more_and_settles_what_is_in_flight",
        "test_giving_up_abandons_what_is_in_flight",
    ),
    "queue triggers": ("test_storage_queues_and_blobs_are_written_and_read",),
    "blob triggers: path": (
        "test_blobs_run_their_function_once_for_each_version",
        "test_path_takes_names_and_reads_its_parts",
    ),
    "blob triggers by Event Grid": ("test_binding_that_cannot_work_costs_one_function",),
    "outputs to Service Bus": (
        "test_outputs_reach_queue_and_topic_and_their_functions",
        "test_array_is_several_messages",
    ),
    "blobs as inputs": ("test_storage_queues_and_blobs_are_written_and_read",),
    "one function that does not fit": ("test_app_is_refused", "test_microsofts_runtime_loads_and_refuses_the_same"),
    "a function's name has": ("test_binding_that_cannot_work_costs_one_function",),
    "a value in a decorator": ("test_binding_that_cannot_work_costs_one_function",),
    "the v1 model": ("test_app_of_the_v1_model_is_named_as_such",),
    "other triggers": ("test_binding_that_cannot_work_costs_one_function",),
    "other inputs and outputs": ("test_binding_that_cannot_work_costs_one_function",),
    "SDK types": ("test_app_is_refused",),
    "an app that cannot be imported": ("test_app_that_cannot_be_loaded_is_reported_and_answered",),
}


def rows() -> list[tuple[str, str]]:
    cells = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    found = [(first.strip(), second.strip()) for first, second in cells]
    return [row for row in found if row[0] not in {"Azure's host", "---"}]


def source(folder: str) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / folder).rglob("*.py")))


def test_each_row_has_its_tests_and_each_test_its_row():
    heads = [[key for key in TESTS if first.startswith(key)] for first, _ in rows()]
    assert sorted(key for found in heads for key in found) == sorted(TESTS)
    assert all(len(found) == 1 for found in heads)


def test_the_tests_are_there():
    there = set(re.findall(r"def (test_\w+)", source("tests/unit/host") + source("tests/integration/host")))
    assert {name for names in TESTS.values() for name in names} - there == set()


def test_only_what_is_missing_or_unknown_has_no_test():
    untested = [
        second for first, second in rows() for key, names in TESTS.items() if first.startswith(key) and not names
    ]
    assert [second.split()[0].strip(":") for second in untested] == ["not"]


@pytest.mark.parametrize("message", re.findall(r'"([^"]+)"', "\n".join(second for _, second in rows())))
def test_messages_are_those_of_the_code(message):
    """Whatever lies between the parts of a text that the code puts together is left out."""
    code = re.sub(r'"\s*\n\s*f?"', "", source("coremachine/local/host"))
    code = re.sub(r"\{SCAN_SOURCE\}", "LogsAndContainerScan", code)
    assert message in code


@pytest.mark.parametrize("names", ["_HONOURED", "_IGNORED"])
def test_every_key_of_host_json_that_the_host_knows_is_on_the_page(names):
    keys = {key.rstrip(".").rpartition(".")[2] for key in getattr(host_keys, names)} - {"version"}
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE and f"`{key}." not in PAGE] == []
