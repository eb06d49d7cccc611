"""Durable mode under SIGKILL: the broker dies in the middle of real clients' work, again and again.

What the SDK reported as done must be so afterwards. What was under way when the broker died may have happened or not;
a message that was received and not settled comes back. COREMACHINE_TEST_KILLS asks for more rounds.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import OperationTimeoutError

from coremachine.local.broker.config import load_config
from coremachine.local.broker.thread import BrokerThread

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("COREMACHINE_TEST_KILLS", "2"))
CONFIG = (
    '{"UserConfig": {"Namespaces": [{"Name": "mine", "Queues": ['
    '{"Name": "orders", "Properties": {"LockDuration": "PT5M", "MaxDeliveryCount": 10}}]}]}}'
)
# Each round is killed after this many confirmations of either kind.
SENT, SETTLED = 60, 20


class Book:
    """What the clients tried and what was confirmed to them, by message id."""

    def __init__(self):
        self.changed = threading.Condition()
        self.tried = Counter()
        self.confirmed = {"send": set(), "complete": set(), "dead_letter": set(), "defer": set()}
        self.problems = []

    def attempt(self, kind, ids, action):
        """Do something; its confirmation counts."""
        with self.changed:
            self.tried.update((kind, each) for each in ids)
        action()
        with self.changed:
            self.confirmed[kind].update(ids)
            self.changed.notify_all()

    def confirmations(self):
        sent = len(self.confirmed["send"])
        return sent, sum(len(ids) for ids in self.confirmed.values()) - sent

    def wait_for(self, sent, settled, running):
        """Wait for this many more confirmations."""
        with self.changed:
            before = self.confirmations()

            def enough():
                now = self.confirmations()
                return now[0] - before[0] >= sent and now[1] - before[1] >= settled

            assert self.changed.wait_for(lambda: enough() or not running(), 60), "no confirmations for a minute"
            assert enough(), "a client ended before the broker did"


class Round:
    """A broker that will be killed, and clients that work with it until then."""

    def __init__(self, book, folder, numbers):
        self.book = book
        self.numbers = numbers
        files = ["--config", str(folder / "Config.json"), "--durable", str(folder / "broker.db")]
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "coremachine.local.broker", *files, "--amqp-port", "0", "--admin-port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        self.connection_string = self.process.stdout.readline().strip()
        assert self.connection_string, (folder / "log").read_text()
        self.is_killed = False
        self.clients = [threading.Thread(target=self.work, args=(each,)) for each in (self.send, self.receive)]

    def run(self):
        for client in self.clients:
            client.start()
        try:
            self.book.wait_for(SENT, SETTLED, lambda: all(client.is_alive() for client in self.clients))
        finally:
            self.is_killed = True
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process.stdout.close()
            for client in self.clients:
                client.join()

    def work(self, action):
        try:
            with ServiceBusClient.from_connection_string(self.connection_string, retry_total=0) as client:
                action(client)
        except (AzureError, OSError, OperationTimeoutError) as exc:
            if not self.is_killed and self.process.poll() is None:
                self.book.problems.append(repr(exc))

    def send(self, client):
        """Single messages and batches by turns."""
        with client.get_queue_sender("orders", keep_alive=0) as sender:
            for size in [1, 1, 1, 12] * 10_000:
                ids = [f"m-{next(self.numbers)}" for _ in range(size)]
                messages = [ServiceBusMessage(b"x" * 300, message_id=each) for each in ids]
                self.book.attempt("send", ids, lambda batch=messages: sender.send_messages(batch))

    def receive(self, client):
        with client.get_queue_receiver("orders", keep_alive=0) as receiver:
            settle = {
                "complete": receiver.complete_message,
                "dead_letter": receiver.dead_letter_message,
                "defer": receiver.defer_message,
            }
            for turn in count():
                for message in receiver.receive_messages(5, max_wait_time=5):
                    self.check(message)
                    kind = ("complete", "complete", "dead_letter", "complete", "defer")[turn % 5]
                    self.book.attempt(kind, [message.message_id], lambda act=settle[kind], it=message: act(it))

    def check(self, message):
        settled = [kind for kind, ids in self.book.confirmed.items() if kind != "send" and message.message_id in ids]
        if settled:
            self.book.problems.append(f"{message.message_id} came back after {settled}")


def peek_all(receiver):
    found, number = [], 1
    while batch := receiver.peek_messages(200, sequence_number=number):
        found += batch
        number = batch[-1].sequence_number + 1
    return found


@pytest.mark.timeout(60 + 30 * KILLS)
def test_what_was_confirmed_outlives_a_broker_that_is_killed_under_load(tmp_path):
    (tmp_path / "Config.json").write_text(CONFIG)
    book, numbers = Book(), count()
    for _ in range(KILLS):
        Round(book, tmp_path, numbers).run()
    assert book.problems == []
    with (
        BrokerThread(load_config(tmp_path / "Config.json"), durable=tmp_path / "broker.db") as broker,
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_receiver("orders") as receiver,
        client.get_queue_receiver("orders", sub_queue="deadletter") as dead_letters,
    ):
        left, dead = peek_all(receiver), {each.message_id for each in peek_all(dead_letters)}
    ids = Counter(each.message_id for each in left)
    confirmed = book.confirmed
    tried = {kind: {each for which, each in book.tried if which == kind} for kind in confirmed}
    # Each message was sent once: none is there twice, and none that was settled is there.
    assert max(ids.values()) == 1
    assert not set(ids) & (confirmed["complete"] | confirmed["dead_letter"])
    assert confirmed["dead_letter"] <= dead <= tried["dead_letter"]
    assert confirmed["defer"] <= {each.message_id for each in left if each.state.name == "DEFERRED"} <= tried["defer"]
    assert confirmed["send"] - set(ids) - dead <= tried["complete"]
    assert set(ids) | dead <= tried["send"]
    numbers_given = [each.sequence_number for each in left]
    assert len(set(numbers_given)) == len(numbers_given)
    sent, settled = book.confirmations()
    assert sent >= KILLS * SENT
    assert settled >= KILLS * SETTLED


def test_a_broker_whose_disk_fails_confirms_nothing_more(tmp_path):
    (tmp_path / "Config.json").write_text(CONFIG)
    with (
        BrokerThread(load_config(tmp_path / "Config.json"), durable=tmp_path / "broker.db") as broker,
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_sender("orders", keep_alive=0) as sender,
    ):
        sender.send_messages(ServiceBusMessage("kept"))
        connection = broker._running().namespace._keeper._file._connection
        broker._call(lambda: connection.execute("pragma query_only = on"))
        with pytest.raises(AzureError):
            sender.send_messages(ServiceBusMessage("lost"))
        assert "expected a disk that takes it" in str(broker._running().failure)
        broker._call(lambda: connection.execute("pragma query_only = off"))
