"""The processes that run this project's apps, as they register themselves, and work that waits for one of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field

from core.models.definition import FrozenModel
from core.models.status import StoredEnum

MOST_NAMES = 500


class InstanceState(StoredEnum):
    """live: heard of within 65 seconds. silent: not heard of for longer, it may be dead. ended: it said so itself."""

    LIVE = "live"
    SILENT = "silent"
    ENDED = "ended"


StoredInstanceState = Annotated[InstanceState, BeforeValidator(InstanceState.stored)]


class AppInstanceRecord(FrozenModel):
    """A process of an app: what it is and what it can do. Nothing decides by it; it is for people and warnings."""

    instance: str = Field(description="The name of the process, as in lease_owner of tasks.")
    app_name: str = Field(description="The app that the process belongs to: COREMACHINE_APP_NAME.")
    mode: str = Field(description="What the app does: standalone, platform or worker.")
    version: str = Field(description="The version of CoreMachine that it runs.")
    release: str | None = Field(
        default=None, description="The release of the app's own code: COREMACHINE_RELEASE; null if it is not set."
    )
    queues: tuple[str, ...] = Field(description="Logical names of the queues that it reads, sorted.")
    task_types: tuple[str, ...] = Field(description="The task types that it has handlers for, sorted.")
    job_types: tuple[str, ...] = Field(description="The job types that it has, sorted.")
    slots: Annotated[int, Field(ge=0)] = Field(
        description="The largest number of tasks that it runs at once; 0 if it runs none."
    )
    started_at: datetime = Field(description="When it registered itself first.")
    seen_at: datetime = Field(description="When it registered itself last. A live process does so every 20 seconds.")
    ended_at: datetime | None = Field(
        default=None, description="When it said that it ends. Null while it runs, and after a crash."
    )

    def state(self, now: datetime, live_seconds: float) -> InstanceState:
        """What the row shows of the process at that time."""
        if self.ended_at is not None:
            return InstanceState.ENDED
        age = (now - self.seen_at).total_seconds()
        return InstanceState.LIVE if age <= live_seconds else InstanceState.SILENT


@dataclass(frozen=True)
class AppProfile:
    """What a process registers; the fields are those of `AppInstanceRecord`."""

    instance: str
    app_name: str
    mode: str
    version: str
    release: str | None
    queues: tuple[str, ...]
    task_types: tuple[str, ...]
    job_types: tuple[str, ...]
    slots: int


@dataclass(frozen=True)
class WaitingWork:
    """Tasks of one type on one queue (logical name) that no process has. `since`: the one that waits longest."""

    queue: str
    task_type: str
    since: datetime


@dataclass(frozen=True)
class FleetFacts:
    """All processes that are known, and the work that waits, at one time of the database."""

    now: datetime
    instances: tuple[AppInstanceRecord, ...] = ()
    waiting: tuple[WaitingWork, ...] = ()


class QueueLoad(FrozenModel):
    """A queue as the rows show it."""

    queue: str = Field(description="Logical name.")
    waiting: int = Field(description="Tasks or job steps whose message is confirmed and that no process has.")
    running: int = Field(description="Tasks that a process has.")
    retrying: int = Field(default=0, description="Tasks that wait for another attempt, whether a message waits or not.")
    unannounced: int = Field(default=0, description="Tasks that wait in line or for their message to be sent.")
    oldest_at: datetime | None = Field(
        default=None, description="When the message of the one that waits longest was confirmed."
    )
    dead: int = Field(description="Dead messages of this queue that nobody has dealt with.")
