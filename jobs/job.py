"""The base class of jobs that are mostly declared."""

from collections.abc import Iterable, Mapping
from typing import Any

from core.models import Parallelism, TaskDefinition
from core.models.context import CompletedTask, JobExecutionContext
from jobs.base import JobBase
from jobs.mixins import JobBaseMixin


class Job(JobBaseMixin, JobBase, is_base=True):
    """A job whose six methods are all there: an author overrides what the declarations do not say.

    A `single` stage has one task, a stage with `over` one per element, and `finalize_job` returns counts and the last
    result. A `fan_out` stage without `over` needs `create_tasks_for_stage`.
    """

    @staticmethod
    def create_tasks_for_stage(
        stage: int,
        job_params: Mapping[str, Any],
        job_id: str,
        previous_results: Iterable[CompletedTask],
    ) -> Iterable[TaskDefinition]:
        """One task without parameters of its own. As in `JobBase`; not called for stages with `over`."""
        del stage, job_params, job_id, previous_results
        return [TaskDefinition()]

    @classmethod
    def finalize_job(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The number of tasks per stage as `stages`, and as `result` that of the last stage, if it had one task."""
        names = {stage.number: stage.name for stage in cls.definition().stages}
        stages = [
            {"name": names.get(stage.stage, str(stage.stage)), "completed": stage.completed, "failed": stage.failed}
            for stage in context.stages
        ]
        last = context.stages[-1]
        has_one = (last.completed, last.failed) == (1, 0)
        return {"stages": stages, "result": next(context.results(last.stage)).result if has_one else None}

    @classmethod
    def planning_problems(cls) -> list[str]:
        places = [(place, stage) for place, stage in enumerate(cls.definition().stages) if stage.over is None]
        if cls.create_tasks_for_stage is Job.create_tasks_for_stage:
            advice = "name in `over` the list of its elements, or write the method"
            return [
                f"method create_tasks_for_stage is missing: stages[{place}] is fan_out; {advice}"
                for place, stage in places
                if stage.parallelism is Parallelism.FAN_OUT
            ]
        if all(stage.parallelism is Parallelism.FAN_IN for _, stage in places):
            return ["method create_tasks_for_stage would never be called: every stage has `over` or is fan_in"]
        return []
