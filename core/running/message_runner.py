"""Claims tasks of one stage, runs them and settles them; what follows their stage's end is for others."""

from collections.abc import Iterable, Sequence
from uuid import UUID, uuid4

from core.advancing.inline_stage import StageEnding
from core.basics.faults import fault_point
from core.errors import UnknownWork
from core.models import JobRecord, Lease, StageDefinition, TaskQueueMessage
from core.models.transition import ClaimedRow, ClaimOutcome
from core.operating.unknown_work import Postponer, UnknownTaskType
from core.orchestration_manager import OrchestrationManager
from core.ports import JobCatalog, ResultStore
from core.running.drain import Drain
from core.running.job_cache import CachedJob
from core.running.leases import LeaseKeeper
from core.running.outcome_writer import Settlement
from core.running.task_batch import Batch, ClaimedTask
from core.state_manager import StateManager

# What this message, or a later one, leads to a run of the task.
_STILL_TO_RUN = frozenset({ClaimOutcome.CLAIMED, ClaimOutcome.NOT_DUE})


class MessageRunner:
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
        postponer: Postponer,
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
        self._postponer = postponer
        self._owner = owner
        self._threads = threads

    def run_message(
        self,
        job: CachedJob,
        stage: StageDefinition,
        task_ids: Iterable[str],
        *,
        suspects: list[str] | None = None,
        is_alone: bool = False,
    ) -> str | None:
        """Claim, run and settle the tasks that a message names. Returns the job's status if it moved on, else None.

        Args:
            suspects: Takes those that must run alone: given back unbegun, and not announced. None: run them too.
            is_alone: Nothing else runs in this process: if it dies, nothing else can have been the reason. Each task
                that was claimed is noted so; another process may have been quicker, and then nothing runs here.
        """
        record = job.record
        ref = record.ref.at_stage(stage.number)
        lease_id = uuid4()
        rows = self._state.claim_tasks(ref, list(task_ids), lease=Lease(lease_id, self._owner))
        strange = [row for row in rows if self._is_strange(row)]
        moved_to = self._give_back(record, stage.number, strange, lease_id) if strange else None
        claimed_rows = [row for row in rows if row.outcome is ClaimOutcome.CLAIMED and row not in strange]
        if suspects is not None:
            suspects += self._find_suspects(record, stage, claimed_rows)
        if suspects:
            self._state.release_tasks(ref, lease_id=lease_id, task_ids=suspects, started=False)
        claimed = [_claimed_task(row) for row in claimed_rows if row.task_id not in (suspects or ())]
        early = [row for row in rows if row.outcome is ClaimOutcome.NOT_DUE and row not in strange]
        Settlement(self._state, self._orchestration, record, stage, lease_id).send_again(early)
        if any(row.outcome is ClaimOutcome.EXPIRED for row in rows):
            enforced = self._state.enforce_deadlines(ref)
            moved_to = enforced.job_status if enforced.is_last_task_in_stage else None
        for task in claimed if is_alone else ():
            self._state.note_alone(ref, task.task_id)
        return self.run_claimed(job, stage, lease_id, claimed).job_status if claimed else moved_to

    def _find_suspects(self, job: JobRecord, stage: StageDefinition, rows: Sequence[ClaimedRow]) -> list[str]:
        """Tasks that may be what ends their processes. Few were interrupted so often; the others cost no look."""
        most = stage.max_interruptions
        often = [row.task_id for row in rows if row.interruptions * 2 >= max(most, 1)]
        return self._state.find_suspects(job.ref, often, most) if often else []

    def give_back(self, message: TaskQueueMessage, unknown: UnknownWork) -> None:
        """Leave a message's tasks to an app that knows them."""
        lease_id = uuid4()
        rows = self._state.claim_tasks(message.stage_ref, message.task_ids, lease=Lease(lease_id, self._owner))
        waiting = [row for row in rows if row.outcome in _STILL_TO_RUN]
        if waiting:
            self._postponer.postpone_tasks(message, message.stage, waiting, unknown, lease_id)

    def _is_strange(self, row: ClaimedRow) -> bool:
        return row.outcome in _STILL_TO_RUN and self._catalog.find_handler(row.task_type) is None

    def _give_back(self, job: JobRecord, stage: int, rows: Sequence[ClaimedRow], lease_id: UUID) -> str | None:
        """Leave tasks that this app has no handler for to another. The job's status if it moved on by that."""
        moved_to = None
        for task_type in sorted({row.task_type for row in rows}):
            same = [row for row in rows if row.task_type == task_type]
            moved_to = (
                self._postponer.postpone_tasks(job, stage, same, UnknownTaskType(task_type), lease_id) or moved_to
            )
        return moved_to

    def run_claimed(
        self,
        job: CachedJob,
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


def _claimed_task(row: ClaimedRow) -> ClaimedTask:
    return ClaimedTask(
        task_id=row.task_id,
        task_type=row.task_type,
        task_index=row.task_index,
        name=row.name,
        parameters=row.parameters,
        attempt=row.attempt,
        tries=row.attempt - row.interruptions,
    )
