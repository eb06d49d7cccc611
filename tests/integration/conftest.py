"""What integration tests of several parts share."""

from collections.abc import Iterator

import pytest

from coremachine.local.broker.config import default_config_path, load_config
from coremachine.local.broker.thread import BrokerThread
from tests.short_naps import shorten_naps

shorten_naps()


@pytest.fixture(scope="session")
def project_broker() -> Iterator[BrokerThread]:
    """A broker with the project's own queues, which drop a message id seen within a minute."""
    with BrokerThread(load_config(default_config_path())) as running:
        yield running
