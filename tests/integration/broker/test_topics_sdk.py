"""Topics, subscriptions, rules and forwarding by the real SDK, made and changed by its administration client."""

from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import MessagingEntityDisabledError, MessagingEntityNotFoundError, ServiceBusError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    EntityStatus,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread


@pytest.fixture(scope="module")
def broker():
    with BrokerThread(BrokerConfig.for_queues(["inbox"])) as running:
        yield running


@pytest.fixture(scope="module")
def client(broker):
    with ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def administration(broker):
    with ServiceBusAdministrationClient.from_connection_string(broker.connection_string) as opened:
        # The SDK always builds https; this is what Microsoft's own sample does with the emulator.
        opened._impl._client._base_url = broker.admin_url
        yield opened


@pytest.fixture
def topic(administration, request):
    name = f"news.{abs(hash(request.node.name))}"
    administration.create_topic(name, support_ordering=True)
    yield name
    administration.delete_topic(name)


def send(client, topic, *messages):
    with client.get_topic_sender(topic, keep_alive=0) as sender:
        sender.send_messages(list(messages))


def receive(client, topic, subscription, count=10):
    with client.get_subscription_receiver(topic, subscription, keep_alive=0) as receiver:
        found = receiver.receive_messages(count, max_wait_time=3)
        for message in found:
            receiver.complete_message(message)
        return found


def test_each_subscription_gets_what_its_rules_take(administration, client, topic):
    administration.create_subscription(topic, "all")
    for name, condition in {
        "red": SqlRuleFilter("p('Colour') = @wanted", parameters={"@wanted": "red"}),
        "urgent": CorrelationRuleFilter(label="urgent", properties={"level": 5}),
        "none": FalseRuleFilter(),
    }.items():
        administration.create_subscription(topic, name)
        administration.delete_rule(topic, name, "$Default")
        administration.create_rule(topic, name, "only", filter=condition)
    send(
        client,
        topic,
        ServiceBusMessage("1", application_properties={"colour": "red"}),
        ServiceBusMessage("2", subject="urgent", application_properties={"level": 5}),
    )
    assert administration.get_subscription_runtime_properties(topic, "none").total_message_count == 0
    found = {name: sorted(map(str, receive(client, topic, name))) for name in ("all", "red", "urgent")}
    assert found == {"all": ["1", "2"], "red": ["1"], "urgent": ["2"]}


def test_an_action_changes_the_copy_of_its_subscription(administration, client, topic):
    administration.create_subscription(topic, "changed")
    administration.create_rule(
        topic, "changed", "mark", filter=TrueRuleFilter(), action=SqlRuleAction("SET marked = 'yes'; REMOVE colour")
    )
    send(client, topic, ServiceBusMessage("1", application_properties={"colour": "red"}))
    found = [each.application_properties for each in receive(client, topic, "changed")]
    assert {b"colour": b"red"} in found
    assert {b"marked": b"yes", b"RuleName": b"mark"} in found


def test_a_message_scheduled_for_a_topic_can_be_cancelled(administration, client, topic):
    administration.create_subscription(topic, "all")
    with client.get_topic_sender(topic, keep_alive=0) as sender:
        [number] = sender.schedule_messages(ServiceBusMessage("later"), datetime.now(UTC) + timedelta(hours=1))
        assert administration.get_topic_runtime_properties(topic).scheduled_message_count == 1
        sender.cancel_scheduled_messages(number)
    assert administration.get_topic_runtime_properties(topic).scheduled_message_count == 0


