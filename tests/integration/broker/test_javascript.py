"""The broker by Microsoft's SDK for JavaScript, where `make test-programs` has installed it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread

HERE = Path(__file__).parent
MODULES = HERE.parents[2] / ".node" / "node_modules"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "@azure" / "service-bus").is_dir(),
    reason="node and @azure/service-bus are not there: make test-programs",
)


def test_the_sdk_for_javascript_works_with_the_broker(tmp_path):
    queues = (QueueSettings(name="orders"), QueueSettings(name="talks", requires_session=True))
    topic = TopicSettings(QueueSettings(name="news"), (SubscriptionSettings(QueueSettings(name="all")),))
    tls = TlsPorts(tmp_path / "tls", admin_port=0)
    with BrokerThread(BrokerConfig(queues, (topic,)), tls=tls) as broker:
        done = subprocess.run(
            ["node", HERE / "javascript_sdk.js", broker.connection_string, broker.admin_connection_string],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=os.environ | {"NODE_PATH": str(MODULES), "NODE_EXTRA_CA_CERTS": str(tmp_path / "tls" / "ca.pem")},
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "bodies": ["a", {"x": 1}, "c"],
        "ids": [32, "mine"],
        "abandoned": [{"tries": 7}, 1],
        "deferred": {"tries": 7, "put": "aside"},
        "dead": ["why", 5],
        "missing": "MessagingEntityNotFound",
        "peeked": [["value", "active"], ["sequence", "active"], ["data", "active"]],
        "streamed": ["1,a", "1,b", "c"],
        "session": ["A", {"half": "way"}, "1"],
        "taken": "SessionCannotBeLocked",
        "rules": ["$Default", "r", "s"],
        "topic": "to all",
        "queue": ["made", "PT30S", 6, "Active"],
        "exists": [True, False],
        "count": 0,
        "rule": [{"k": "v", "n": 5, "b": True, "d": "1970-01-01T00:00:00.005Z"}, "SET a = 1"],
        "names": ["t", "s", "$Default", "r"],
        "namespace": "sbemulatorns",
        "gone": "MessageEntityNotFoundError",
        "repeated": "MessageEntityAlreadyExistsError",
    }
