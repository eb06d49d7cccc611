"""A job run in memory: stages planned, handlers called, results kept as JSON, as the machine does with rows."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.context import TaskContext
from core.errors import classify
from core.fan_in import fan_in_reader
from core.models import JobRef, Parallelism, StageDefinition, StageRef, TaskDefinition
from core.models.context import CompletedTask, FailedTask, JobExecutionContext, StageSummary


@dataclass
class MemoryRun:
    """One run; it is its own ResultStore."""

    job: Any
    registry: Any
    parameters: dict[str, Any]
    job_id: str
    completed: dict[int, list[CompletedTask]] = field(default_factory=dict)
    failed: dict[int, list[FailedTask]] = field(default_factory=dict)
    progress: list[tuple[str, float, str]] = field(default_factory=list)
    status: str = "processing"
    result: dict[str, Any] | None = None

    def stream_results(self, ref):
        assert ref.job_ref == JobRef(self.job_id, 1)
        yield from self.completed[ref.stage]

    def stream_failures(self, ref):
        assert ref.job_ref == JobRef(self.job_id, 1)
        yield from self.failed[ref.stage]

    def stage_summaries(self, ref):
        assert ref == JobRef(self.job_id, 1)
        return [
            StageSummary(
                stage=stage,
                status="completed_with_errors" if self.failed[stage] else "completed",
                completed=len(self.completed[stage]),
                failed=len(self.failed[stage]),
            )
            for stage in self.completed
        ]

    def run_stages(self) -> None:
        for stage in self.job.definition().stages:
            self.completed[stage.number], self.failed[stage.number] = [], []
            for index, task in enumerate(self.plan(stage)):
                self.attempt_until_settled(stage, index, task)
            if self.fails_the_job(stage):
                self.status = "failed"
                return
        summaries = tuple(self.stage_summaries(JobRef(self.job_id, 1)))
        context = JobExecutionContext(
            job_id=self.job_id,
            job_type=self.job.job_type,
            parameters=self.parameters,
            stages=summaries,
            results=lambda stage: self.stream_results(StageRef(self.job_id, 1, stage)),
        )
        self.result = as_row(self.job.finalize_job(context))
        self.status = "completed_with_errors" if any(one.failed for one in summaries) else "completed"

    def fails_the_job(self, stage: StageDefinition) -> bool:
        failed, policy = len(self.failed[stage.number]), stage.failure
        if policy.on_failure != "tolerate":
            return failed > 0 and policy.on_failure == "fail_job"
        share = 100 * failed / max(failed + len(self.completed[stage.number]), 1)
        too_many = policy.max_failed is not None and failed > policy.max_failed
        return too_many or (policy.max_failed_percent is not None and share > policy.max_failed_percent)

    def plan(self, stage: StageDefinition) -> list[TaskDefinition]:
        previous = stage.number - 1
        if stage.parallelism is Parallelism.FAN_IN:
            expected = len(self.completed[previous]) + len(self.failed[previous])
            source = {"job_id": self.job_id, "run": 1, "stage": previous, "expected_count": expected}
            return [TaskDefinition(parameters={"fan_in_source": source})]
        results = iter(self.completed.get(previous, []))
        tasks = list(self.job.create_tasks_for_stage(stage.number, self.parameters, self.job_id, results))
        names = [task.name for task in tasks if task.name is not None]
        assert len(set(names)) == len(names)
        return tasks

    def attempt_until_settled(self, stage: StageDefinition, index: int, task: TaskDefinition) -> None:
        handler = self.registry.find_handler(task.task_type or stage.task_type)
        row = {
            "task_id": f"{stage.number}-{task.name or index}",
            "task_index": index,
            "name": task.name,
            "parameters": as_row(task.parameters),
        }
        for attempt in range(1, stage.retry.max_attempts + 1):
            context = TaskContext(
                job_id=self.job_id,
                job_type=self.job.job_type,
                stage=stage.number,
                task_id=row["task_id"],
                task_index=index,
                attempt=attempt,
                job_parameters=self.parameters,
                _report=lambda said: self.progress.append((row["task_id"], said["percent"], said["message"])),
            )
            try:
                with fan_in_reader(self):
                    result = as_row(handler.function(dict(row["parameters"]), context) or {})
            except Exception as error:  # noqa: BLE001 - every failure is the task's, as in the machine
                failure = classify(error)
            else:
                self.completed[stage.number].append(CompletedTask(**row, result=result))
                return
            if not failure.retryable:
                break
        error = {"type": failure.error_type, "message": failure.message, "attempt": attempt}
        self.failed[stage.number].append(FailedTask(**row, error={**error, "retryable": failure.retryable}))


def as_row(value: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.fixture
def run_job():
    """Submit a job and run it to its end: `run_job(registry, job_type, parameters) -> MemoryRun`."""

    def run(registry, job_type, parameters):
        job = registry.get_job(job_type)
        validated = job.validate_job_parameters(parameters)
        found = MemoryRun(job, registry, validated, job.generate_job_id(validated))
        found.run_stages()
        return found

    return run
