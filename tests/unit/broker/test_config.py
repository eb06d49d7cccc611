"""Config.json: Microsoft's format, defaults and ranges, with errors that name the place."""

import json
from pathlib import Path

import pytest

from coremachine.local.broker.config import BrokerConfig, ConfigError, default_config_path, load_config, parse_duration
from coremachine.local.broker.pytest_plugin import read_config


def write(path, queues, *, topics=(), name="sbemulatorns"):
    document = {"UserConfig": {"Namespaces": [{"Name": name, "Queues": queues, "Topics": list(topics)}]}}
    file = path / "Config.json"
    file.write_text(json.dumps(document))
    return file


def test_the_shipped_configuration_has_the_projects_queues():
    queues = {queue.name: queue for queue in load_config(default_config_path()).queues}
    assert set(queues) == {"coremachine-jobs", "coremachine-tasks", "coremachine-raster-tasks"}
    tasks = queues["coremachine-tasks"]
    assert (tasks.lock_duration_seconds, tasks.max_delivery_count) == (60.0, 10)
    assert (tasks.default_ttl_seconds, tasks.duplicate_window_seconds) == (3600.0, 60.0)
    assert tasks.dead_letter_on_expiration


def test_defaults_are_the_emulators(tmp_path):
    [queue] = load_config(write(tmp_path, [{"Name": "q"}])).queues
    assert (queue.lock_duration_seconds, queue.max_delivery_count, queue.default_ttl_seconds) == (60.0, 3, 3600.0)
    assert not queue.dead_letter_on_expiration
    assert queue.duplicate_window_seconds is None


def test_comments_are_allowed_but_not_inside_strings(tmp_path):
    file = tmp_path / "Config.json"
    file.write_text("""// first
    {"UserConfig": { /* both
      kinds */ "Namespaces": [{"Name": "sbemulatorns", "Queues": [{"Name": "a"}]}], // trailing
      "Logging": {"Type": "http://not-a-comment"}}}""")
    assert [queue.name for queue in load_config(file).queues] == ["a"]


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        ({"LockDuration": "PT1S"}, "Properties.LockDuration"),
        ({"LockDuration": "one minute"}, "Properties.LockDuration"),
        ({"MaxDeliveryCount": 11}, "Properties.MaxDeliveryCount"),
        ({"DefaultMessageTimeToLive": "PT2H"}, "Properties.DefaultMessageTimeToLive"),
        ({"DuplicateDetectionHistoryTimeWindow": "PT6M"}, "Properties.DuplicateDetectionHistoryTimeWindow"),
        ({"RequiresSession": "perhaps"}, "Properties.RequiresSession"),
        ({"LockDuratoin": "PT1M"}, "Properties.LockDuratoin"),
    ],
)
def test_a_wrong_property_is_named_with_its_path(tmp_path, properties, place):
    file = write(tmp_path, [{"Name": "good"}, {"Name": "bad", "Properties": properties}])
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"$.UserConfig.Namespaces[0].Queues[1].{place}: " in str(caught.value)


def test_sessions_and_forwarding_are_read(tmp_path):
    properties = {"RequiresSession": True, "ForwardTo": "b", "ForwardDeadLetteredMessagesTo": ""}
    queue, _ = load_config(write(tmp_path, [{"Name": "a", "Properties": properties}, {"Name": "b"}])).queues
    assert (queue.requires_session, queue.forward_to, queue.forward_dead_letters_to) == (True, "b", None)


def test_the_sample_of_the_emulators_documentation_is_read_unchanged():
    config = load_config(Path(__file__).with_name("emulator_sample.json"))
    assert [queue.name for queue in config.queues] == ["queue.1"]
    [topic] = config.topics
    rules = {each.settings.name: each.rules for each in topic.subscriptions}
    assert list(rules) == ["subscription.1", "subscription.2", "subscription.3"]
    assert rules["subscription.3"] is None
    [correlation] = rules["subscription.1"]
    assert correlation.filter.system == {
        "contenttype": "application/text",
        "correlationid": "id1",
        "label": "subject1",
        "messageid": "msgid1",
        "replyto": "someQueue",
        "replytosessionid": "sessionId",
        "sessionid": "session1",
        "to": "xyz",
    }
    assert rules["subscription.2"][0].filter.properties == {"prop1": "value1"}


