"""Claims tasks of one stage, runs them and settles them; what follows their stage's end is for others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from core.drain import Drain
from core.faults import fault_point
from core.known_jobs import KnownJob
from core.leases import LeaseKeeper
from core.models import StageDefinition
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, ResultStore
from core.settlement import Settlement
from core.stage_ending import StageEnding
from core.state_manager import StateManager
from core.task_runner import Batch, ClaimedTask


class StageRunner:
    """One a process.

    Args:
        owner: The process's name in leases.
        threads: At most so many tasks of one message run side by side.
    """

    def __init__(
        self,
        catalog: JobCatalog,
        state: StateManager,
        orchestration: OrchestrationManager,
        results: ResultStore,
        keeper: LeaseKeeper,
        drain: Drain,
        *,
        owner: str,
        threads: int,
    ) -> None:
        self._catalog = catalog
        self._state = state
        self._orchestration = orchestration
        self._results = results
        self._keeper = keeper
        self._drain = drain
        self._owner = owner
        self._threads = threads

    def run_message(self, job: KnownJob, stage: StageDefinition, task_ids: Iterable[str]) -> str | None:
        """Claim, run and settle the tasks that a message names. Returns the job's status if it moved on, else None."""
        record = job.record
        lease_id = uuid4()
        rows = self._state.claim_tasks(
            record.job_id, record.run, stage.number, list(task_ids), lease_id=lease_id, owner=self._owner
        )
        claimed = [_claimed_task(row) for row in rows if row["outcome"] == "claimed"]
        early = [row for row in rows if row["outcome"] == "not_due"]
        Settlement(self._state, self._orchestration, record, stage, lease_id).send_again(early)
        moved_to = None
        if any(row["outcome"] == "expired" for row in rows):
            enforced = self._state.enforce_deadlines(record.job_id, record.run, stage.number)
            moved_to = enforced.job_status if enforced.is_last_task_in_stage else None
        return self.run_claimed(job, stage, lease_id, claimed).job_status if claimed else moved_to

    def run_claimed(
        self,
        job: KnownJob,
        stage: StageDefinition,
        lease_id: UUID,
        claimed: Sequence[ClaimedTask],
        ending: StageEnding | None = None,
    ) -> Settlement:
        """Run and settle tasks under this process's lease.

        Args:
            ending: These are all tasks of their stage, and this prepares what follows it.
        """
        settlement = Settlement(self._state, self._orchestration, job.record, stage, lease_id, ending)
        fault_point("task.claimed")
        batch = Batch(
            job.record,
            stage,
            lease_id,
            claimed,
            catalog=self._catalog,
            results=self._results,
            keeper=self._keeper,
            threads=self._threads,
            most_bytes=self._orchestration.role.most_bytes,
        )
        with batch, self._drain.holding(batch, settlement) as may_run:
            if not may_run:
                settlement.release(batch.give_up_waiting())
            for group in batch.outcomes():
                fault_point("task.ran")
                settlement.settle(group)
                fault_point("task.settled")
                if batch.is_to_be_cut:
                    settlement.release(batch.give_up_waiting())
        return settlement


def _claimed_task(row: Mapping[str, Any]) -> ClaimedTask:
    return ClaimedTask(
        task_id=row["task_id"],
        task_type=row["task_type"],
        task_index=row["task_index"],
        name=row["name"],
        parameters=row["parameters"],
        attempt=row["attempt"],
        tries=row["attempt"] - row["interruptions"],
    )
