"""Dead messages on real PostgreSQL: kept once, their rows woken, sent again; failures by what went wrong."""

import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.errors import DeliveryError
from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from core.models.dead_letter import DeadLetter, Selection
from core.operating.dead_letters import DeadLetters, read_reference
from infrastructure.dead_letters import DeadLetterRepository
from infrastructure.failures import FailureQueries
from infrastructure.queries import InvalidCursor

_numbers = itertools.count(1)
AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@pytest.fixture
def letters(engine):
    return DeadLetterRepository(engine.pool)


@pytest.fixture
def dead(rig, letters):
    return DeadLetters(letters, rig.state, rig.queues, ["jobs", "tasks"])


def letter(queue, body, *, message_id="m-1", reason="MaxDeliveryCountExceeded", description="after 10 attempts"):
    body = body if isinstance(body, bytes) else body.model_dump_json(exclude_none=True).encode()
    return DeadLetter(
        queue=queue,
        message_id=message_id,
        sequence_number=2**40 + next(_numbers),
        enqueued_at=AT,
        reference=read_reference(queue, body, {}),
        reason=reason,
        description=description,
        delivery_count=11,
        correlation_id=None,
        body=body.decode(errors="replace"),
        body_size=len(body),
    )


def kill(rig):
    """All messages die; returns them as letters."""
    found = [letter(entry.queue, entry.body) for entry in rig.queues._entries]
    rig.queues.clear()
    return found


def pass_hold(rig):
    """As if 31 s had passed, for all that the janitor looks at."""
    rig.engine.execute(
        "update app.tasks set due_at = due_at - interval '31 s', created_at = created_at - interval '31 s'"
    )
    rig.engine.execute(
        "update app.jobs set due_at = due_at - interval '31 s', created_at = created_at - interval '31 s',"
        " updated_at = created_at - interval '31 s'"
    )


def planned(rig, **parameters):
    """A job whose stage 2 lies on its queue."""
    job_id = rig.submit(**parameters)
    while rig.job(job_id).stage == 1:
        assert rig.queues.deliver(rig.machine)
    while rig.job(job_id).status == "queued":
        assert rig.queues.deliver(rig.machine)
    return job_id


def test_dead_task_message_wakes_its_rows_and_the_job_ends(rig, dead, letters):
    """The broker gave all messages of a stage up. No human does anything; the janitor announces the rows again."""
    job_id = planned(rig, n=10)
    found = kill(rig)
    assert [each.reference.kind for each in found] == ["task", "task"]

    recorded = [dead.record(each) for each in found]

    assert [(each.known, each.job_found, each.released) for each in recorded] == [(False, True, 7), (False, True, 3)]
    assert {task["status"] for task in rig.tasks(job_id, 2)} == {"pending"}
    assert rig.janitor.sweep().repairs == 0, "the rows are held first"
    pass_hold(rig)
    assert rig.janitor.sweep().announced_tasks == 10
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    events = rig.engine.query("select * from app.job_events where event = 'message_dead_lettered' order by event_id")
    assert [(event["job_id"], event["stage"], event["detail"]["released"]) for event in events] == [
        (job_id, 2, 7),
        (job_id, 2, 3),
    ]
    assert events[0]["detail"]["reason"] == "MaxDeliveryCountExceeded"


def test_dead_job_message_wakes_its_job(rig, dead):
    job_id = rig.submit(n=2)
    (found,) = kill(rig)

    assert dead.record(found).released == 1

    assert rig.janitor.sweep().repairs == 0
    pass_hold(rig)
    assert rig.janitor.sweep().announced_jobs == 1
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_message_delivered_twice_is_kept_once(rig, dead, letters):
    """The function wrote the row and died before the message left its queue, while another took it too."""
    job_id = planned(rig, n=3)
    (found,) = kill(rig)
    barrier = threading.Barrier(4)
    outcomes = []

    def record():
        barrier.wait()
        outcomes.append(dead.record(found).known)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [False, True, True, True]
    assert len(letters.list_dead_letters().items) == 1
    assert len(rig.engine.query("select 1 from app.job_events where event = 'message_dead_lettered'")) == 1
    assert rig.job(job_id).status == "processing"


def test_same_number_after_the_broker_began_again_is_another_message(dead, letters):
    first = letter("jobs", b"x")
    dead.record(first)
    dead.record(replace(first, enqueued_at=datetime(2026, 1, 3, tzinfo=UTC)))
    assert len(letters.list_dead_letters().items) == 2


