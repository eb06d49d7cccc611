"""Claims and completions of different messages of one stage share a call, and nothing else."""

from collections import Counter
from uuid import uuid4

import pytest

from core.basics.canonical import encode_storable
from core.models import StageRef
from core.models.transition import ClaimOutcome, Completion
from core.state_manager import MOST_JOINED_CHARACTERS, MOST_JOINED_TASKS, StateManager, _Asked
from infrastructure.base import ValuesRefused

TASKS = tuple(f"s1-{index:05d}" for index in range(5))


def completion(lease_id, *task_ids):
    return Completion(lease_id, {task_id: encode_storable({"of": task_id}, "result") for task_id in task_ids})


@pytest.fixture
def job(engine):
    """The first of two stages, of five tasks; the last task is watched."""
    job_id = engine.submit()
    engine.plan(job_id, 1, len(TASKS))
    return StageRef(job_id, 1, 1)


@pytest.fixture
def joined(engine):
    return StateManager(engine.jobs, engine.tasks, engine.stages)


def together(joined, job, *completions):
    """What the callers of one joined call get."""
    return [check for check, _ in joined._complete_all(job, completions)]


def complete(joined, ref, completion):
    check, _ = joined.complete_tasks(ref, lease_id=completion.lease_id, results=completion.results)
    return check


def statuses(engine, job):
    rows = engine.query("select task_id, status from app.tasks where job_id = %s", job.job_id)
    return {row["task_id"]: row["status"] for row in rows}


def test_each_task_ends_under_the_lease_of_its_own_message(engine, job, joined):
    first, second = engine.claim(job.job_id, 1, *TASKS[:2]), engine.claim(job.job_id, 1, TASKS[2])
    checks = together(joined, job, completion(second, TASKS[2]), completion(first, *TASKS[:2]))
    assert [check.updated_ids for check in checks] == [(TASKS[2],), TASKS[:2]]
    assert not any(check.is_last_task_in_stage for check in checks)
    for task_id in TASKS[:3]:
        assert (engine.task(job.job_id, task_id)["result"]) == {"of": task_id}
    assert Counter(statuses(engine, job).values()) == {"completed": 3, "pending": 2}


def test_a_lost_lease_costs_its_neighbours_nothing(engine, job, joined):
    """Another worker has the second task by now: its result is not replaced, the first and third are written."""
    own, other = engine.claim(job.job_id, 1, TASKS[0], TASKS[2]), engine.claim(job.job_id, 1, TASKS[1])
    checks = together(joined, job, completion(own, TASKS[0]), completion(uuid4(), TASKS[1]), completion(own, TASKS[2]))
    assert [check.updated_ids for check in checks] == [(TASKS[0],), (), (TASKS[2],)]
    row = engine.task(job.job_id, TASKS[1])
    assert (row["status"], row["lease_id"], row["result"]) == ("processing", other, None)


@pytest.mark.parametrize("place", range(3))
def test_one_caller_learns_that_the_stage_ended(engine, job, joined, place):
    """The one whose lease is lost ended no task, so it is never the one that moves the job on."""
    lease = engine.claim(job.job_id, 1, *TASKS)
    asked = [completion(lease, *TASKS[:2]), completion(lease, *TASKS[2:])]
    asked.insert(place, completion(uuid4(), "s1-99999"))
    checks = together(joined, job, *asked)
    lasts = [check.is_last_task_in_stage for check in checks]
    assert sum(lasts) == 1
    assert not lasts[place]
    assert engine.job_status(job.job_id) == "queued"
    (ended,) = engine.query("select count(*) as n from app.job_events where event = 'stage_completed'")
    assert ended["n"] == 1


def test_results_that_come_after_the_job_failed_are_kept_out_for_all(engine, job, joined):
    first, second = engine.claim(job.job_id, 1, TASKS[0]), engine.claim(job.job_id, 1, TASKS[1])
    engine.execute("select app.fail_job(%s, 1, '{}')", job.job_id)
    checks = together(joined, job, completion(first, TASKS[0]), completion(second, TASKS[1]))
    assert not any(check.is_last_task_in_stage for check in checks)
    assert set(statuses(engine, job).values()) == {"cancelled"}


