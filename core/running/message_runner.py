"""Runs the tasks of one message: claims them, runs them and writes their outcomes. Advancing the job is for others."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from core.announcing.limit_turns import LimitTurns
from core.announcing.windows import StageWindows
from core.basics.faults import fault_point
from core.basics.outage import outage
from core.errors import StoreUnavailable, UnknownWork
from core.models import JobRecord, StageDefinition, StageRef, TaskQueueMessage
from core.models.definition import SLICE_SECONDS, WHOLE_SECONDS
from core.models.transition import ClaimedRow, ClaimOutcome
from core.operating.unknown_work import Postponer, UnknownTaskType
from core.running.attempts import Attempts
from core.running.engine_parts import EngineParts
from core.running.job_cache import CachedJob
from core.running.outcome_writer import OutcomeWriter
from core.running.patience import PatientResults
from core.running.task_batch import TaskBatch
from core.running.task_slots import Slot, TaskSlots
from core.running.time_slice import YOUNG_SECONDS, YOUNG_TASKS, TimeSlice, YoungStages

# A task that this message, or a later one, may still run.
_STILL_TO_RUN = frozenset({ClaimOutcome.CLAIMED, ClaimOutcome.NOT_DUE})
# A message that finds no slot within this time is left to others: another process may have one.
SLOT_SECONDS = 5.0
# Messages with work for this long are claimed before they have a slot, which would be idle for the time of the claim.
# One that lasts longer loses little by it; one with less costs no slot, but processor time.
AHEAD_SECONDS = (SLICE_SECONDS / 2, WHOLE_SECONDS)
# There is one such message for this number of slots.
SLOTS_PER_AHEAD = 4


@dataclass
class _Turn:
    """A message may be claimed: it has the slot of its first task, or the right to wait for that with a claim.

    Neither: it is left to others. `is_filled`: tasks of its stage were announced as it began.
    """

    slot: Slot | None
    ahead: Slot | None = None
    is_filled: bool = False


class MessageRunner:
    """One per process."""

    def __init__(self, parts: EngineParts, postponer: Postponer, turns: LimitTurns, windows: StageWindows) -> None:
        self._parts = parts
        self._catalog = parts.catalog
        self._state = parts.state
        self._owner = parts.owner
        self._postponer = postponer
        self._turns = turns
        self._windows = windows
        self._young = YoungStages(parts.clock)
        self._patience = parts.patience
        self._results = PatientResults(parts.results, self._patience)
        self._ahead = TaskSlots(max(1, parts.slots.count // SLOTS_PER_AHEAD))

    def run_message(
        self,
        job: CachedJob,
        stage: StageDefinition,
        task_ids: Sequence[str],
        *,
        suspects: list[str] | None = None,
        is_alone: bool = False,
        takes_next: bool | None = None,
    ) -> str | None:
        """Claim and run a message's tasks, and record their ends. Returns the job's status if it advanced, else None.

        It waits for a slot first, so that an attempt's time does not pass before it begins; a message that is known to
        be short is claimed when its slot is about to become free.

        Args:
            suspects: Takes those that must run alone: released unbegun, and not announced. None: run them too.
            is_alone: Nothing else runs in this process: if it dies, nothing else can have been the reason. Each task
                that was claimed is noted so; another process may have been quicker, and then nothing runs here.
            takes_next: The message's mark; None: its stage has no window. With one, a message of one task goes on with
                the stage's next tasks, one after the other, as long as its time lasts.
        """
        ref = StageRef(job.record.job_id, job.record.run, stage.number)
        has_window = takes_next is not None and not stage.limits
        is_young = self._young.note(ref, len(task_ids))
        # Its tasks may last longest. Under `max_parallel`, ends alone make room; a rate may have room now.
        announces_first = bool(stage.limits or (takes_next and stage.max_parallel is None))
        # A place under a limit is not to wait for a slot.
        seconds = 0.0 if is_young or stage.limits else self._windows.seconds_of(ref, len(task_ids))
        with self._turn(seconds, is_ahead=is_young) as turn:
            if has_window:
                task_ids = self._windows.return_what_lasts(ref, task_ids)
            claim = self._state.claim_tasks(ref, task_ids, owner=self._owner)
            writer = OutcomeWriter(
                self._state,
                self._parts.orchestration,
                job.record,
                stage,
                ref,
                claim.lease_id,
                self._announce_next,
                self._patience,
                share_retry=self._windows.share_retry,
            )
            claimed: Sequence[ClaimedRow] = claim.rows
            unknown = {name for name in {row.task_type for row in claimed} if self._catalog.find_handler(name) is None}
            if unknown or any([row.outcome is not ClaimOutcome.CLAIMED or row.interruptions for row in claimed]):  # noqa: C419 - quicker
                claimed = self._set_aside(writer, claimed, unknown, suspects)
            if claimed and turn.slot is None and turn.ahead is None:
                # In one message, as they came.
                writer.release(claimed, tasks_per_message=len(claimed))
            elif claimed:
                for task in claimed if is_alone else ():
                    self._state.note_alone(ref, task.task_id)
                goes_on = has_window and len(task_ids) == 1 and stage.goes_on and not is_alone
                time_slice = TimeSlice(self._parts, ref, self._young) if goes_on else None
                is_sized = takes_next is not None and stage.tasks_per_message != 1
                begin = partial(self._begin, turn, ref, stage, announces_first=announces_first)
                self.run_claimed(
                    writer,
                    claimed,
                    turn.slot,
                    time_slice,
                    begin if announces_first or turn.ahead is not None else None,
                    is_ahead=is_young,
                    is_sized=is_sized,
                )
                while (following := writer.next_claim) is not None:
                    writer = replace(writer, lease_id=following.lease_id)
                    self.run_claimed(
                        writer, following.rows, time_slice=time_slice, is_ahead=is_young, is_sized=is_sized
                    )
        if writer.job_status is not None:
            self._young.forget(ref)
        elif has_window:
            self._windows.after_message(ref, is_due=bool(takes_next) and not turn.is_filled)
        return writer.job_status

    @contextmanager
    def _turn(self, seconds: float, *, is_ahead: bool) -> Iterator[_Turn]:
        """Wait until a message may be claimed.

        Args:
            seconds: How much work it has.
            is_ahead: In line for slots it goes before those that are not.
        """
        slots, refuse = self._parts.slots, self._parts.drain.refuse
        least, most = AHEAD_SECONDS
        turn = _Turn(slots.take_spare())
        if turn.slot is None and least <= seconds <= most:
            turn.ahead = self._ahead.take(SLOT_SECONDS, refuse)
        elif turn.slot is None:
            turn.slot = slots.take(SLOT_SECONDS, refuse, is_ahead=is_ahead)
        try:
            yield turn
        finally:
            if turn.slot is not None:
                slots.release(turn.slot)
            if turn.ahead is not None:
                self._ahead.release(turn.ahead)

    def _begin(self, turn: _Turn, ref: StageRef, stage: StageDefinition, *, announces_first: bool) -> None:
        """A message's first task has a slot: the next message may be claimed, and the stage's next tasks announced."""
        if turn.ahead is not None:
            self._ahead.release(turn.ahead)
        turn.is_filled = announces_first and self._announce_next(ref, stage)

    def _set_aside(
        self, writer: OutcomeWriter, rows: Sequence[ClaimedRow], unknown: Collection[str], suspects: list[str] | None
    ) -> list[ClaimedRow]:
        """Write down what becomes of the tasks that are not to run now; those that are.

        Args:
            unknown: Task types that this app has no handler for.
            suspects: As for `run_message`.
        """
        strange = [row for row in rows if row.task_type in unknown and row.outcome in _STILL_TO_RUN]
        moved_to = self._postpone(writer.job, writer.stage.number, strange, writer.lease_id) if strange else None
        claimed = [row for row in rows if row.outcome is ClaimOutcome.CLAIMED and row not in strange]
        if suspects is not None:
            suspects += self._find_suspects(writer.job, writer.stage, claimed)
        if suspects:
            self._state.release_tasks(writer.ref, lease_id=writer.lease_id, task_ids=suspects)
        writer.send_again([row for row in rows if row.outcome is ClaimOutcome.NOT_DUE and row not in strange])
        if any(row.outcome is ClaimOutcome.EXPIRED for row in rows):
            enforced = self._state.enforce_deadlines(writer.ref)
            moved_to = enforced.job_status if enforced.is_last_task_in_stage else None
        running = [row for row in claimed if row.task_id not in (suspects or ())]
        if not running:
            writer.job_status = moved_to
        return running

    def _find_suspects(self, job: JobRecord, stage: StageDefinition, rows: Sequence[ClaimedRow]) -> list[str]:
        """Tasks that may be what ends their processes. Few were interrupted so often; the others cost no look."""
        most = stage.max_interruptions
        many = max(most, 1) / 2
        often = [row.task_id for row in rows if row.interruptions >= many]
        return self._state.find_suspects(job.ref, often, most) if often else []

    def postpone_message(self, message: TaskQueueMessage, unknown: UnknownWork) -> None:
        """Leave a message's tasks to an app that knows them."""
        claim = self._state.claim_tasks(message.stage_ref, message.task_ids, owner=self._owner)
        waiting = [row for row in claim.rows if row.outcome in _STILL_TO_RUN]
        if waiting:
            self._postponer.postpone_tasks(message, message.stage, waiting, unknown, claim.lease_id)

    def _postpone(self, job: JobRecord, stage: int, rows: Sequence[ClaimedRow], lease_id: UUID) -> str | None:
        """Leave tasks that this app has no handler for to another. The job's status if it advanced by that."""
        moved_to = None
        for task_type in sorted({row.task_type for row in rows}):
            same = [row for row in rows if row.task_type == task_type]
            moved_to = (
                self._postponer.postpone_tasks(job, stage, same, UnknownTaskType(task_type), lease_id) or moved_to
            )
        return moved_to

    def run_claimed(
        self,
        writer: OutcomeWriter,
        claimed: Sequence[ClaimedRow],
        slot: Slot | None = None,
        time_slice: TimeSlice | None = None,
        begin: Callable[[], object] | None = None,
        *,
        is_ahead: bool,
        is_sized: bool = False,
    ) -> None:
        """Run tasks under this process's lease, and let `writer` write their outcomes.

        Args:
            slot: For the first of them; None: they wait for one.
            time_slice: In which a task that completes claims the next one, for the writer's `next_claim`.
            begin: Called when the first of them has a slot, beside it where it runs in another thread.
            is_ahead: In line for slots they go before those that are not.
            is_sized: The size of the stage's messages goes by how long its tasks last.
        """
        fault_point("task.claimed")
        parts = self._parts
        attempts = Attempts(
            writer.job,
            writer.stage,
            writer.lease_id,
            claimed,
            catalog=parts.catalog,
            results=self._results,
            keeper=parts.keeper,
            most_bytes=parts.orchestration.role.most_bytes,
        )
        slot = slot or parts.slots.take_spare()
        try:
            with attempts, parts.drain.holding(attempts, writer) as may_run:
                if not may_run:
                    writer.release(attempts.take_back())
                elif slot is None or len(claimed) > 1 or attempts.has_process:
                    self._run_batch(writer, attempts, slot, time_slice, begin, is_ahead=is_ahead)
                else:
                    if begin is not None:
                        begin()
                    outcome = attempts.run_next()
                    parts.slots.release(slot)
                    if outcome is not None:
                        ended = [outcome]
                        if outcome.duration_seconds > YOUNG_SECONDS / YOUNG_TASKS:  # else their number ends youth
                            self._young.note_seconds(writer.ref, outcome.duration_seconds)
                        if is_sized:
                            self._windows.note_times(writer.ref, 1, outcome.duration_seconds)
                        writer.write(ended, time_slice.next_after(ended) if time_slice is not None else None)
        finally:
            if slot is not None:
                parts.slots.release(slot)

    def _announce_next(self, ref: StageRef, stage: StageDefinition) -> bool:
        """Announce what has room while tasks run; whether a window was filled. They run in an outage, too."""
        try:
            if stage.limits:
                self._turns.serve(stage.limit_names)
                return False
            return self._windows.fill(ref) > 0
        except StoreUnavailable as error:
            outage.note(str(error))
            return False

    def _run_batch(
        self,
        writer: OutcomeWriter,
        attempts: Attempts,
        slot: Slot | None,
        time_slice: TimeSlice | None,
        begin: Callable[[], object] | None,
        *,
        is_ahead: bool,
    ) -> None:
        """Run tasks side by side, and write the outcomes that come at the same time in one call."""
        slots = self._parts.slots
        batch = TaskBatch(attempts, slots, slot, begin, is_ahead=is_ahead)
        for group in batch.outcomes():
            if group:
                self._young.note_seconds(writer.ref, sum(each.duration_seconds for each in group))
                writer.write(group, time_slice.next_after(group) if time_slice is not None else None)
            if batch.is_to_be_split:
                # Known before the next ones are announced, in messages of another size.
                seconds = self._note_times(writer.ref, batch)
                if batch.seconds_left > YOUNG_SECONDS:
                    self._young.note_much(writer.ref)
                writer.release(batch.give_up_waiting(), tasks_per_message=slots.count, mean_seconds=seconds)
        self._note_times(writer.ref, batch)

    def _note_times(self, ref: StageRef, batch: TaskBatch) -> float | None:
        """What is known of the stage's tasks then; None if none of these has begun."""
        return self._windows.note_times(ref, batch.count, batch.mean_seconds) if batch.has_begun else None
