"""Output bindings, batches, sessions and topics: a host on the real SDK, the broker, and azurite."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest
from azure.core.exceptions import ResourceExistsError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.host import sdk_receivers
from coremachine.local.host.functions import ServiceBusTrigger

from .conftest import SampleLog, starting_hosts, wait_until

ROOT = Path(__file__).resolve().parents[3]
AZURITE = shutil.which("azurite", path=f"{ROOT / '.node/node_modules/.bin'}{os.pathsep}{os.environ['PATH']}")
# The emulator's own account, the same everywhere and no secret.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
ENTITIES = BrokerConfig(
    (
        QueueSettings(name="first"),
        QueueSettings(name="batches"),
        QueueSettings(name="talks", requires_session=True),
        QueueSettings(name="quiet", requires_session=True),
    ),
    (TopicSettings(QueueSettings(name="events"), (SubscriptionSettings(QueueSettings(name="all")),)),),
)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def broker():
    with BrokerThread(ENTITIES) as running:
        yield running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A connection string of azurite; nothing listens there where it is not installed."""
    blob, queue, table = free_port(), free_port(), free_port()
    endpoints = f"BlobEndpoint=http://127.0.0.1:{blob}/{ACCOUNT};QueueEndpoint=http://127.0.0.1:{queue}/{ACCOUNT};"
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{endpoints}"
    if AZURITE is None:
        yield connection
        return
    folder = tmp_path_factory.mktemp("azurite")
    command = [AZURITE, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location", str(folder)]
    ports = ["--blobPort", str(blob), "--queuePort", str(queue), "--tablePort", str(table)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *ports], stdout=log, stderr=log)
    wait_until(lambda: _answers(blob) and _answers(queue), "azurite")
    yield connection
    process.terminate()
    process.wait(30)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        time.sleep(0.1)
        return False
    return True


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return SampleLog(tmp_path_factory.mktemp("bindings") / "records.jsonl")


@pytest.fixture(scope="module")
def host(broker, storage, records, tmp_path_factory):
    settings = {
        "SB": broker.connection_string,
        "Storage": storage,
        "AzureWebJobsStorage": storage,
        "FIRST_QUEUE": "first",
    }
    folder = tmp_path_factory.mktemp("host")
    with starting_hosts(folder, records.path) as start:
        yield start("bindings_app", settings=settings, workers=2, grace_seconds=1.0)


@pytest.fixture
def http(host):
    with httpx.Client(base_url=host.url, timeout=30) as client:
        yield client


def test_outputs_reach_queue_and_topic_and_their_functions(http, records):
    """HTTP -> queue and topic; queue -> $return -> another queue, read in batches; a JSON array is a message each."""
    texts = [f"text {number}" for number in range(5)]
    assert http.post("/api/send", content=json.dumps(texts)).text == "sent"
    wait_until(lambda: sum(len(batch["bodies"]) for batch in records.records("batch")) >= 5, "all texts in batches")
    batches = records.records("batch")
    assert sorted(body for batch in batches for body in batch["bodies"]) == texts
    assert max(len(batch["bodies"]) for batch in batches) <= 3
    assert all(set(batch["counts"]) == {1} and batch["ids"] == len(batch["bodies"]) for batch in batches)
    # A topic's message as bytes is one message, whatever it holds.
    assert [event["body"] for event in records.wait_for("event")] == [json.dumps(texts)]


def test_sessions_keep_their_order(broker, host, records):
    pairs = [(session, str(number)) for number in range(4) for session in ("a", "b", "c")]
    client = ServiceBusClient.from_connection_string(broker.connection_string)
    with client, client.get_queue_sender("talks") as sender:
        sender.send_messages([ServiceBusMessage(body, session_id=session) for session, body in pairs])
    found = records.wait_for("session", len(pairs))
    for session in ("a", "b", "c"):
        assert [one["body"] for one in found if one["session"] == session] == ["0", "1", "2", "3"]


def test_wait_for_a_session_ends_with_the_host(broker, monkeypatch):
    """The SDK's own wait for the next session has no end but its timeout, and is then repeated twice."""
    monkeypatch.setattr(sdk_receivers, "_SESSION_SECONDS", 1000.0)
    trigger = ServiceBusTrigger("SB", "quiet", "", "", False, "STRING", None, has_sessions=True)
    receivers = sdk_receivers.NextSessions(trigger, {"SB": broker.connection_string})
    stopping, opened = threading.Event(), Future()
    thread = threading.Thread(target=lambda: opened.set_result(receivers.open(stopping)), daemon=True)
    thread.start()
    stopping.set()
    assert opened.result(60) is None
    receivers.close()