def test_hold_grows_with_each_death_of_the_same_work(rig, dead):
    planned(rig, n=3)
    (found,) = kill(rig)
    holds = [dead.record(replace(found, sequence_number=number)).hold_seconds for number in range(9)]
    assert holds == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_messages_of_one_stage_that_expire_together_are_held_alike(rig, dead):
    planned(rig, n=30)
    found = kill(rig)
    assert len(found) == 5
    assert {dead.record(each).hold_seconds for each in found} == {30}


def test_rows_in_hand_or_ended_or_of_another_stage_are_left_alone(rig, dead, engine):
    job_id = planned(rig, n=3)
    (found,) = kill(rig)
    lease_id = engine.claim(job_id, 2, "s2-n0")
    engine.execute("update app.tasks set status = 'cancelled', finished_at = now() where task_id = 's2-n1'")

    assert dead.record(found).released == 1

    assert {task["task_id"]: task["status"] for task in rig.tasks(job_id, 2)} == {
        "s2-n0": "processing",
        "s2-n1": "cancelled",
        "s2-n2": "pending",
    }
    assert engine.task(job_id, "s2-n0")["lease_id"] == lease_id
    assert dead.record(letter("tasks", TaskQueueMessage(job_id=job_id, job_type="shapes", run=9, stage=2,
        task_ids=("s2-n2",)))).released == 0  # fmt: skip


def test_dead_retry_is_announced_again_when_it_is_due(rig, dead, engine):
    def fail(context):
        raise OSError("busy")

    job_id = planned(rig, n=1)
    rig.behave.before["s2-n0"] = fail
    assert rig.queues.deliver(rig.machine)
    assert engine.task(job_id, "s2-n0")["status"] == "pending_retry"
    (found,) = kill(rig)

    assert dead.record(found).released == 1

    rig.behave.before.clear()
    pass_hold(rig)
    assert rig.janitor.sweep().announced_tasks == 1
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


@pytest.mark.parametrize("body", [b"\xff\x00\xfe", b"not json", b'{"job_id": "' + b"ab" * 32 + b'"}'])
def test_message_that_names_nothing_is_kept_all_the_same(dead, letters, body):
    recorded = dead.record(letter("tasks", body.replace(b"\x00", b"")))

    assert (recorded.known, recorded.job_found, recorded.released) == (False, False, 0)
    (kept,) = letters.list_dead_letters().items
    assert kept.kind == "unreadable"
    assert kept.body_size == len(body.replace(b"\x00", b""))
    (item,) = dead.redrive(Selection(ids=(kept.dead_letter_id,))).items
    assert item.outcome == "unreadable"
    assert letters.list_dead_letters().items, "it stays until somebody deals with it"


@pytest.mark.parametrize("instant", ["0001-12-31 10:00+00 BC", "10000-01-01 00:00+00", "infinity"])
def test_row_with_a_time_beyond_all_years_is_listed_and_sent_again(rig, dead, letters, instant):
    job_id = planned(rig, n=1)
    (found,) = kill(rig)
    dead.record(found)
    rig.engine.execute("update app.dead_letters set enqueued_at = %s::timestamptz", instant)

    assert [found.job_id for found in letters.list_dead_letters().items] == [job_id]
    assert [item.outcome for item in dead.redrive(Selection(job_id=job_id)).items] == ["sent"]


def test_redriven_task_message_runs_its_tasks(rig, dead, letters):
    job_id = planned(rig, n=3)
    (found,) = kill(rig)
    dead.record(found)

    dry = dead.redrive(Selection(job_id=job_id), dry_run=True)
    assert [item.outcome for item in dry.items] == ["to_be_sent"]
    assert rig.queues.clear() == 0
    report = dead.redrive(Selection(job_id=job_id), actor="ada")

    assert [(item.outcome, report.remaining) for item in report.items] == [("sent", 0)]
    assert {task["status"] for task in rig.tasks(job_id, 2)} == {"queued"}
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    assert letters.list_dead_letters().items == ()
    (kept,) = letters.list_dead_letters(resolved=True).items
    assert kept.resolution == "redriven"
    assert [item.outcome for item in dead.redrive(Selection(ids=(kept.dead_letter_id,))).items] == ["resolved"]
    assert dead.redrive(Selection(job_id=job_id)).items == ()
    (event,) = rig.engine.query("select detail from app.job_events where event = 'dead_letter_redriven'")
    assert event["detail"]["actor"] == "ada"


