"""The broker's HTTP port, the administration client, and the command."""

import asyncio
import http.client
import json
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.management import ServiceBusAdministrationClient

from coremachine.local.broker import admin_http
from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.connection import Connection
from coremachine.local.broker.server import Broker, PortInUse
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.broker_process import BrokerProcess
from coremachine.local.connections import ConnectionBook

ROOT = Path(__file__).parents[3]
EMPTY = {"active": 0, "locked": 0, "scheduled": 0, "deferred": 0, "dead_letter": 0}


@pytest.fixture
def broker():
    with BrokerThread(BrokerConfig.for_queues(["orders", "team/orders"])) as running:
        yield running


def ask(broker, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", broker.admin_port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_health_and_counts_are_told(broker):
    assert ask(broker, "GET", "/health") == (200, {"status": "healthy"})
    assert ask(broker, "GET", "/queues") == (200, {"orders": EMPTY, "team/orders": EMPTY})


def test_faults_and_purges_are_asked_for_by_http(broker):
    with (
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_sender("orders", keep_alive=0) as sender,
        client.get_queue_receiver("orders", keep_alive=0) as receiver,
    ):
        sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
        assert len(receiver.receive_messages(1, max_wait_time=10)) == 1
        assert ask(broker, "GET", "/queues")[1]["orders"] == EMPTY | {"active": 1, "locked": 1}
        assert ask(broker, "POST", "/faults/expire-locks?queue=orders") == (200, {"expired": 1})
        assert ask(broker, "POST", "/faults/expire-locks") == (200, {"expired": 0})
        assert ask(broker, "POST", "/queues/orders/purge") == (200, {"purged": 2})
        assert ask(broker, "POST", "/faults/server-busy?count=3") == (200, {"rejecting": 3})
        assert ask(broker, "POST", "/faults/server-busy?count=0") == (200, {"rejecting": 0})
        assert ask(broker, "POST", "/faults/duplicate?queue=orders") == (200, {"duplicating": 1})
        assert ask(broker, "POST", "/faults/delay?seconds=60&count=2") == (200, {"delaying": 2, "seconds": 60})
        sender.send_messages([ServiceBusMessage("late, twice"), ServiceBusMessage("late")])
        assert ask(broker, "GET", "/queues")[1]["orders"] == EMPTY | {"scheduled": 3}
        assert ask(broker, "POST", "/clock/turn?seconds=61")[0] == 200
        assert ask(broker, "GET", "/queues")[1]["orders"] == EMPTY | {"active": 3}
        assert ask(broker, "POST", "/faults/duplicate?count=5") == (200, {"duplicating": 5})
        assert ask(broker, "POST", "/faults/clear") == (200, {})
        sender.send_messages(ServiceBusMessage("once"))
        assert ask(broker, "GET", "/queues")[1]["orders"] == EMPTY | {"active": 4}
    assert ask(broker, "POST", "/faults/drop-connections") == (200, {"dropped": 0})


def test_names_with_a_slash_can_be_purged(broker):
    assert ask(broker, "POST", "/queues/team/orders/purge") == (200, {"purged": 0})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/queues/nowhere/purge", 404),
        ("/faults/expire-locks?queue=nowhere", 404),
        ("/faults/server-busy?count=many", 400),
        ("/faults/server-busy?count=" + "9" * 5000, 400),
        ("/faults/server-busy?count=%D9%A1", 400),
        ("/faults/server-busy?" + "a=1&" * 1000, 400),
        ("/faults/delay?count=1", 400),
        ("/faults/delay?seconds=0", 400),
        ("/faults/delay?seconds=1&queue=nowhere", 404),
        ("/faults/duplicate?count=-1", 400),
        ("/faults/duplicate?queue=orders/$DeadLetterQueue", 400),
        ("/faults/detach-links", 404),
        ("/faults/earthquake", 400),
    ],
)
def test_a_wrong_request_is_refused_with_a_reason(broker, path, status):
    answered, body = ask(broker, "POST", path)
    assert answered == status
    assert body["detail"].startswith("expected")