def test_rules_are_read_changed_listed_and_deleted(administration, topic):
    administration.create_subscription(topic, "s")
    times = {"at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "for": timedelta(seconds=90)}
    values = {"n": 1, "t": "x", "b": True, "f": 1.5} | times
    correlation = CorrelationRuleFilter(correlation_id="c", properties=values)
    administration.create_rule(topic, "s", "r", filter=correlation, action=SqlRuleAction("SET a = 1"))
    found = administration.get_rule(topic, "s", "r")
    assert (found.filter.correlation_id, found.filter.properties) == ("c", values)
    assert found.action.sql_expression == "SET a = 1"
    found.filter = SqlRuleFilter("a = @a AND b = @b", parameters={"@a": 1, "@b": "<x>"} | times)
    administration.update_rule(topic, "s", found)
    changed = administration.get_rule(topic, "s", "r").filter
    assert (changed.sql_expression, changed.parameters) == (
        "a = @a AND b = @b",
        {"@a": 1, "@b": "<x>", "@at": times["at"], "@for": times["for"]},
    )
    assert [each.name for each in administration.list_rules(topic, "s")] == ["$Default", "r"]
    with pytest.raises(ResourceExistsError):
        administration.create_rule(topic, "s", "r")
    with pytest.raises(HttpResponseError, match="error parsing the SQL expression"):
        administration.create_rule(topic, "s", "wrong", filter=SqlRuleFilter("a ="))
    administration.delete_rule(topic, "s", "r")
    with pytest.raises(ResourceNotFoundError):
        administration.get_rule(topic, "s", "r")


def test_subscriptions_are_read_changed_listed_and_deleted(administration, client, topic):
    administration.create_subscription(topic, "s", lock_duration=timedelta(seconds=30), max_delivery_count=7)
    found = administration.get_subscription(topic, "s")
    assert (found.lock_duration, found.max_delivery_count, found.requires_session) == (timedelta(seconds=30), 7, False)
    found.max_delivery_count = 3
    administration.update_subscription(topic, found)
    assert administration.get_subscription(topic, "s").max_delivery_count == 3
    send(client, topic, ServiceBusMessage("1"))
    assert administration.get_subscription_runtime_properties(topic, "s").active_message_count == 1
    assert [each.name for each in administration.list_subscriptions(topic)] == ["s"]
    assert administration.get_topic_runtime_properties(topic).subscription_count == 1
    with pytest.raises(ResourceExistsError):
        administration.create_subscription(topic, "s")
    administration.delete_subscription(topic, "s")
    with pytest.raises(ResourceNotFoundError):
        administration.get_subscription(topic, "s")
    with (
        pytest.raises(MessagingEntityNotFoundError),
        client.get_subscription_receiver(topic, "s", keep_alive=0) as receiver,
    ):
        receiver.receive_messages(1, max_wait_time=1)


def test_dead_letters_of_a_subscription_have_their_own_queue(administration, client, topic):
    administration.create_subscription(topic, "s")
    send(client, topic, ServiceBusMessage("1"))
    with client.get_subscription_receiver(topic, "s", keep_alive=0) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        receiver.dead_letter_message(message, reason="why")
    with client.get_subscription_receiver(topic, "s", sub_queue="deadletter", keep_alive=0) as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=5)
        assert (dead.dead_letter_reason, str(dead)) == ("why", "1")
        assert dead.dead_letter_source == f"{topic}/Subscriptions/s"
        receiver.complete_message(dead)


def test_a_topic_has_no_receivers(client, topic):
    with pytest.raises(ServiceBusError, match="topic"), client.get_queue_receiver(topic, keep_alive=0):
        pytest.fail("expected a refusal")


def test_messages_and_dead_letters_are_forwarded(broker, administration, client, topic):
    administration.create_subscription(topic, "s", forward_to="inbox")
    administration.create_queue("failing", forward_dead_lettered_messages_to="inbox")
    send(client, topic, ServiceBusMessage("by topic"))
    with (
        client.get_queue_sender("failing", keep_alive=0) as sender,
        client.get_queue_receiver("failing", keep_alive=0) as receiver,
    ):
        sender.send_messages(ServiceBusMessage("failed"))
        [message] = receiver.receive_messages(1, max_wait_time=5)
        receiver.dead_letter_message(message, reason="why")
    with client.get_queue_receiver("inbox", keep_alive=0) as receiver:
        found = receiver.receive_messages(2, max_wait_time=5)
        found += receiver.receive_messages(1, max_wait_time=3) if len(found) < 2 else []
        assert sorted(map(str, found)) == ["by topic", "failed"]
        sources = {str(each): (each.dead_letter_reason, each.dead_letter_source) for each in found}
        assert sources == {"by topic": (None, None), "failed": ("why", "failing")}
        for each in found:
            receiver.complete_message(each)
    administration.delete_queue("failing")
    with pytest.raises(HttpResponseError, match="ForwardTo"):
        administration.create_queue("astray", forward_to="nowhere")