def test_dead_submission_is_sent_again(rig, dead):
    """A producer's message holds the only copy of its parameters."""
    rig.queues.send_messages("jobs", [JobQueueMessage(job_type="shapes", parameters={"n": 2}, correlation_id="c-1")])
    (found,) = kill(rig)
    dead.record(found)

    assert [item.outcome for item in dead.redrive(Selection(queue="jobs")).items] == ["sent"]

    rig.queues.run(rig.machine)
    assert rig.engine.query("select status, correlation_id from app.jobs") == [
        {"status": "completed", "correlation_id": "c-1"}
    ]


def test_redriven_stage_signal_moves_the_job_on(rig, dead):
    job_id = rig.submit(n=2)
    rig.queues.clear()
    dead.record(letter("jobs", StageCompleteMessage(job_id=job_id, job_type="shapes", completed_stage=1)))

    assert [item.outcome for item in dead.redrive(Selection(queue="jobs")).items] == ["sent"]
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"


def test_what_nothing_waits_for_is_obsolete(rig, dead, letters):
    job_id = planned(rig, n=3)
    entries = [(entry.queue, entry.body) for entry in rig.queues._entries]
    rig.queues.run(rig.machine)
    for queue, body in entries:
        dead.record(letter(queue, body))
    dead.record(letter("jobs", JobQueueMessage(job_id=job_id, job_type="shapes")))

    report = dead.redrive(Selection(job_id=job_id))

    assert {item.outcome for item in report.items} == {"obsolete"}
    assert rig.queues.clear() == 0
    assert {each.resolution for each in letters.list_dead_letters(resolved=True).items} == {"obsolete"}


def test_queue_that_takes_nothing_leaves_the_letter_open(rig, letters):
    class Refusing:
        def send_messages(self, queue, messages):
            raise DeliveryError(queue, "down")

    dead = DeadLetters(letters, rig.state, Refusing(), ["jobs"])
    rig.submit(n=1)
    (found,) = kill(rig)
    dead.record(found)
    dead.record(letter("elsewhere", b'{"job_type": "t", "parameters": {}}'))

    report = dead.redrive(Selection(fingerprint=letters.list_dead_letters().items[0].fingerprint))

    assert [(item.outcome, item.detail) for item in report.items] == [
        ("not_sent", "queue 'jobs': down"),
        ("not_sent", "this app has no queue 'elsewhere' in its settings"),
    ]
    assert len(letters.list_dead_letters().items) == 2


def test_body_that_was_cut_is_not_sent(dead, letters):
    cut = letter("jobs", b'{"job_type": "shapes", "parameters": {}}')
    dead.record(replace(cut, body_size=10**6))
    assert [item.outcome for item in dead.redrive(Selection(queue="jobs")).items] == ["incomplete"]


def test_redrive_says_how_many_are_left(dead):
    for _ in range(5):
        dead.record(letter("jobs", b'{"job_type": "shapes", "parameters": {}}'))
    report = dead.redrive(Selection(queue="jobs"), limit=2)
    assert (len(report.items), report.remaining) == (2, 3)


def test_letters_are_listed_and_grouped(dead, letters):
    for number in range(5):
        dead.record(letter("jobs", b"x", description=f"after {number} attempts"))
    dead.record(letter("tasks", b"y", reason="TTLExpiredException", description=None))

    first = letters.list_dead_letters(queue="jobs", limit=2)
    rest = letters.list_dead_letters(queue="jobs", limit=10, cursor=first.next_cursor)
    ids = [each.dead_letter_id for each in (*first.items, *rest.items)]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), rest.next_cursor) == (5, None)
    with pytest.raises(InvalidCursor):
        letters.list_dead_letters(cursor="x")
    with pytest.raises(ValueError, match="limit"):
        letters.list_dead_letters(limit=0)
    large, small = letters.group_dead_letters()
    assert (large.count, large.reason, large.queues, large.job_count) == (5, "MaxDeliveryCountExceeded", ("jobs",), 0)
    assert large.examples == tuple(ids[:3])
    assert (small.count, small.reason, small.description) == (1, "TTLExpiredException", None)
    detail = letters.find_dead_letter(ids[0])
    assert (detail.body, detail.job_id, detail.sequence_number > 2**32) == ("x", None, True)
    assert letters.find_dead_letter(10**12) is None


