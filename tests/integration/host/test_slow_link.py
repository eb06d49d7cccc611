"""Links of the real SDK: one that takes longer to open than a request for a message stays open, and who reads it."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host.functions import ServiceBusTrigger
from coremachine.local.host.loop_pump import RECEIVE_SECONDS
from coremachine.local.host.service_bus import SdkReceivers

QUEUE = "slow"
ONE_WAY_SECONDS = 0.1


@contextlib.contextmanager
def slow_line(port: int) -> Iterator[int]:
    """A port that hands everything on, each piece late; opening a link takes more than five round trips."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                time.sleep(ONE_WAY_SECONDS)
                target.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_no_second_thread_reads_from_a_slots_connection() -> None:
    """The SDK's keep-alive thread took a message from under the slot that waited for it, which saw it 0.2 s late."""
    with BrokerThread(BrokerConfig.for_queues([QUEUE])) as broker:
        trigger = ServiceBusTrigger("Bus", QUEUE, "", "", is_dead_letter=False, data_type="", auto_complete=None)
        receivers = SdkReceivers(trigger, {"Bus": broker.connection_string})
        before = set(threading.enumerate())
        receiver = receivers.open()
        assert set(threading.enumerate()) <= before
        receiver.close()
        receivers.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_slot_gets_its_message_over_a_line_on_which_links_open_slowly() -> None:
    """All slots of all workers open their links together when a broker comes back: none may give up half-way."""
    with BrokerThread(BrokerConfig.for_queues([QUEUE])) as broker:
        string = broker.connection_string
        with ServiceBusClient.from_connection_string(string) as client, client.get_queue_sender(QUEUE) as sender:
            sender.send_messages(ServiceBusMessage("waited for"))
        port = urlsplit(string.split(";", 1)[0].removeprefix("Endpoint=")).port
        assert port is not None
        with slow_line(port) as slow_port:
            trigger = ServiceBusTrigger("Bus", QUEUE, "", "", is_dead_letter=False, data_type="", auto_complete=None)
            receivers = SdkReceivers(trigger, {"Bus": string.replace(f":{port}", f":{slow_port}")})
            receiver = receivers.open()
            (message,) = receiver.receive_messages(max_message_count=1, max_wait_time=RECEIVE_SECONDS)
            assert str(message) == "waited for"
            receiver.close()
            receivers.close()
