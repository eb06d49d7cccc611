"""Which run of a job, which stage of it, and under which lease: values that always travel together."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class JobRef:
    """One run of a job."""

    job_id: str
    run: int

    @property
    def key(self) -> tuple[str, int]:
        """The values of its key's columns, in their order."""
        return self.job_id, self.run

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields of a log record that name it."""
        return {"job_id": self.job_id, "run": self.run}

    def at_stage(self, stage: int) -> "StageRef":
        return StageRef(self.job_id, self.run, stage)


@dataclass(frozen=True, slots=True)
class StageRef:
    """One stage of one run of a job. No JobRef, so that neither is taken for the other in a call."""

    job_id: str
    run: int
    stage: int

    @property
    def job_ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def key(self) -> tuple[str, int, int]:
        """The values of its key's columns, in their order."""
        return self.job_id, self.run, self.stage

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields of a log record that name it."""
        return {"job_id": self.job_id, "run": self.run, "stage": self.stage}


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to the tasks of one claim. Writes are fenced by its random id; `owner` is the process's name."""

    lease_id: UUID
    owner: str
