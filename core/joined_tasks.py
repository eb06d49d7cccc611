"""Claims and completions of different messages of one stage, each one call for all that wait for it at the same time.

Many messages of one task make many transactions, each of which waits until it is on disk. Here those that meet in one
process share one. Nothing else is shared: each task is fenced by its own row's lease, and an error of one message's
values is not the others'. A completion may claim the stage's next task in the same call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from uuid import uuid4

from core.basics.joined_calls import JoinedCalls
from core.errors import StoreUnavailable
from core.models import Lease, StageRef
from core.models.transition import Claim, Completion, NextTasks, StageCheck
from core.ports import StageStore, TaskStore

# Messages of more tasks, or of larger results, have work enough for a call of their own.
MOST_JOINED_TASKS = 10
MOST_JOINED_CHARACTERS = 20_000
MOST_TASKS_PER_CALL = 100


@dataclass(frozen=True, slots=True)
class _Asked:
    task_ids: Sequence[str]
    owner: str


@dataclass(frozen=True, slots=True)
class NextTask:
    """Asks for the next task in line of a stage, of this type, for the process of this name."""

    task_type: str
    owner: str


@dataclass(frozen=True, slots=True)
class _Ended:
    """`wanted`: what its process wants to go on with."""

    completion: Completion
    wanted: NextTask | None


_Answer = tuple[StageCheck, Claim | None]


class JoinedTasks:
    """One per process."""

    def __init__(self, tasks: TaskStore, stages: StageStore) -> None:
        self._tasks = tasks
        self._stages = stages
        self._claims: JoinedCalls[StageRef, _Asked, Claim] = JoinedCalls(
            self._claim_all, names=lambda asked: asked.task_ids, most=MOST_TASKS_PER_CALL, for_all=StoreUnavailable
        )
        self._completions: JoinedCalls[StageRef, _Ended, _Answer] = JoinedCalls(
            self._complete_all,
            names=lambda one: one.completion.results,
            most=MOST_TASKS_PER_CALL,
            for_all=StoreUnavailable,
        )

    def claim(self, ref: StageRef, task_ids: Sequence[str], owner: str) -> Claim:
        """Lease a message's tasks. Messages that are claimed together have one lease, each for its own tasks."""
        asked = _Asked(task_ids, owner)
        if len(task_ids) > MOST_JOINED_TASKS:
            return self._claim_all(ref, [asked])[0]
        return self._claims.call(ref, asked)

    def complete(self, ref: StageRef, completion: Completion, wanted: NextTask | None = None) -> _Answer:
        """End a message's tasks as completed. If the call ended the stage, one of its callers learns it.

        Returns:
            What the call did, and the claim of the task that is wanted; None if nothing waits, or none is wanted.
        """
        results = completion.results
        if len(results) > MOST_JOINED_TASKS or sum(map(len, results.values())) > MOST_JOINED_CHARACTERS:
            return self._complete_all(ref, [_Ended(completion, wanted)])[0]
        return self._completions.call(ref, _Ended(completion, wanted))

    def _claim_all(self, ref: StageRef, asked: Sequence[_Asked]) -> list[Claim]:
        lease = Lease(uuid4(), asked[0].owner)
        ids = [task_id for one in asked for task_id in one.task_ids]
        rows = self._tasks.claim_tasks(ref, ids, lease=lease)
        if len(asked) == 1:
            return [Claim(lease.lease_id, tuple(rows))]
        by_id = {row.task_id: row for row in rows}
        return [
            Claim(lease.lease_id, tuple(by_id[task_id] for task_id in dict.fromkeys(one.task_ids))) for one in asked
        ]

    def _complete_all(self, ref: StageRef, ended: Sequence[_Ended]) -> list[_Answer]:
        completions = [one.completion for one in ended]
        wanted = [one.wanted for one in ended if one.wanted is not None]
        if wanted:
            return self._complete_and_claim(ref, ended, wanted)
        if len(completions) == 1:
            (one,) = completions
            check = self._stages.complete_task_and_check_stage(ref, lease_id=one.lease_id, results=one.results)
            return [(check, None)]
        check = self._stages.complete_tasks_and_check_stage(ref, completions)
        return [(part, None) for part in _split(check, completions)]

    def _complete_and_claim(self, ref: StageRef, ended: Sequence[_Ended], wanted: Sequence[NextTask]) -> list[_Answer]:
        """Whose task it becomes is decided by the order in which they came; those for whom none is left have none."""
        completions = [one.completion for one in ended]
        lease = Lease(uuid4(), wanted[0].owner)
        types = {one.task_type for one in wanted}
        check, rows = self._stages.complete_tasks_and_take_next(ref, completions, NextTasks(types, len(wanted), lease))
        left = iter(rows)
        claims = [Claim(lease.lease_id, tuple(islice(left, 1 if one.wanted else 0))) for one in ended]
        checks = [check] if len(ended) == 1 else _split(check, completions)
        return [(part, claim if claim.rows else None) for part, claim in zip(checks, claims, strict=True)]


def _split(check: StageCheck, completions: Sequence[Completion]) -> list[StageCheck]:
    """What a call means for each of its callers. If it ended the stage, the first whose task it ended moves the job."""
    ended = set(check.updated_ids)
    own = [tuple(task_id for task_id in one.results if task_id in ended) for one in completions]
    checks = [replace(check, updated_ids=ids, is_last_task_in_stage=False) for ids in own]
    if check.is_last_task_in_stage:
        place = next(place for place, ids in enumerate(own) if ids)
        checks[place] = replace(checks[place], is_last_task_in_stage=True)
    return checks