ALIKE = [
    ("cannot read /data/a/tile_1.tif at row 17", "cannot read /mnt/b/tile_22.tif at row 4"),
    ("no such file: 'rasters/a b.tif'", "no such file: 'other/c.tif'"),
    ("no such file: 'depth.tif'", "no such file: 'flood.tiff'"),
    ("lease 6f1f0e2e-9b1b-4c55-8d1e-3f6f3d2f9a01 is lost", "lease 00000000-9b1b-4c55-8d1e-3f6f3d2f9a02 is lost"),
    ("at 0x7f64ab5b5750: code 5", "at 0x7f64ab5b0000: code 12"),
    ("GET https://a.example/x?y=1 timed out after 30.5 s", "GET https://b.example/z timed out after 1 s"),
    ("sha deadbeef", "sha abcdefab"),
    ("tasks 1, 2, 3 failed", "tasks 44 failed"),
    ("two  spaces\nand a line", "two spaces and a line"),
    (r"cannot open C:\data\one.tif", r"cannot open D:\x\two.tif"),
]
DIFFERENT = [
    ("disk full", "disk fuller"),
    ("field 'name' is missing", "field 'code' is missing"),
    ("expected a raster, found a vector", "expected a raster, found a table"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_messages_that_differ_in_numbers_ids_and_paths_have_one_fingerprint(engine, one, other):
    (row,) = engine.query(
        "select app.error_fingerprint('E', %s) as a, app.error_fingerprint('E', %s) as b,"
        " app.normalised_message(%s) as text_a, app.normalised_message(%s) as text_b",
        one, other, one, other,
    )  # fmt: skip
    assert row["text_a"] == row["text_b"]
    assert row["a"] == row["b"]
    assert len(row["a"]) == 16


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_errors_have_other_fingerprints(engine, one, other):
    (row,) = engine.query(
        "select app.error_fingerprint('E', %s) as a, app.error_fingerprint('E', %s) as b,"
        " app.error_fingerprint('F', %s) as c, app.error_fingerprint(null, null) as none",
        one, other, one,
    )  # fmt: skip
    assert len({row["a"], row["b"], row["c"], row["none"]}) == 4


def test_failed_tasks_are_grouped_and_listed(rig, engine):
    failures = FailureQueries(engine.pool)
    first = rig.run(n=12, bad=[2, 5, 11])
    second = rig.run(n=3, bad=[1])
    rig.run(n=3)

    (group,) = failures.group_failures()
    assert (group.error_type, group.count, group.job_count, group.retryable) == ("ValueError", 4, 2, False)
    assert (group.job_types, group.task_types, group.stages) == (("shapes",), ("square",), (2,))
    assert len(group.examples) == 3
    assert group.first_at <= group.last_at
    assert failures.group_failures(job_type="other") == []
    (of_first,) = failures.group_failures(job_id=first)
    assert (of_first.count, of_first.fingerprint) == (3, group.fingerprint)

    page = failures.list_failures(fingerprint=group.fingerprint, limit=3)
    rest = failures.list_failures(fingerprint=group.fingerprint, limit=3, cursor=page.next_cursor)
    listed = [(task.job_id, task.task_id) for task in (*page.items, *rest.items)]
    assert listed == sorted(
        [(first, "s2-n2"), (first, "s2-n5"), (first, "s2-n11"), (second, "s2-n1")],
        key=lambda each: (each[0], int(each[1].removeprefix("s2-n"))),
    )
    assert page.items[0].error["type"] == "ValueError"
    assert failures.list_failures(job_id=second, fingerprint="0" * 16).items == ()
    with pytest.raises(InvalidCursor):
        failures.list_failures(cursor="x")


def test_failures_are_read_over_their_own_index(rig, engine):
    rig.run(n=5, bad=[1])
    with engine.pool.connection() as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(
            "explain select * from app.tasks t where t.status = 'failed' and t.job_id = 'x'"
            " order by t.job_id, t.run, t.stage, t.task_index limit 5"
        ).fetchall()
    assert "tasks_failed" in str(plan)
    assert "Sort" not in str(plan)