def test_garbage_on_the_http_port_is_answered(broker):
    with socket.create_connection(("127.0.0.1", broker.admin_port), timeout=10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def raw(broker, data):
    with socket.create_connection(("127.0.0.1", broker.admin_port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"Host: evil.example\r\n", 403, "foreign_host"),
        (b"Host: \xe9\xff\r\n", 400, "malformed_host"),
        (b"", 400, "malformed_host"),
        (b"Host: localhost\r\nHost: localhost\r\n", 400, "malformed_host"),
        (b"Host: localhost\r\nOrigin: null\r\n", 403, "foreign_origin"),
        (b"Host: localhost\r\nOrigin: http://localhost:1\r\n", 403, "foreign_origin"),
        (b"Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403, "foreign_origin"),
        (b"Host: localhost\r\nTransfer-Encoding: chunked\r\n", 411, "length_required"),
        (b"Host: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n", 400, "malformed_framing"),
        (b"Host: localhost\r\nContent-Length: 2000000\r\n", 413, "body_too_large"),
        (b"Host: localhost\r\n folded\r\n", 400, "invalid_request"),
        (b"Host: localhost\r\nX: " + b"a" * 100_000 + b"\r\n", 431, "headers_too_large"),
    ],
)
def test_pages_and_malformed_heads_are_refused_with_a_problem(broker, head, status, code):
    try:
        response = raw(broker, b"POST /queues/orders/purge HTTP/1.1\r\n" + head + b"\r\n")
    except ConnectionResetError:  # the broker does not read on for a head that is too large
        assert status == 431
        return
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json\r\n" in response
    assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == code


def test_malformed_target_is_refused(broker):
    assert b"malformed_target" in raw(broker, b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n")


@pytest.mark.parametrize("target", [b"//[", b"//", b"//[::1", b"/nowhere", b"/?"])
def test_any_path_is_answered(broker, target):
    for method in (b"GET", b"POST"):
        response = raw(broker, method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 ")
        assert b"x-content-type-options: nosniff" in response.lower()


def test_error_of_the_broker_itself_is_answered(broker, monkeypatch):
    monkeypatch.setattr(admin_http.AdminHttp, "answer", lambda *_: 1 / 0)
    response = raw(broker, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 500 ")
    assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == "internal_error"


def test_unfinished_request_is_closed_after_a_time(broker, monkeypatch):
    monkeypatch.setattr(admin_http, "_READ_TIMEOUT_SECONDS", 0.05)
    assert raw(broker, b"GET /hea") == b""


def test_client_that_never_opens_its_connection_is_closed():
    """Whatever it sends instead, as long as it is no open frame."""

    async def story():
        book = ConnectionBook("amqp", 10, tick_seconds=0.001)
        namespace = Broker(BrokerConfig.for_queues(["orders"])).namespace
        server = await asyncio.get_running_loop().create_server(lambda: Connection(namespace, set(), book), "127.0.0.1")
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"AMQP\x03\x01\x00\x00")
            with suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 20)
            writer.close()
            with suppress(ConnectionResetError):
                await writer.wait_closed()

    asyncio.run(story())


def test_silent_sockets_on_both_ports_do_not_stop_the_broker(broker):
    with ExitStack() as opened:
        for port in (broker.amqp_port, broker.admin_port):
            for _ in range(500):
                opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        assert ask(broker, "GET", "/health")[0] == 200
        with (
            ServiceBusClient.from_connection_string(broker.connection_string) as client,
            client.get_queue_sender("orders") as sender,
        ):
            sender.send_messages(ServiceBusMessage("a"))
        assert ask(broker, "GET", "/queues")[1]["orders"]["active"] == 1


def test_exhausted_descriptors_are_said_once_and_got_over(tmp_path):
    log = tmp_path / "broker.log"
    broker = BrokerProcess(amqp_port=0, admin_port=0, log_file=log)
    broker.start()
    try:
        _, hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (30, hard))
        with ExitStack() as opened:
            for _ in range(60):
                opened.enter_context(socket.create_connection(("127.0.0.1", broker.admin_port), timeout=20))
            deadline = time.monotonic() + 20
            while "descriptors_exhausted" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        assert ask(broker, "GET", "/health")[0] == 200
        assert "Traceback" not in log.read_text()
        assert log.read_text().count("descriptors_exhausted") <= 2  # one for each listener
    finally:
        broker.stop()


def test_garbage_on_the_amqp_port_closes_the_connection(broker):
    with socket.create_connection(("127.0.0.1", broker.amqp_port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n\r\n")
        received = b""
        while chunk := connection.recv(1000):
            received += chunk
    assert received.startswith(b"AMQP\x00\x01\x00\x00")
    assert b"amqp:decode-error" in received
    assert ask(broker, "GET", "/health")[0] == 200


@pytest.fixture
def administration(broker):
    with ServiceBusAdministrationClient.from_connection_string(broker.connection_string) as client:
        # The SDK always builds https; this is what Microsoft's own sample does with the emulator.
        client._impl._client._base_url = broker.admin_url
        yield client


def test_the_administration_client_creates_reads_lists_and_deletes_queues(administration, broker):
    created = administration.create_queue(
        "fresh",
        lock_duration=timedelta(seconds=30),
        max_delivery_count=7,
        requires_duplicate_detection=True,
        dead_lettering_on_message_expiration=True,
    )
    assert (created.lock_duration, created.max_delivery_count) == (timedelta(seconds=30), 7)
    found = administration.get_queue("fresh")
    assert found.requires_duplicate_detection
    assert found.dead_lettering_on_message_expiration
    assert {queue.name for queue in administration.list_queues()} == {"orders", "team/orders", "fresh"}
    with (
        ServiceBusClient.from_connection_string(broker.connection_string, retry_total=0) as client,
        client.get_queue_sender("fresh", keep_alive=0) as sender,
    ):
        sender.send_messages(ServiceBusMessage("x", message_id="1"))
    runtime = administration.get_queue_runtime_properties("fresh")
    assert (runtime.active_message_count, runtime.total_message_count) == (1, 1)
    with pytest.raises(ResourceExistsError):
        administration.create_queue("fresh")
    administration.delete_queue("fresh")
    with pytest.raises(ResourceNotFoundError):
        administration.get_queue("fresh")
    with pytest.raises(ResourceNotFoundError):
        administration.delete_queue("fresh")


def test_a_port_in_use_is_named(broker):
    other = BrokerThread(BrokerConfig.for_queues(["a"]), amqp_port=broker.amqp_port)
    with pytest.raises(PortInUse, match=f"port {broker.amqp_port} .* AMQP"):
        other.start()
    other = BrokerThread(BrokerConfig.for_queues(["a"]), admin_port=broker.admin_port)
    with pytest.raises(PortInUse, match=f"port {broker.admin_port} .* administration"):
        other.start()


def test_a_stopped_broker_says_so(broker):
    broker.stop()
    broker.stop()
    with pytest.raises(RuntimeError, match="running broker"):
        broker.counts("orders")


def run_command(*arguments):
    command = [sys.executable, "-m", "coremachine.local.broker", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_connection_string_and_stops_cleanly(number):
    with run_command("--amqp-port", "0", "--admin-port", "0") as process:
        line = process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert line.startswith("Endpoint=sb://localhost:")
    assert line.endswith(";UseDevelopmentEmulator=true;\n")
    assert (process.returncode, errors) == (0, "")


def test_the_command_tells_a_port_in_use_in_one_line(broker):
    with run_command("--amqp-port", str(broker.amqp_port), "--admin-port", "0") as process:
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert errors.count("\n") == 1
    assert f"port {broker.amqp_port}" in errors


def test_the_command_tells_a_wrong_configuration_in_one_line(tmp_path):
    with run_command("--config", str(tmp_path / "missing.json")) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "missing.json" in errors
