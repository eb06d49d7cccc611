"""What the endpoints about apps and queues answer."""

from datetime import datetime

from pydantic import BaseModel, Field

from core.models.app import AppInstanceRecord, QueueLoad, StoredInstanceState
from triggers.insight_models import FindingAnswer


class AppInstance(AppInstanceRecord):
    """A process, and whether it is heard of."""

    status: StoredInstanceState = Field(
        description="live: registered itself lately. silent: it did not, and may be dead. ended: it said so."
    )


class AppsAnswer(BaseModel):
    """The processes of the last day by app, as they were at `at`; and what is wrong with them together."""

    at: datetime
    value: list[AppInstance]
    findings: list[FindingAnswer]


class Queue(QueueLoad):
    """A queue, who reads it, and which task types these can run."""

    real_name: str | None = Field(description="Its name in Service Bus; null if this app's settings do not have it.")
    is_missing: bool = Field(description="Whether a look found that Service Bus does not have it.")
    consumers: int = Field(description="Live processes that read it.")
    slots: int = Field(description="The largest number of tasks that these run at once.")
    apps: list[str] = Field(description="The names of their apps.")
    task_types: list[str] = Field(
        description="The task types that at least one of these has a handler for; none at `jobs`, where no task goes."
    )


class QueuesAnswer(BaseModel):
    """All queues, the jobs queue first, as the rows show them at `at`; and work that nobody can take."""

    at: datetime
    value: list[Queue]
    findings: list[FindingAnswer]
