"""Queues of a Service Bus, with the face of `coremachine.local.memory_queue.MemoryQueues`."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from threading import Lock

from azure.servicebus import ServiceBusReceivedMessage, ServiceBusReceiver

from core.app_queues import JOBS_QUEUE
from core.machine import CoreMachine
from core.models import QueueMessage, TaskQueueMessage
from core.models.message import JOBS_QUEUE_MESSAGE
from infrastructure.service_bus import ServiceBusRepository, connect_with_string

QUEUES = {JOBS_QUEUE: "coremachine-jobs", "tasks": "coremachine-tasks"}
# A message that is there comes at once, and one that is scheduled within its delay.
PATIENCE_SECONDS = 5.0


class ServiceBusQueues:
    """Sends as the app does, through its repository; receives in peek-lock with the SDK, one message at a time.

    A message is completed when the machine returns and abandoned when it raises, as the Functions host does. It uses
    eight connections; Microsoft's emulator takes ten.
    """

    def __init__(self, connection_string: str) -> None:
        self._resources = ExitStack()
        self._repository = ServiceBusRepository(QUEUES, lambda: connect_with_string(connection_string))
        self._resources.callback(self._repository.close)
        client = self._resources.enter_context(connect_with_string(connection_string))
        self._receivers: dict[str, ServiceBusReceiver] = {
            queue: self._resources.enter_context(client.get_queue_receiver(name)) for queue, name in QUEUES.items()
        }
        self._receiving = Lock()
        # Those that receive cannot look as well: the SDK keeps their connections alive from a thread of its own.
        self._lookers: dict[str, ServiceBusReceiver] = {
            queue: self._resources.enter_context(client.get_queue_receiver(name, prefetch_count=1, keep_alive=0))
            for queue, name in QUEUES.items()
        }
        self._looking = Lock()

    def close(self) -> None:
        self._resources.close()

    def send_messages(self, queue: str, messages: Sequence[QueueMessage]) -> None:
        self._repository.send_messages(queue, messages)

    def send_message_with_delay(self, queue: str, message: QueueMessage, delay_seconds: float) -> None:
        self._repository.send_message_with_delay(queue, message, delay_seconds)

    def oldest_enqueued_at(self, queue: str) -> datetime | None:
        return self._repository.oldest_enqueued_at(queue)

    def clear(self) -> int:
        """Take out what an earlier test left; returns how many messages there were."""
        count = 0
        for queue, receiver in self._receivers.items():
            while not self._is_empty(queue):
                for message in receiver.receive_messages(100, max_wait_time=PATIENCE_SECONDS):
                    receiver.complete_message(message)
                    count += 1
        return count

    def deliver(self, machine: CoreMachine) -> bool:
        """Hand the next message to the machine; False when none comes."""

        def process(queue: str, body: bytes) -> None:
            if queue == JOBS_QUEUE:
                machine.process_job_message(JOBS_QUEUE_MESSAGE.validate_json(body))
            else:
                machine.process_task_message(TaskQueueMessage.model_validate_json(body))

        return self.deliver_to(process)

    def deliver_to(self, process: Callable[[str, bytes], None]) -> bool:
        """Hand the next message (queue, body) to a function; what raises goes back to the queue."""
        with self._receiving:
            for queue, receiver in self._receivers.items():
                if self._is_empty(queue):
                    continue
                for message in receiver.receive_messages(1, max_wait_time=PATIENCE_SECONDS):
                    _settle(receiver, message, lambda body, queue=queue: process(queue, body))
                    return True
        return False

    def run(self, machine: CoreMachine, *, timeout_seconds: float = 60.0) -> None:
        """Deliver until nothing waits.

        Raises:
            TimeoutError: Something still waits.
        """
        deadline = time.monotonic() + timeout_seconds
        while not all(self._is_empty(queue) for queue in QUEUES):
            self.deliver(machine)
            if time.monotonic() > deadline:
                raise TimeoutError(f"messages still wait after {timeout_seconds:g} s")

    def _is_empty(self, queue: str) -> bool:
        """Whether there is nothing at all, scheduled messages included."""
        with self._looking:
            return not self._lookers[queue].peek_messages(1, sequence_number=1)


def _settle(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage, process: Callable[[bytes], None]) -> None:
    try:
        process(b"".join(message.body))
    except BaseException:
        receiver.abandon_message(message)
        raise
    receiver.complete_message(message)