@pytest.mark.skipif(AZURITE is None, reason="azurite is not installed (make test-programs)")
def test_storage_queues_and_blobs_are_written_and_read(http, records, storage):
    """A queue's function gets the messages; one that always fails ends in the poison queue after five attempts."""
    assert http.get("/api/read/Bob").text == "read None"
    assert http.post("/api/store/Bob", content=b'{"kind": "report"}').text == "stored"
    orders = records.wait_for("order", 6)
    assert sorted((order["body"], order["count"]) for order in orders) == [
        ("one", 1),
        *(("two", count) for count in range(1, 6)),
    ]
    with QueueClient.from_connection_string(storage, "orders-poison") as queue:
        with contextlib.suppress(ResourceExistsError):
            queue.create_queue()  # the host makes it as well
        poisoned = wait_until(lambda: list(queue.receive_messages()), "the poisoned message")
    assert [message.content for message in poisoned] == ["dHdv"]  # Base64 of two
    with BlobServiceClient.from_connection_string(storage) as blobs:
        assert http.get("/api/read/Bob").text == 'read {"kind": "report"}'
        assert blobs.get_blob_client("files", "Bob/report.txt").download_blob().readall() == b'{"kind": "report"}'


@pytest.mark.skipif(AZURITE is None, reason="azurite is not installed (make test-programs)")
def test_blobs_run_their_function_once_for_each_version(http, records, storage):
    """What fits the path is run; what always fails ends in the poison queue; a receipt marks what was run."""
    with BlobServiceClient.from_connection_string(storage) as account:
        folder = account.get_container_client("dropped")
        folder.create_container()
        folder.upload_blob("in/not.txt", b"other")
        folder.upload_blob("in/a.csv", b"first", metadata={"from": "me"})
        folder.upload_blob("in/b.csv", b"bad")
        found = records.wait_for("blob", 3)
        assert sorted(blob["body"] for blob in found) == ["bad", "bad", "first"]
        [good] = [blob for blob in found if blob["body"] == "first"]
        place = ("dropped/in/a.csv", folder.get_blob_client("in/a.csv").url, 5, {"from": "me"})
        assert (good["name"], good["uri"], good["length"], good["tags"]) == place
        folder.upload_blob("in/a.csv", b"again", overwrite=True)
        assert records.wait_for("blob", 4)[-1]["body"] == "again"
        assert http.post("/admin/functions/on_blob", json={"input": "dropped/in/none.csv"}).status_code == 400
        assert http.post("/admin/functions/on_blob", json={"input": "dropped/in/a.csv"}).status_code == 202
        assert records.wait_for("blob", 5)[-1]["body"] == "again"
        copy = account.get_blob_client("copies", "a-in.txt")
        wait_until(lambda: copy.exists() and copy.download_blob().readall() == b"again", "the copy")
        receipts = account.get_container_client("azure-webjobs-hosts")
        wait_until(lambda: len(list(receipts.list_blob_names())) == 3, "a receipt for each version")
    with QueueClient.from_connection_string(storage, "webjobs-blobtrigger-poison") as queue:
        [message] = wait_until(lambda: list(queue.receive_messages()), "the poisoned blob")
    named = json.loads(base64.b64decode(message.content))
    assert (named["ContainerName"], named["BlobName"]) == ("dropped", "in/b.csv")


def test_expression_that_names_nothing_fails_the_invocation(http):
    assert http.post("/api/store/Bob", content=b"no JSON").status_code == 500


def test_response_may_be_an_output_and_none_is_a_failure(http):
    answer = http.get("/api/respond")
    assert (answer.status_code, answer.text) == (203, "set")
    assert http.get("/api/nothing").json()["code"] == "function_failed"


def test_routes_are_tried_in_the_order_of_names(http):
    """As in Azure, `a_catch_all` comes before `b_exact`, which is registered before it."""
    assert http.get("/api/order/exact").text == "rest: exact"


def test_timer_is_run_again_by_its_retry_policy(host, records):
    ticks = records.wait_for("tick", 3)
    assert [tick["count"] for tick in ticks] == [0, 1, 2]
    assert all(tick["is_text"] and tick["limit"] == 2 for tick in ticks)
    assert len(records.records("tick")) == 3


def test_batch_function_is_run_by_hand(http, records):
    before = len(records.records("batch"))
    assert http.post("/admin/functions/on_batch", json={"input": "by hand"}).status_code == 202
    assert records.wait_for("batch", before + 1)[-1]["bodies"] == ["by hand"]
