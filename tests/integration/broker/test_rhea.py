"""The broker by rhea, an AMQP library that knows nothing of Service Bus: plain AMQP 1.0, by TCP and by WebSocket."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coremachine.local.broker.config import BrokerConfig
from coremachine.local.broker.thread import BrokerThread

MODULES = Path(__file__).parents[3] / ".node" / "node_modules"
SCRIPT = """
const rhea = require("rhea");
const [, , way, port] = process.argv;
const container = rhea.create_container({ id: way });
const seen = { settled: [], counts: [] };
const outcomes = {
  one: (d) => d.accept(),
  two: (d) => d.reject({ condition: "com.microsoft:dead-letter", description: "why" }),
  three: (d) => d.release(),
  four: (d) => d.modified({ delivery_failed: true, undeliverable_here: false }),
};
container.on("sendable", (context) => {
  for (const body of ["one", "two", "three", "four"]) {
    if (!seen[body]) seen[body] = context.sender.send({ message_id: body, body: body + "x".repeat(70000) });
  }
});
container.on("accepted", (context) => {
  seen.settled.push("accepted");
  if (seen.settled.length === 4) {
    // One at a time: of two that are settled together, rhea sends the first one's outcome for both.
    context.connection.open_receiver({ source: "orders", autoaccept: false, credit_window: 1 });
  }
});
container.on("message", (context) => {
  const name = context.message.message_id;
  seen.counts.push([name, context.message.delivery_count]);
  const isAgain = seen.counts.filter((each) => each[0] === name).length > 1;
  (isAgain ? outcomes.one : outcomes[name])(context.delivery);
  if (seen.counts.length === 6) context.connection.close();
});
container.on("connection_close", () => {
  console.log(JSON.stringify([seen.settled.length, seen.counts.sort()]));
});
for (const event of ["disconnected", "error", "connection_error"]) {
  container.on(event, (context) => { console.error(event, context.error); process.exit(1); });
}
const shared = { reconnect: false, max_frame_size: 4096 };
const address = `ws://localhost:${port}/$servicebus/websocket`;
const details = way === "ws" && container.websocket_connect(WebSocket)(address, "AMQPWSB10", {});
const plain = { port, username: "name", password: "key" };
const options = { ws: { connection_details: details }, anonymous: { port }, plain }[way];
container.connect({ ...shared, ...options }).open_sender("orders");
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "rhea").is_dir(),
    reason="node and rhea are not there: make test-programs",
)
@pytest.mark.parametrize("way", ["anonymous", "plain", "ws"])
def test_a_client_of_plain_amqp_sends_receives_and_settles(way):
    with BrokerThread(BrokerConfig.for_queues(["orders"])) as broker:
        done = subprocess.run(
            ["node", "--experimental-websocket", "--no-warnings", "-e", SCRIPT, "program", way, str(broker.amqp_port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"NODE_PATH": str(MODULES)},
        )
        assert done.returncode == 0, done.stderr
        # Released: the delivery does not count. Modified: it does.
        again = [["four", 0], ["four", 1], ["one", 0], ["three", 0], ["three", 0], ["two", 0]]
        assert json.loads(done.stdout) == [4, again]
        counts = broker.counts("orders")
        assert (counts["active"], counts["locked"], counts["dead_letter"]) == (0, 0, 1)