def test_messages_that_go_in_circles_end_as_dead_letters(broker, administration, client):
    administration.create_queue("ring-a")
    administration.create_queue("ring-b", forward_to="ring-a")
    queue = administration.get_queue("ring-a")
    queue.forward_to = "ring-b"
    administration.update_queue(queue)
    with client.get_queue_sender("ring-a", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("round"))
    with client.get_queue_receiver("ring-a", sub_queue="deadletter", keep_alive=0) as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=5)
        assert dead.dead_letter_reason == "MaxTransferHopCountExceeded"
        receiver.complete_message(dead)


def test_queues_are_changed_within_their_ranges(administration):
    administration.create_queue("changing", user_metadata="mine", auto_delete_on_idle=timedelta(days=1))
    queue = administration.get_queue("changing")
    assert (queue.user_metadata, queue.auto_delete_on_idle) == ("mine", timedelta(days=1))
    queue.lock_duration = timedelta(seconds=45)
    queue.default_message_time_to_live = timedelta(days=2, minutes=1)
    administration.update_queue(queue)
    found = administration.get_queue("changing")
    assert (found.lock_duration, found.default_message_time_to_live) == (
        timedelta(seconds=45),
        timedelta(days=2, minutes=1),
    )
    for changes, reason in [
        ({"lock_duration": timedelta(minutes=6)}, "LockDuration"),
        ({"max_delivery_count": 0}, "MaxDeliveryCount"),
        ({"requires_session": True}, "RequiresSession"),
        ({"default_message_time_to_live": timedelta(0)}, "DefaultMessageTimeToLive"),
    ]:
        queue = administration.get_queue("changing")
        for name, value in changes.items():
            setattr(queue, name, value)
        with pytest.raises(HttpResponseError, match=reason):
            administration.update_queue(queue)
    missing = administration.get_queue("changing")
    missing.name = "nowhere"
    with pytest.raises(ResourceNotFoundError):
        administration.update_queue(missing)
    administration.delete_queue("changing")


def test_a_disabled_queue_takes_and_gives_nothing(administration, client):
    administration.create_queue("closed")
    queue = administration.get_queue("closed")
    queue.status = EntityStatus.DISABLED
    administration.update_queue(queue)
    assert administration.get_queue("closed").status == EntityStatus.DISABLED
    with pytest.raises(MessagingEntityDisabledError), client.get_queue_sender("closed", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("1"))
    with pytest.raises(MessagingEntityDisabledError), client.get_queue_receiver("closed", keep_alive=0):
        pytest.fail("expected a refusal")
    administration.delete_queue("closed")


def test_lists_come_in_pages_and_the_namespace_has_properties(administration):
    for number in range(120):
        administration.create_queue(f"many-{number:03}")
    names = [each.name for each in administration.list_queues()]
    assert len([name for name in names if name.startswith("many-")]) == 120
    assert len(list(administration.list_queues_runtime_properties())) == len(names)
    for number in range(120):
        administration.delete_queue(f"many-{number:03}")
    found = administration.get_namespace_properties()
    assert (found.name, found.messaging_sku) == ("sbemulatorns", "Standard")


def test_a_wrong_name_is_refused(administration):
    with pytest.raises(HttpResponseError, match="letters, digits"):
        administration.create_queue("-wrong")
