"""Which run of a job, and which stage of it."""

from dataclasses import dataclass
from typing import Any


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
