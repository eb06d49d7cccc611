"""The broker by the version of Microsoft's SDK for Python before the one that all other tests use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings
from coremachine.local.broker.rules import CorrelationFilter, Rule
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread

HERE = Path(__file__).parent
OLDER = HERE.parents[2] / ".sdk" / "azure-servicebus-7.14.3"
RED = SubscriptionSettings(QueueSettings(name="red"), (Rule("red", CorrelationFilter({"label": "red"})),))
CONFIG = BrokerConfig(
    (QueueSettings(name="orders"), QueueSettings(name="talks", requires_session=True)),
    (TopicSettings(QueueSettings(name="news"), (RED,)),),
)
SEEN = {
    "abandoned": ["abandon", 1],
    "deferred, then abandon": "abandon",
    "deferred, then defer": "defer",
    "deferred, then dead_letter": "dead_letter",
    "deferred, then complete": "complete",
    "scheduled": [["b", "SCHEDULED"]],
    "properties": ["é", -5, 1.5, True, "1767312000000"],
    "message": ["00ff", "s", "m", True],
    "session": ["1", "2", "state"],
    "topic": ["r"],
}


pytestmark = pytest.mark.skipif(not OLDER.is_dir(), reason=f"{OLDER.name} is not there: make test-programs")


def test_the_version_before_works_in_both_colours():
    path = os.pathsep.join(filter(None, [str(OLDER), os.environ.get("PYTHONPATH")]))
    with BrokerThread(CONFIG) as broker:
        done = subprocess.run(
            [sys.executable, HERE / "sdk_features.py", broker.connection_string],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"version": "7.14.3", "sync": SEEN, "aio": SEEN}
        # Of each colour: the one that was never asked for again, the abandoned and the deferred one.
        assert broker.counts("orders") == {"active": 0, "locked": 0, "scheduled": 0, "deferred": 6, "dead_letter": 4}
