"""Asks a job's author for its summary, and ends the job with it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import index
from typing import SupportsIndex

from core.advancing.steps import NextStep, StepTimes
from core.authors.author_code import call_author, describe_returned, read_once
from core.basics.canonical import copied, encode_storable
from core.basics.faults import fault_point
from core.basics.strict_json import EncodedJson
from core.errors import ContractViolationError, StoreUnavailable
from core.models import JobRecord
from core.models.context import CompletedTask, JobExecutionContext, StageSummary
from core.ports import JobType
from core.running.engine_parts import EngineParts
from core.safety.safe_text import repr_of


class Finalizer:
    """One per process."""

    def __init__(self, parts: EngineParts, times: StepTimes) -> None:
        self._parts = parts
        self._times = times
        self._patience = parts.patience

    def prepare(self, step: NextStep) -> EncodedJson:
        """The summary of a job that waits for its finalizer.

        Raises:
            Exception: Whatever the author's `finalize_job` raises.
        """
        if step.summary is not None:
            return step.summary
        if step.error is not None:
            raise step.error
        stages = tuple(self._parts.results.stage_summaries(step.job.ref))
        return self.summary(step.job, stages, step.results)

    def write(self, job: JobRecord, summary: EncodedJson) -> None:
        """End the job with its summary. It is known: an outage is waited for, so that the author is not asked again."""
        fault_point("job.finalizing")
        end = partial(self._parts.state.finalize_job, job.ref, summary)
        try:
            end()
        except StoreUnavailable as error:
            self._patience.repeat(error, end)
        fault_point("job.finalized")
        self._parts.state.note_large_values(job.stage_ref, "summary", [(None, len(summary))])

    def summary(
        self, job: JobRecord, stages: tuple[StageSummary, ...], last_results: Sequence[CompletedTask] | None
    ) -> EncodedJson:
        """The author's summary of the job.

        Args:
            last_results: Those of the job's last stage, if they are in memory.
        """

        def results(stage: int) -> Iterator[CompletedTask]:
            # The database compares a number with what it gets, and finds no row for a stage that there is not.
            if type(stage) is bool or not isinstance(stage, SupportsIndex) or not 1 <= index(stage) <= job.total_stages:
                raise ContractViolationError(
                    f"results: expected the number of a stage of {job.job_type!r}, 1 to {job.total_stages}, "
                    f"found {repr_of(stage)}"
                )
            number = index(stage)
            if last_results is not None and number == job.total_stages:
                return read_once(last_results)
            return read_once(self._parts.results.stream_results(job.ref.at_stage(number)))

        self._parts.orchestration.expect_stages(job, job.total_stages)
        job_class = self._parts.catalog.get_job(job.job_type)
        context = JobExecutionContext(
            job_id=job.job_id,
            job_type=job.job_type,
            parameters=copied(job.parameters),
            stages=stages,
            results=results,
        )
        with self._times.measured(job.job_type, job.total_stages + 1):
            return call_author(_summary_of, job_class, context, self._parts.orchestration.role.most_bytes)


def _summary_of(job_class: JobType, context: JobExecutionContext, most_bytes: int) -> EncodedJson:
    returned: object = job_class.finalize_job(context)
    what = f"finalize_job of {context.job_type!r}"
    if returned is not None and not isinstance(returned, Mapping):
        raise ContractViolationError(f"{what}: expected it to return a mapping, found {describe_returned(returned)}")
    return encode_storable({} if returned is None else returned, what, most_bytes=most_bytes)
