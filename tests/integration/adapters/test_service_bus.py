"""The sender and the real SDK against the local broker, as long as nothing breaks."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import ServiceBusMessageBatch

from core.errors import MessageTooLarge, QueueNotFound
from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from infrastructure.service_bus import ServiceBusRepository, connect_with_string

JOB_ID = "ab" * 32


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_a_message_says_what_it_is_about(sender, look, task_message):
    """It carries ids and the correlation id; parameters were repeated, and the id dropped (lessons D5, D29)."""
    message = task_message(1)
    sender.send_messages("tasks", [message])

    [found] = look("real-tasks")
    assert TaskQueueMessage.model_validate_json(str(found)) == message
    assert found.message_id == message.message_id
    assert (found.correlation_id, found.content_type, found.subject) == ("corr", "application/json", "task")
    properties = {text(name): text(value) for name, value in found.application_properties.items()}
    assert properties == {"job_id": JOB_ID, "run": 1, "stage": 1}


def test_each_kind_of_message_has_its_subject(sender, look):
    looked_at = JobQueueMessage(job_id=JOB_ID, job_type="test", stage=2)
    submitted = JobQueueMessage(job_type="test", parameters={"n": 1})
    signal = StageCompleteMessage(job_id=JOB_ID, job_type="test", completed_stage=3)
    sender.send_messages("jobs", [looked_at, submitted, signal])

    found = look("real-jobs")
    assert [message.subject for message in found] == ["job", "job", "stage_complete"]
    assert found[0].correlation_id is None
    assert [message.application_properties[b"stage"] for message in found] == [2, 1, 3]
    assert b"job_id" not in found[1].application_properties
    assert json.loads(str(found[1])) == {
        "message_type": "job",
        "job_type": "test",
        "run": 1,
        "stage": 1,
        "attempt": 1,
        "parameters": {"n": 1},
    }


def test_nothing_to_send_sends_nothing(sender, broker):
    sender.send_messages("tasks", [])
    assert broker.counts("real-tasks")["active"] == 0


def test_many_messages_arrive_in_order(sender, look, task_message):
    sender.send_messages("tasks", [task_message(number) for number in range(100)])
    assert [json.loads(str(message))["task_ids"] for message in look("real-tasks")] == [[f"n{n}"] for n in range(100)]


class CountingClient:
    """The SDK's client, whose senders count what they are given to send."""

    def __init__(self, client):
        self.client = client
        self.sizes = []
        self.opened = []

    def get_queue_sender(self, *args, **kwargs):
        self.opened.append(args[0])
        sender = self.client.get_queue_sender(*args, **kwargs)
        send = sender.send_messages

        def counting(parcel):
            self.sizes.append(len(parcel) if isinstance(parcel, ServiceBusMessageBatch) else 1)
            return send(parcel)

        sender.send_messages = counting
        return sender

    def close(self):
        self.client.close()


@pytest.fixture
def counted(broker):
    client = CountingClient(connect_with_string(broker.connection_string))
    repository = ServiceBusRepository({"tasks": "real-tasks"}, lambda: client)
    broker.purge("real-tasks")
    yield repository, client
    repository.close()


def test_what_does_not_fit_into_one_batch_is_split(counted, broker, task_message):
    """25 messages of 30 kB: a batch takes 8 of them within 256 KiB. They were sent one by one (lesson D3)."""
    repository, client = counted
    repository.send_messages("tasks", [task_message(number, size=30_000) for number in range(25)])
    assert client.sizes == [8, 8, 8, 1]
    assert broker.counts("real-tasks")["active"] == 25


@pytest.mark.parametrize("before", [0, 1, 10])
def test_a_message_too_large_is_refused_with_its_size(sender, broker, before, task_message):
    """It is found before it goes to the broker; what stands before it may have been sent (lesson D18)."""
    messages = [*(task_message(number) for number in range(before)), task_message("large", size=300_000)]
    with pytest.raises(
        MessageTooLarge, match=r"queue 'tasks': expected .* at most 262144 bytes, found task-.* 3001\d\d"
    ):
        sender.send_messages("tasks", messages)
    sender.send_messages("tasks", [task_message("next")])
    assert broker.counts("real-tasks")["active"] <= before + 1


