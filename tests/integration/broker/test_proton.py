"""The broker by Qpid Proton, whose codec is written in C: plain AMQP 1.0, with and without TLS, in Debian's Python."""

import json
import os
import shutil
import subprocess

import pytest

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.thread import BrokerThread

PYTHON = shutil.which("python3", path="/usr/bin")
SCRIPT = """
import json, sys
from uuid import UUID
from proton import Condition, Disposition, Message, SSLDomain, symbol, timestamp
from proton.utils import BlockingConnection, SendException

url, authority = sys.argv[1:]
domain = None
if authority:
    domain = SSLDomain(SSLDomain.MODE_CLIENT)
    domain.set_trusted_ca_db(authority)
    domain.set_peer_authentication(SSLDomain.VERIFY_PEER)
connection = BlockingConnection(url, timeout=20, ssl_domain=domain, allowed_mechs="ANONYMOUS")
properties = {"n": -5, "big": 2**40, "f": 1.5, "b": True, "at": timestamp(5), "u": UUID(int=7)}
sender = connection.create_sender("orders")
for name in ("accept", "release", "modify", "reject"):
    sender.send(Message(id=name, body={"name": name}, properties=properties, subject="s", content_type=symbol("a/b")))
seen = {"deliveries": [], "refused": ""}
receiver = connection.create_receiver("orders", credit=1)
while len(seen["deliveries"]) < 6:
    message = receiver.receive(timeout=10)
    name, count = message.body["name"], message.delivery_count
    seen["deliveries"].append([name, count])
    seen["kept"] = message.properties == properties and (message.subject, message.content_type) == ("s", "a/b")
    times = sum(each[0] == name for each in seen["deliveries"])
    if name == "release" and times == 1:
        receiver.release(delivered=False)
    elif name == "modify" and times == 1:
        receiver.release(delivered=True)
    elif name == "reject":
        receiver.reject()
    else:
        receiver.accept()
try:
    sender.send(Message(body=b"x" * 300000))
except SendException as error:
    seen["refused"] = error.state.name if hasattr(error.state, "name") else str(error.state)
connection.close()
print(json.dumps(seen))
"""


def has_proton():
    command = [PYTHON, "-c", "import proton.utils"]
    return PYTHON is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_proton(), reason="Debian's python3-qpid-proton is not there: make test-programs")
@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_proton_sends_receives_and_settles(scheme, tmp_path):
    tls = TlsPorts(tmp_path, amqp_port=0)
    with BrokerThread(BrokerConfig.for_queues(["orders"]), tls=tls) as broker:
        port, authority = (broker.amqp_port, "") if scheme == "amqp" else (broker.amqps_port, str(tmp_path / "ca.pem"))
        done = subprocess.run(
            [PYTHON, "-c", SCRIPT, f"{scheme}://localhost:{port}", authority],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        # Released: the delivery does not count. Modified: it does.
        again = [["accept", 0], ["modify", 0], ["modify", 1], ["reject", 0], ["release", 0], ["release", 0]]
        assert sorted(seen["deliveries"]) == again
        assert (seen["kept"], seen["refused"]) == (True, "REJECTED")
        counts = broker.counts("orders")
        assert (counts["active"], counts["locked"], counts["dead_letter"]) == (0, 0, 1)
