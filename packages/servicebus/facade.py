"""Azure Service Bus on this machine.

`BrokerThread` runs one in the background of a program or a test; `coremachine-servicebus` is the command.
"""

from coremachine.local.broker.config import BrokerConfig, SubscriptionSettings, TopicSettings, load_config
from coremachine.local.broker.server import TlsPorts
from coremachine.local.broker.stored import QueueSettings
from coremachine.local.broker.thread import BrokerThread

__all__ = [
    "BrokerConfig",
    "BrokerThread",
    "QueueSettings",
    "SubscriptionSettings",
    "TlsPorts",
    "TopicSettings",
    "load_config",
]