def test_a_large_message_that_fits_goes_alone(sender, broker, task_message):
    sender.send_messages("tasks", [task_message("large", size=200_000)])
    assert broker.counts("real-tasks")["active"] == 1


def test_a_delayed_message_is_due_after_its_delay(sender, broker, look, task_message):
    before = datetime.now(UTC)
    sender.send_message_with_delay("tasks", task_message(1), 3600)

    counts = broker.counts("real-tasks")
    assert (counts["active"], counts["scheduled"]) == (0, 1)
    [found] = look("real-tasks")
    due = found.scheduled_enqueue_time_utc
    assert timedelta(seconds=3599) < due - before < timedelta(seconds=3610)


def test_a_delay_of_nothing_is_no_delay(sender, broker, task_message):
    sender.send_message_with_delay("tasks", task_message(1), 0)
    assert broker.counts("real-tasks")["active"] == 1


def test_a_queue_that_no_setting_names(sender, task_message):
    with pytest.raises(QueueNotFound, match=r"'raster': expected one of the configured queues .jobs, tasks."):
        sender.send_messages("raster", [task_message(1)])


def test_eight_threads_share_a_connection(sender, broker, look, task_message):
    def send(thread):
        for number in range(12):
            sender.send_messages("tasks", [task_message(f"{thread}-{number}")])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ids = {json.loads(str(message))["task_ids"][0] for message in look("real-tasks")}
    assert ids == {f"n{thread}-{number}" for thread in range(8) for number in range(12)}
    assert broker.counts("real-tasks")["active"] == 96


def test_a_queue_that_detects_duplicates_keeps_one_of_each_id(project_broker, task_message):
    repository = ServiceBusRepository(
        {"tasks": "coremachine-tasks"}, lambda: connect_with_string(project_broker.connection_string)
    )
    project_broker.purge("coremachine-tasks")
    again = task_message("again")
    repository.send_messages("tasks", [again, task_message("other"), again])
    repository.send_messages("tasks", [again])
    repository.send_message_with_delay("tasks", again, 60)
    repository.close()

    counts = project_broker.counts("coremachine-tasks")
    assert (counts["active"], counts["scheduled"]) == (2, 0)


def test_it_can_be_closed_and_used_again(broker):
    repository = ServiceBusRepository({"jobs": "real-jobs"}, lambda: connect_with_string(broker.connection_string))
    repository.close()
    for _ in range(2):
        broker.purge("real-jobs")
        repository.send_messages("jobs", [JobQueueMessage(job_id=JOB_ID, job_type="test")])
        assert repository.oldest_enqueued_at("jobs") is not None
        repository.close()
        assert broker.counts("real-jobs")["active"] == 1


def test_connections_opened_in_the_background_are_those_that_sends_use(counted, look, task_message):
    """The first large stage of a process waited half a second for the SDK to open its sender."""
    repository, client = counted
    repository.open_senders().join(30)
    assert client.opened == ["real-tasks"]
    assert client.sizes == []
    message = task_message(1)
    repository.send_messages("tasks", [message])
    assert client.opened == ["real-tasks"]
    assert [found.message_id for found in look("real-tasks")] == [message.message_id]


def test_a_queue_that_cannot_be_opened_keeps_no_other_from_it_and_is_told_by_its_first_send(broker, task_message):
    repository = ServiceBusRepository(
        {"jobs": "no-such-queue", "tasks": "real-tasks"}, lambda: connect_with_string(broker.connection_string)
    )
    repository.open_senders().join(30)
    repository.send_messages("tasks", [task_message(1)])
    with pytest.raises(QueueNotFound):
        repository.send_messages("jobs", [task_message(1)])
    repository.close()


def test_what_is_closed_meanwhile_opens_no_more(broker):
    """A process that ends while its connections open does not leave the later ones behind."""
    opened, may_go_on = threading.Event(), threading.Event()

    def connect():
        opened.set()
        assert may_go_on.wait(30)
        return client

    client = CountingClient(connect_with_string(broker.connection_string))
    repository = ServiceBusRepository({"jobs": "real-jobs", "tasks": "real-tasks"}, connect)
    opening = repository.open_senders()
    assert opened.wait(30)
    closing = threading.Thread(target=repository.close)
    closing.start()
    while not repository._is_closed:
        pass
    may_go_on.set()
    opening.join(30)
    closing.join(30)
    assert client.opened == ["real-jobs"]