def test_messages_that_are_claimed_together_have_one_lease_and_their_own_tasks(engine, job, joined):
    engine.claim(job.job_id, 1, TASKS[1])
    asked = [("a", TASKS[0]), ("b", TASKS[1]), ("c", "s1-99999"), ("d", TASKS[2], TASKS[3])]
    claims = joined._claim_all(job, [_Asked(task_ids, "w") for _, *task_ids in asked])
    assert len({claim.lease_id for claim in claims}) == 1
    found = [[(row.task_id, row.outcome) for row in claim.rows] for claim in claims]
    assert found == [
        [(TASKS[0], ClaimOutcome.CLAIMED)],
        [(TASKS[1], ClaimOutcome.DUPLICATE)],
        [("s1-99999", ClaimOutcome.MISSING)],
        [(TASKS[2], ClaimOutcome.CLAIMED), (TASKS[3], ClaimOutcome.CLAIMED)],
    ]


def test_a_message_that_came_twice_runs_once(engine, job, joined, crowd):
    """In one process and at one moment, with others: whichever call it shares, a task is claimed once."""
    claims = crowd(*(lambda: joined.claim_tasks(job, [TASKS[0]], owner="w") for _ in range(8)))
    outcomes = Counter(row.outcome for claim in claims for row in claim.rows)
    assert outcomes == {ClaimOutcome.CLAIMED: 1, ClaimOutcome.DUPLICATE: 7}
    assert engine.task(job.job_id, TASKS[0])["attempt"] == 1


def test_a_value_that_is_refused_costs_its_neighbours_nothing(engine, job, joined, crowd, monkeypatch):
    lease = engine.claim(job.job_id, 1, *TASKS[:4])
    genuine = engine.stages._call

    def refuse(function, parameters):
        if TASKS[1] in parameters[-2]:
            raise ValuesRefused(function, "no such value")
        return genuine(function, parameters)

    monkeypatch.setattr(engine.stages, "_call", refuse)

    def end(task_id):
        try:
            return complete(joined, job, completion(lease, task_id)).updated_ids
        except ValuesRefused:
            return "refused"

    found = crowd(*(lambda task_id=task_id: end(task_id) for task_id in TASKS[:4]))
    assert found == [(TASKS[0],), "refused", (TASKS[2],), (TASKS[3],)]
    assert statuses(engine, job)[TASKS[1]] == "processing"


def test_large_messages_and_large_results_have_calls_of_their_own(engine, job, joined, monkeypatch):
    def never(*_):
        raise AssertionError("joined")

    monkeypatch.setattr(joined._claims, "call", never)
    monkeypatch.setattr(joined._completions, "call", never)
    many = [f"s1-9{index:04d}" for index in range(MOST_JOINED_TASKS + 1)]
    assert {row.outcome for row in joined.claim_tasks(job, many, owner="w").rows} == {ClaimOutcome.MISSING}
    lease = engine.claim(job.job_id, 1, TASKS[0])
    large = encode_storable({"text": "x" * MOST_JOINED_CHARACTERS}, "result")
    assert complete(joined, job, Completion(lease, {TASKS[0]: large})).updated_ids == (TASKS[0],)


def test_one_of_many_workers_ends_each_stage(engine, joined, crowd):
    """Sixteen threads of one process claim and complete; two processes have two of these: one last task a stage."""
    other = StateManager(engine.jobs, engine.tasks, engine.stages)
    stages = 12
    job_id = engine.submit(stages=stages)
    for stage in range(1, stages + 1):
        engine.plan(job_id, stage, 16)
        ref = StageRef(job_id, 1, stage)

        def end(index, ref=ref):
            mine = joined if index % 2 else other
            task_id = f"s{ref.stage}-{index:05d}"
            claim = mine.claim_tasks(ref, [task_id], owner="w")
            assert [row.outcome for row in claim.rows] == [ClaimOutcome.CLAIMED]
            check = complete(mine, ref, completion(claim.lease_id, task_id))
            assert check.updated_ids == (task_id,)
            return check.is_last_task_in_stage

        lasts = crowd(*(lambda index=index: end(index) for index in range(16)))
        assert sum(lasts) == 1, f"stage {stage}"
    assert engine.job_status(job_id) == "finalizing"
