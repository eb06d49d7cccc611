"""TLS by an authority of one's own, a clock that is turned, forced detaches, and the command."""

import http.client
import os
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.management import ServiceBusAdministrationClient

from coremachine.local.broker.certificates import server_context
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.thread import BrokerThread
from tests.integration.broker.test_admin import ask

ROOT = Path(__file__).parents[3]


@pytest.fixture
def broker():
    config = BrokerConfig.for_queues(["orders"], default_ttl_seconds=600.0, dead_letter_on_expiration=True)
    with BrokerThread(config) as running:
        yield running


@pytest.fixture
def client(broker):
    with ServiceBusClient.from_connection_string(
        broker.connection_string, retry_total=1, retry_backoff_factor=0.05
    ) as opened:
        yield opened


def test_administration_clients_work_unchanged_when_they_trust_the_authority(tmp_path):
    tls = TlsPorts(tmp_path / "tls", admin_port=0, amqp_port=0)
    with BrokerThread(BrokerConfig.for_queues(["orders"]), tls=tls) as running:
        with ServiceBusAdministrationClient.from_connection_string(
            running.admin_connection_string, connection_verify=str(tmp_path / "tls" / "ca.pem")
        ) as administration:
            administration.create_queue("fresh")
            assert {each.name for each in administration.list_queues()} == {"orders", "fresh"}
        trusting = ssl.create_default_context(cafile=tmp_path / "tls" / "ca.pem")
        connection = http.client.HTTPSConnection("localhost", running.amqps_port, context=trusting, timeout=10)
        connection.connect()
        connection.sock.sendall(b"AMQP\x03\x01\x00\x00")
        assert connection.sock.recv(8) == b"AMQP\x03\x01\x00\x00"
        connection.close()


def test_the_authority_is_kept_and_its_keys_are_readable_by_their_owner_alone(tmp_path):
    server_context(tmp_path / "tls")
    before = (tmp_path / "tls" / "ca.pem").read_bytes()
    server_context(tmp_path / "tls")
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == before
    for name in ("ca.key", "server.key"):
        assert (tmp_path / "tls" / name).stat().st_mode & 0o077 == 0


def test_the_clock_is_turned_and_what_falls_due_happens(broker, client):
    with client.get_queue_sender("orders", keep_alive=0) as sender:
        sender.schedule_messages(ServiceBusMessage("later"), datetime.now(UTC) + timedelta(hours=1))
        sender.send_messages(ServiceBusMessage("now"))
        assert ask(broker, "POST", "/clock/turn?seconds=601") == (200, {"turned": 601})
        assert broker.counts("orders")["dead_letter"] == 1
        broker.turn_clock(3000)
        assert broker.counts("orders")["active"] == 1


def test_a_lock_ends_when_the_clock_is_turned(broker, client):
    with (
        client.get_queue_sender("orders", keep_alive=0) as sender,
        client.get_queue_receiver("orders", keep_alive=0) as receiver,
    ):
        sender.send_messages(ServiceBusMessage("a"))
        assert len(receiver.receive_messages(1, max_wait_time=5)) == 1
        broker.turn_clock(61)
        [again] = receiver.receive_messages(1, max_wait_time=5)
        assert again.delivery_count == 1
        receiver.complete_message(again)


@pytest.mark.parametrize("seconds", ["", "-1", "many", "9999999999"])
def test_the_clock_is_turned_forward_by_a_number(broker, seconds):
    assert ask(broker, "POST", f"/clock/turn?seconds={seconds}")[0] == 400


def test_a_client_reconnects_after_its_links_were_detached(broker, client):
    with client.get_queue_sender("orders", keep_alive=0) as sender:
        sender.send_messages(ServiceBusMessage("before"))
        assert ask(broker, "POST", "/faults/detach-links?queue=orders") == (200, {"detached": 1})
        sender.send_messages(ServiceBusMessage("after"))
    assert broker.counts("orders")["active"] == 2


def test_the_command_serves_a_configuration(tmp_path):
    config = tmp_path / "Config.json"
    config.write_text('{"UserConfig": {"Namespaces": [{"Name": "mine", "Queues": [{"Name": "orders"}]}]}}')
    options = ["--config", str(config), "--amqp-port", "0", "--admin-port", "0", "--admin-tls-port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "coremachine.cli", "servicebus", *options, "--tls-dir", str(tmp_path / "tls")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        with (
            ServiceBusClient.from_connection_string(lines[0].strip(), retry_total=0) as client,
            client.get_queue_sender("orders", keep_alive=0) as sender,
        ):
            sender.send_messages(ServiceBusMessage("a"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert lines[1].startswith("http://127.0.0.1:")
    assert lines[2].startswith("Endpoint=sb://localhost:")


def test_the_command_names_what_is_wrong_with_a_configuration(tmp_path):
    command = [sys.executable, "-m", "coremachine.cli", "servicebus", "--config", str(tmp_path / "missing.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "missing.json" in done.stderr
