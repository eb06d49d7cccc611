"""Which run of a job, and which stage of it."""

from typing import Any, NamedTuple


class JobRef(NamedTuple):
    """One run of a job: the values of its key's columns, in their order."""

    job_id: str
    run: int

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields of a log record that name it."""
        return {"job_id": self.job_id, "run": self.run}

    def at_stage(self, stage: int) -> "StageRef":
        return StageRef(self.job_id, self.run, stage)


class StepRef(NamedTuple):
    """One attempt at a step of a job: to plan the stage, or after the last one to make the summary."""

    job_id: str
    run: int
    stage: int
    status: str
    attempt: int


class StageRef(NamedTuple):
    """One stage of one run of a job, as `JobRef`. No JobRef, so that neither is taken for the other in a call."""

    job_id: str
    run: int
    stage: int

    @property
    def job_ref(self) -> JobRef:
        return JobRef(self.job_id, self.run)

    @property
    def log_fields(self) -> dict[str, Any]:
        """The fields of a log record that name it."""
        return {"job_id": self.job_id, "run": self.run, "stage": self.stage}
