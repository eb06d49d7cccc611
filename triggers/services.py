"""The composition for the triggers: made once, at the first request or message, and shared by all threads."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import StoreUnavailable
from triggers.ports import Check, ServicesNotReady

if TYPE_CHECKING:
    from core.janitor import Janitor
    from core.machine import CoreMachine
    from infrastructure.factory import RepositoryFactory
    from infrastructure.queries import JobQueries
    from infrastructure.settings import Settings
    from jobs.registry import Registry
