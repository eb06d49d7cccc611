"""AMQP over WebSockets: by Microsoft's SDKs, with and without TLS, and by clients that break its rules."""

import asyncio
import base64
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient as AioClient

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.thread import BrokerThread

MODULES = Path(__file__).parents[3] / ".node" / "node_modules"
TLS_STRING = "Endpoint=sb://localhost;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE"
# More than one frame of AMQP, and a message of WebSocket with the longest kind of length.
LARGE = "x" * 200_000
JAVASCRIPT = """
const { ServiceBusClient } = require("@azure/service-bus");
async function main() {
  const options = { webSocketOptions: { webSocket: WebSocket }, retryOptions: { maxRetries: 0 } };
  const client = new ServiceBusClient(process.argv[2], options);
  await client.createSender("orders").sendMessages([{ body: "x".repeat(200000) }, { body: "b" }]);
  const receiver = client.createReceiver("orders");
  const sizes = [];
  while (sizes.length < 2) {
    for (const message of await receiver.receiveMessages(2, { maxWaitTimeInMs: 10000 })) {
      sizes.push(message.body.length);
      await receiver.completeMessage(message);
    }
  }
  await client.close();
  console.log(JSON.stringify(sizes));
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="module")
def tls_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def broker(tls_folder):
    with BrokerThread(BrokerConfig.for_queues(["orders"]), tls=TlsPorts(tls_folder, amqp_port=0)) as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def options(request, broker, tls_folder):
    """Of a client of the SDK: its connection string and what else it is made with."""
    shared = {"transport_type": TransportType.AmqpOverWebsocket, "retry_total": 0}
    if request.param == "plain":
        address = f"http://localhost:{broker.amqp_port}"
        return {"conn_str": broker.connection_string, "custom_endpoint_address": address} | shared
    address = f"https://localhost:{broker.amqps_port}"
    verify = {"connection_verify": str(tls_folder / "ca.pem")}
    return {"conn_str": TLS_STRING, "custom_endpoint_address": address} | verify | shared


def test_the_sdk_sends_and_receives(broker, options):
    with ServiceBusClient.from_connection_string(**options) as client:
        with client.get_queue_sender("orders", keep_alive=0) as sender:
            sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage(LARGE)])
        with client.get_queue_receiver("orders", prefetch_count=10) as receiver:
            found = []
            while len(found) < 2:
                found += receiver.receive_messages(2, max_wait_time=10)
            receiver.renew_message_lock(found[0])
            for message in found:
                receiver.complete_message(message)
    assert [str(message) for message in found] == ["a", LARGE]
    assert broker.counts("orders")["active"] == 0


# Without TLS the SDK asks aiohttp for ssl=None.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
def test_the_aio_sdk_sends_and_receives(broker, options):
    async def work():
        async with AioClient.from_connection_string(**options) as client:
            async with client.get_queue_sender("orders") as sender:
                await sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage(LARGE)])
            async with client.get_queue_receiver("orders", prefetch_count=10) as receiver:
                found = []
                while len(found) < 2:
                    found += await receiver.receive_messages(2, max_wait_time=10)
                for message in found:
                    await receiver.complete_message(message)
                return [str(message) for message in found]

    assert asyncio.run(work()) == ["a", LARGE]
    assert broker.counts("orders")["active"] == 0


@pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "@azure" / "service-bus").is_dir(),
    reason="node and @azure/service-bus are not there: make test-programs",
)
def test_the_sdk_for_javascript_sends_and_receives(broker, tls_folder):
    text = broker.connection_string.replace(f":{broker.amqp_port};", f":{broker.amqps_port};")
    done = subprocess.run(
        # Node 22 has WebSocket without the option, too.
        ["node", "--experimental-websocket", "--no-warnings", "-e", JAVASCRIPT, "program", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"NODE_PATH": str(MODULES), "NODE_EXTRA_CA_CERTS": str(tls_folder / "ca.pem")},
    )
    assert (done.returncode, done.stdout) == (0, "[200000,1]\n"), done.stderr


class RawClient:
    """A client of WebSocket that sends what it is told."""

    def __init__(self, broker):
        self.socket = socket.create_connection(("127.0.0.1", broker.amqp_port), 10)
        self.data = b""

    def ask(self, *, path="/$servicebus/websocket", version="1.1", **changes):
        headers = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            "Sec-WebSocket-Protocol": "AMQPWSB10",
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
        self.socket.sendall("\r\n".join([f"GET {path} HTTP/{version}", *lines, "", ""]).encode())
        return self.read_head()

    def read_head(self):
        while b"\r\n\r\n" not in self.data:
            received = self.socket.recv(65536)
            assert received, "the broker closed without an answer"
            self.data += received
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        return head.decode()

    def send(self, opcode, payload, *, final=True, mask=b"\1\2\3\4", in_parts=False):
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if mask else payload
        frame = bytes((opcode | (0x80 if final else 0), len(payload) | (0x80 if mask else 0))) + mask + masked
        for part in [bytes((byte,)) for byte in frame] if in_parts else [frame]:
            self.socket.sendall(part)

    def frame(self):
        """The opcode and payload of the next frame, which is a short one; None at the end."""
        while len(self.data) < 2 or len(self.data) < 2 + self.data[1]:
            received = self.socket.recv(65536)
            if not received:
                return None
            self.data += received
        size = self.data[1]
        found, self.data = (self.data[0] & 0x0F, self.data[2 : 2 + size]), self.data[2 + size :]
        return found


@pytest.fixture
def raw(broker):
    client = RawClient(broker)
    yield client
    client.socket.close()


HEADER = b"AMQP\0\1\0\0"


def test_an_upgrade_is_answered_as_the_protocol_wants_it(raw):
    head = raw.ask()
    assert head.startswith("HTTP/1.1 101 ")
    # The key of sixteen zeros, as RFC 6455 computes it.
    assert "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=" in head
    assert "Sec-WebSocket-Protocol: AMQPWSB10" in head


def test_messages_may_be_cut_anywhere_and_control_frames_come_in_between(raw):
    raw.ask()
    raw.send(2, HEADER[:3], final=False, in_parts=True)
    raw.send(9, b"are you there", in_parts=True)
    raw.send(0, HEADER[3:5], final=False)
    raw.send(0, b"", final=False)
    raw.send(0, HEADER[5:], in_parts=True)
    assert raw.frame() == (10, b"are you there")
    assert raw.frame() == (2, HEADER)
    raw.send(8, (1000).to_bytes(2, "big") + b"bye")
    assert raw.frame() == (8, (1000).to_bytes(2, "big"))
    assert raw.frame() is None


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(1, b"text", {})], 1003),
        ([(2, HEADER, {"mask": b""})], 1002),
        ([(0, HEADER, {})], 1002),
        ([(2, b"AM", {"final": False}), (2, b"QP", {})], 1002),
        ([(3, b"", {})], 1002),
        ([(11, b"", {})], 1002),
        ([(9, b"", {"final": False})], 1002),
        ([(2 | 0x40, HEADER, {})], 1002),
    ],
)
def test_a_client_that_breaks_the_rules_is_closed_with_the_code_that_says_so(raw, frames, code):
    raw.ask()
    for opcode, payload, options in frames:
        raw.send(opcode, payload, **options)
    assert raw.frame() == (8, code.to_bytes(2, "big"))
    assert raw.frame() is None


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"path": "/elsewhere"}, 404, "/$servicebus/websocket"),
        ({"Upgrade": "h2c"}, 400, "Upgrade: websocket"),
        ({"Sec_WebSocket_Version": "8"}, 400, "Version: 13"),
        ({"Sec_WebSocket_Key": "short"}, 400, "16 bytes"),
        ({"Sec_WebSocket_Protocol": "mqtt"}, 400, "AMQPWSB10"),
        ({"Origin": "http://page.example"}, 403, "page.example"),
        ({"Host": "page.example"}, 403, "page.example"),
        ({"Host": None}, 400, "Host"),
    ],
)
def test_another_request_is_refused_with_the_reason(raw, changes, status, text):
    assert raw.ask(**changes).startswith(f"HTTP/1.1 {status} ")
    while received := raw.socket.recv(65536):
        raw.data += received
    assert re.search(re.escape(text), raw.data.decode())


def test_a_head_without_an_end_is_refused(raw):
    raw.socket.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * 9000)
    assert raw.read_head().startswith("HTTP/1.1 431 ")