def test_a_wrong_rule_is_named_with_its_path(tmp_path):
    rule = {"Name": "r", "Properties": {"FilterType": "Sql", "SqlFilter": {"SqlExpression": "a = "}}}
    topic = {"Name": "t", "Subscriptions": [{"Name": "s", "Rules": [rule]}]}
    with pytest.raises(ConfigError, match=r"Topics\[0\]\.Subscriptions\[0\]\.Rules\[0\]\.Properties: .*column=4"):
        load_config(write(tmp_path, [], topics=[topic]))


def test_any_name_of_the_namespace_is_accepted(tmp_path):
    """The emulator warns and uses its own."""
    assert load_config(write(tmp_path, [{"Name": "q"}], name="mine")).queues[0].name == "q"


def test_a_topic_and_a_queue_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Topics\[0\]\.Name: .*'Q'"):
        load_config(write(tmp_path, [{"Name": "q"}], topics=[{"Name": "Q"}]))


def test_two_queues_of_one_name_are_refused_whatever_their_case(tmp_path):
    with pytest.raises(ConfigError, match=r"Queues\[1\]\.Name: .*'Q'"):
        load_config(write(tmp_path, [{"Name": "q"}, {"Name": "Q"}]))


def test_broken_json_is_located(tmp_path):
    file = tmp_path / "Config.json"
    file.write_text("{\n// fine\n oops}")
    with pytest.raises(ConfigError, match="line 3, column 2"):
        load_config(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        load_config(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT1M", 60), ("PT1H30M", 5400), ("P1DT1S", 86401), ("PT0.5S", 0.5), ("PT1M5S", 65)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1M", "PT1X", 60, None])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match="ISO 8601"):
        parse_duration(text)


def test_queues_for_tests_may_leave_the_emulators_ranges():
    config = BrokerConfig.for_queues(["a", "b"], lock_duration_seconds=0.5, max_delivery_count=99)
    assert [(queue.name, queue.lock_duration_seconds) for queue in config.queues] == [("a", 0.5), ("b", 0.5)]


def test_the_config_of_the_package_s_page_can_be_used(tmp_path):
    page = (Path(__file__).parents[3] / "packages" / "servicebus" / "README.md").read_text()
    file = tmp_path / "Config.json"
    file.write_text(page.split("```json\n")[1].split("```")[0])
    assert [queue.name for queue in load_config(file).queues] == ["orders"]


def test_a_config_that_cannot_be_used_fails_the_test_with_the_reason_alone(tmp_path):
    with pytest.raises(pytest.fail.Exception, match=r"servicebus_config: .*expected a readable file") as caught:
        read_config(tmp_path / "Config.json")
    assert not caught.value.pytrace


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"DefaultMessageTimeToLive": "PT10S"}, "expected a duration of 300 to 3600 seconds, found 10"),
        ({"MaxDeliveryCount": 11}, "expected less than or equal to 10, found 11"),
        ({"Foo": 1}, "expected one of the keys of Microsoft's emulator, found an unknown key"),
        ({"ForwardTo": "nowhere"}, "ForwardTo: expected another queue or a topic of this file, found 'nowhere'"),
        ({"ForwardDeadLetteredMessagesTo": "A"}, "expected another queue or a topic of this file, found 'A'"),
    ],
)
def test_a_problem_says_what_was_expected_and_what_was_found(tmp_path, properties, problem):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, [{"Name": "a", "Properties": properties}]))
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"UserConfig": {}, "UserConfig": {}}'])
def test_a_file_that_json_cannot_hold_is_refused_with_its_name(tmp_path, text):
    file = tmp_path / "Config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"Config\.json: expected JSON of such a configuration"):
        load_config(file)
