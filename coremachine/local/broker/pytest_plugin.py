"""Fixtures for tests of code that uses Service Bus: a broker on free ports, without messages at the start of each test.

    def test_an_order_is_confirmed(servicebus):
        with ServiceBusClient.from_connection_string(servicebus.connection_string) as client: ...
        servicebus.turn_clock(61)
        assert servicebus.counts("orders")["active"] == 1

The setting `servicebus_config` of pytest names the Config.json with the queues and topics. A test's own
`servicebus_config` fixture may return another `BrokerConfig` instead.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coremachine.local.broker.config import BrokerConfig, ConfigError, default_config_path, load_config
from coremachine.local.broker.thread import BrokerThread

_SETTING = "servicebus_config"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(_SETTING, "Config.json with the queues and topics of the fixture `servicebus`", "string", default="")


@pytest.fixture(scope="session")
def servicebus_config(pytestconfig: pytest.Config) -> BrokerConfig:
    """The queues and topics of `servicebus`."""
    name = str(pytestconfig.getini(_SETTING))
    return read_config(pytestconfig.rootpath / name if name else default_config_path())


def read_config(path: Path) -> BrokerConfig:
    """A file that cannot be used fails the test with the reason alone: nobody has to look into this plugin."""
    try:
        return load_config(path)
    except ConfigError as error:
        pytest.fail(f"{_SETTING}: {error}", pytrace=False)


@pytest.fixture(scope="session")
def servicebus_broker(servicebus_config: BrokerConfig) -> Iterator[BrokerThread]:
    """One for all tests of this process."""
    with BrokerThread(servicebus_config) as broker:
        yield broker


@pytest.fixture
def servicebus(servicebus_broker: BrokerThread) -> BrokerThread:
    """The broker without what an earlier test left: messages, locks, states of sessions, faults, a turned clock."""
    servicebus_broker.reset()
    return servicebus_broker
