"""What each state of a job's rows is explained as."""

from datetime import UTC, datetime, timedelta

import pytest

from core.models.dead_letter import DeadLetterGroup, FailureExample, FailureGroup
from core.models.foreign import DisabledTrigger, ForeignFacts, ForeignTrigger, PreparedTransaction
from core.models.insight import (
    InterruptedTask,
    JobFacts,
    LeaseFacts,
    LockHolder,
    QueueFacts,
    RetryFacts,
    RetryingTask,
    StepLeaseFacts,
    UnannouncedFacts,
    UnknownFacts,
)
from core.models.status import JobStatus
from core.operating.explain import explain

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
JOB = "ab" * 32


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def ahead(seconds: float) -> datetime:
    return ago(-seconds)


def facts(status: str, **fields) -> JobFacts:
    defaults = {
        "now": NOW,
        "job_id": JOB,
        "run": 1,
        "stage": 2,
        "total_stages": 3,
        "created_at": ago(100),
        "updated_at": ago(5),
        "stage_name": "convert",
        "stage_status": "processing",
        "lease_seconds": 60.0,
        "max_interruptions": 5,
    }
    return JobFacts(**{**defaults, "status": JobStatus(status), **fields})


def lease(**fields) -> LeaseFacts:
    defaults = {
        "owner": "app:host:7",
        "count": 3,
        "expired": 0,
        "first_expires_at": ahead(40),
        "next_expires_at": ahead(40),
        "oldest_started_at": ago(80),
        "examples": ("tile-1", "tile-2"),
    }
    return LeaseFacts(**{**defaults, **fields})


def queue(**fields) -> QueueFacts:
    defaults = {
        "queue": "raster",
        "count": 4,
        "announced_at": ago(200),
        "busy": 0,
        "owners": (),
        "last_start": None,
    }
    return QueueFacts(**{**defaults, **fields})


def unknown(**fields) -> UnknownFacts:
    defaults = {
        "kind": "task type",
        "name": "polish",
        "count": 1,
        "since": ago(900),
        "times": 7,
        "by": "old:host:7",
        "next_at": ahead(20),
        "waited_seconds": 900.0,
        "patience_seconds": 21600.0,
    }
    return UnknownFacts(**{**defaults, **fields})


ERROR = {"type": "OSError", "message": "disk full"}
RETRY = RetryFacts(2, ahead(12), 0, (RetryingTask("s2-a", "tile-9", 1, ahead(12), ERROR),))
DUE = RetryFacts(1, ago(20), 1, ())
FAILURE = FailureGroup(
    fingerprint="0123456789abcdef",
    error_type="ValueError",
    message="bad tile",
    retryable=False,
    count=4,
    job_count=1,
    job_types=("t",),
    task_types=("convert",),
    stages=(2,),
    first_at=ago(50),
    last_at=ago(40),
    examples=(FailureExample(job_id=JOB, run=1, stage=2, task_id="s2-x", name=None),),
)
LETTERS = DeadLetterGroup(
    fingerprint="f" * 16,
    reason="MaxDeliveryCountExceeded",
    description="after 10 attempts",
    count=2,
    queues=("raster",),
    job_count=1,
    first_at=ago(70),
    last_at=ago(60),
    examples=(5,),
)
OPEN = {"open_count": 4}

# The rows, and the findings in order: code, severity, and what the message says.
CASES = {
    "completed": (facts("completed", finished_at=ago(60)), [("completed", "info", "ended 11:59:00Z (60 s ago)")]),
    "failed with its reason and its failures": (
        facts(
            "failed",
            finished_at=ago(9),
            error={"type": "StageFailed", "message": "stage 2 failed"},
            failures=(FAILURE,),
        ),
        [
            ("failed", "error", "StageFailed: stage 2 failed"),
            ("tasks_failed", "error", "4 tasks of stage 2 failed with ValueError: bad tile (for example s2-x)"),
        ],
    ),
    "completed with errors": (
        facts("completed_with_errors", finished_at=ago(9), failures=(FAILURE,)),
        [("completed_with_errors", "warning", "failure policy"), ("tasks_failed", "warning", "4 tasks")],
    ),
    "cancelled": (
        facts("cancelled", finished_at=ago(9), error={"type": "Cancelled", "message": "wrong folder"}),
        [("cancelled", "warning", "wrong folder")],
    ),
    "many kinds of failures": (
        facts("failed", finished_at=ago(9), failures=(FAILURE,) * 7),
        [
            ("failed", "error", "no reason is kept"),
            *[("tasks_failed", "error", "4 tasks")] * 5,
            ("more_failures", "info", "8 tasks failed in 2 other ways"),
        ],
    ),
    "one more kind of failures than are shown": (
        facts("failed", finished_at=ago(9), failures=(FAILURE,) * 6),
        [
            ("failed", "error", "no reason is kept"),
            *[("tasks_failed", "error", "4 tasks")] * 5,
            ("more_failures", "info", "4 tasks failed in 1 other way"),
        ],
    ),
    "message on the jobs queue": (
        facts("queued", announced_at=ago(3)),
        [("step_announced", "info", "(convert); its message went to the jobs queue 11:59:57Z (3 s ago)")],
    ),
    "planner at work": (
        facts("queued", announced_at=ago(300), step_lease=StepLeaseFacts("app:host:7", ago(60), ahead(8))),
        [("step_running", "info", "under way: planning of stage 2 (convert) by app:host:7 since 11:59:00Z (60 s ago)")],
    ),
    "inline planner at work for long": (
        facts("queued", updated_at=ago(900), step_lease=StepLeaseFacts("app:host:7", ago(900), ahead(8))),
        [("step_running", "info", "the lease ends 12:00:08Z (in 8 s) unless renewed")],
    ),
    "planner lost": (
        facts("queued", announced_at=ago(80), step_lease=StepLeaseFacts("app:host:7", ago(60), ago(8))),
        [("step_lost", "warning", "its lease ran out 11:59:52Z (8 s ago)")],
    ),
    "planner that ended its process": (
        facts(
            "queued",
            announced_at=ago(3),
            max_interruptions=5,
            step_lease=StepLeaseFacts("a:h:7", ago(60), ago(8), interruptions=2, lost="a:h:6", has_ended=True),
        ),
        [
            ("step_interrupted", "warning", "planning of stage 2 (convert) was interrupted 2 of 5 times"),
            ("step_announced", "info", "(convert); its message went to the jobs queue"),
        ],
    ),
    "message on the jobs queue for long": (
        facts("queued", announced_at=ago(300)),
        [("step_announced", "warning", "not taken yet")],
    ),
    "no message yet": (
        facts("queued"),
        [("step_not_announced", "info", "no message for it is confirmed since 11:59:55Z (5 s ago)")],
    ),
    "no message and no janitor": (
        facts("queued", updated_at=ago(900)),
        [
            ("janitor_late", "error", "since 11:45:00Z (15 min ago) and none has come"),
            ("step_not_announced", "info", ""),
        ],
    ),
    "message held": (facts("queued", due_at=ahead(30)), [("step_held", "info", "until 12:00:30Z (in 30 s)")]),
    "planning failed": (
        facts("queued", attempt=2, due_at=ahead(12), step_error=ERROR, announced_at=ago(5)),
        [("step_retry", "warning", "failed 2 times (last: OSError: disk full); next attempt 12:00:12Z")],
    ),
    "step that no app here knows": (
        facts("queued", announced_at=ago(900), unknown_step=unknown(kind="job type", name="survey")),
        [
            (
                "waits_for_release",
                "warning",
                "survey: planning of stage 2 (convert); postponed 7 times since 11:45:00Z (15 min ago), last by old",
            )
        ],
    ),
    "tasks that no app here knows": (
        facts("processing", open_count=4, unknown_tasks=(unknown(count=3), unknown(count=1, name="publish"))),
        [
            ("waits_for_release", "warning", "the task type polish: 3 tasks of stage 2"),
            ("waits_for_release", "warning", "the task type publish: 1 task of stage 2"),
        ],
    ),
    "queue without a name here": (
        facts("processing", open_count=1, unnamed_queues=("gpu",)),
        [("queue_not_known", "warning", "no queue 'gpu' in its settings, and tasks of stage 2 come through it")],
    ),
    "finalizing": (facts("finalizing", announced_at=ago(1)), [("step_announced", "info", "waits for finalizing")]),
    "finalizing failed": (
        facts("finalizing", attempt=1, due_at=ahead(12), step_error=ERROR, announced_at=ago(5)),
        [("step_retry", "warning", "finalizing failed once")],
    ),
    "tasks run": (
        facts("processing", leases=(lease(),), **OPEN),
        [
            (
                "tasks_running",
                "info",
                "claimed by app:host:7: 3 tasks of stage 2; last heartbeat 20 s ago, one is due every 20 s; the first",
            )
        ],
    ),
    "a process was heard a quarter of its lease and the margin ago": (
        facts("processing", leases=(lease(next_expires_at=ahead(35.1)),), **OPEN),
        [("tasks_running", "info", "last heartbeat 25 s ago, one is due every 20 s")],
    ),
    "a dead process whose lease has not run out": (
        facts("processing", leases=(lease(first_expires_at=ahead(24), next_expires_at=ahead(24)),), **OPEN),
        [
            (
                "process_silent",
                "warning",
                "3 tasks of stage 2; silent for 36 s, a heartbeat is due every 20 s; the first lease ends 12:00:24Z",
            )
        ],
    ),
    "tasks that are timed out and not renewed": (
        facts("processing", leases=(lease(next_expires_at=None),), **OPEN),
        [("tasks_running", "info", "3 tasks of stage 2, beyond the time that their stage allows")],
    ),
    "interrupted": (
        facts(
            "processing",
            leases=(lease(),),
            interrupted=(
                InterruptedTask("s1-0-kill9", None, 2, "a:h:1"),
                InterruptedTask("s1-1", "tile", 2, None, released=1),
                InterruptedTask("s1-2", "hill", 1, "a:h:2", released=1),
            ),
            interrupted_count=6,
            **OPEN,
        ),
        [
            ("interrupted", "warning", "s1-0-kill9 was interrupted 2 of 5 times; its process died each time, or"),
            (
                "interrupted",
                "warning",
                "tile was interrupted 2 of 5 times; its process died, or lost the database, 1 of these times, and",
            ),
            (
                "interrupted",
                "info",
                "hill was interrupted 1 of 5 times, each by a process that was asked to end, as in a deployment or",
            ),
            ("more_interrupted", "info", "3 tasks more of stage 2 were interrupted"),
            ("tasks_running", "info", ""),
        ],
    ),
    "a process died": (
        facts("processing", leases=(lease(expired=2, first_expires_at=ago(8)),), **OPEN),
        [
            ("lease_expired", "warning", "claimed by app:host:7: 2 tasks of stage 2, whose lease"),
            ("tasks_running", "info", "1 task of"),
        ],
    ),
    "a process died and no janitor comes": (
        facts("processing", leases=(lease(expired=3, first_expires_at=ago(400)),), **OPEN),
        [("janitor_late", "error", "7 min ago"), ("lease_expired", "warning", "3 tasks")],
    ),
    "waiting for another attempt": (
        facts("processing", retries=RETRY, **OPEN),
        [
            (
                "waiting_for_retry",
                "warning",
                "waiting for another attempt: 2 tasks, the next 12:00:12Z (in 12 s) (tile-9 after attempt 1: OSError: ",
            )
        ],
    ),
    "one of many waits for another attempt": (
        facts("processing", retries=RETRY, leases=(lease(),), **OPEN),
        [
            ("waiting_for_retry", "info", "waiting for another attempt: 2 tasks"),
            ("tasks_running", "info", "claimed by"),
        ],
    ),
    "another attempt, between short tasks": (
        facts("processing", retries=RETRY, queues=(queue(last_start=ago(2)),), **OPEN),
        [("waiting_in_queue", "info", "on queue 'raster'"), ("waiting_for_retry", "info", "2 tasks")],
    ),
    "another attempt, and no worker": (
        facts("processing", retries=RETRY, queues=(queue(last_start=ago(200)),), **OPEN),
        [("no_worker_seen", "warning", "on queue 'raster'"), ("waiting_for_retry", "warning", "2 tasks")],
    ),
    "due again without a message": (
        facts("processing", retries=DUE, **OPEN),
        [("waiting_for_retry", "warning", ""), ("retry_not_announced", "info", "1 task")],
    ),
    "planned a moment ago": (
        facts("processing", unannounced=UnannouncedFacts(9, ago(4), 0, None), **OPEN),
        [("tasks_not_announced", "info", "no message is confirmed for 9 tasks of stage 2 since 11:59:56Z")],
    ),
    "tasks of a moving window whose messages are on their way": (
        facts("processing", leases=(lease(),), unannounced=UnannouncedFacts(45, ago(4), 0, None), **OPEN),
        [("tasks_running", "info", "3 tasks")],
    ),
    "tasks of a moving window without a message for too long": (
        facts("processing", leases=(lease(),), unannounced=UnannouncedFacts(45, ago(31), 0, None), **OPEN),
        [("tasks_not_announced", "info", "45 tasks of stage 2 since"), ("tasks_running", "info", "3 tasks")],
    ),
    "never announced": (
        facts("processing", unannounced=UnannouncedFacts(9, ago(4000), 0, None), **OPEN),
        [("janitor_late", "error", "67 min ago"), ("tasks_not_announced", "info", "9 tasks")],
    ),
    "their message died": (
        facts("processing", unannounced=UnannouncedFacts(0, None, 2, ahead(50)), dead_letters=(LETTERS,), **OPEN),
        [
            ("dead_lettered", "warning", "on queue raster ended as dead letters (MaxDeliveryCountExceeded: after"),
            (
                "tasks_held",
                "info",
                "held before another message is sent: 2 tasks of stage 2, the first until 12:00:50Z",
            ),
        ],
    ),
    "dead letters of an ended job": (
        facts("completed", finished_at=ago(9), dead_letters=(LETTERS,)),
        [("completed", "info", ""), ("dead_lettered", "info", "2 of its messages")],
    ),
    "in a queue that is worked on": (
        facts("processing", queues=(queue(busy=8, owners=("a:h:1", "a:h:2")),), **OPEN),
        [
            (
                "waiting_in_queue",
                "info",
                "the first since 11:56:40Z (3 min ago); it is worked on: 8 tasks claimed by a:h:1, a:h:2",
            )
        ],
    ),
    "in a queue that nobody reads": (
        facts("processing", queues=(queue(),), **OPEN),
        [("no_worker_seen", "warning", "nobody holds a task of this queue now (none yet)")],
    ),
    "in a queue between two tasks": (
        facts("processing", queues=(queue(last_start=ago(2)),), **OPEN),
        [("waiting_in_queue", "info", "the last task of this job began 11:59:58Z (2 s ago)")],
    ),
    "with deadlines": (
        facts("processing", leases=(lease(),), deadline_at=ahead(90), queue_deadline_at=ahead(30), **OPEN),
        [
            ("tasks_running", "info", ""),
            ("deadline", "info", "fails if it has not ended by 12:01:30Z (in 90 s)"),
            ("queue_deadline", "info", "tasks of stage 2 fail that have not begun by 12:00:30Z (in 30 s)"),
        ],
    ),
    "cancelling": (
        facts("cancelling", leases=(lease(),), cancel_requested_at=ago(30), cancel_reason="wrong", **OPEN),
        [
            ("cancelling", "info", "11:59:30Z (30 s ago) (wrong); waits for 3 tasks to stop: tile-1, tile-2"),
            ("tasks_running", "info", "3 tasks"),
        ],
    ),
    "paused": (
        facts("queued", paused_at=ago(5000), paused_by="ann", pause_reason="disk", updated_at=ago(5000)),
        [("paused", "warning", "paused by ann 10:36:40Z (83 min ago) (disk): nothing new is planned or claimed")],
    ),
    "paused with messages that came": (
        facts("processing", paused_at=ago(5000), parked=3, queues=(queue(),), **OPEN),
        [("paused", "warning", "messages came for 3 tasks and are sent again when it goes on")],
    ),
    "cancelling with a deadline": (
        facts("cancelling", leases=(lease(),), cancel_requested_at=ago(30), cancel_deadline_at=ahead(270), **OPEN),
        [
            ("cancelling", "info", "the job ends without them at the first sweep after 12:04:30Z (in 4 min)"),
            ("tasks_running", "info", "3 tasks"),
        ],
    ),
    "over but standing": (facts("processing"), [("stage_over", "warning", "stage 2 has no open task")]),
    "tasks of a queue that nobody made": (
        facts(
            "processing",
            waiting_queues=("raster",),
            missing_queues={"raster": "create it", "tasks": "create it"},
            unannounced=UnannouncedFacts(4, ago(100), 0, None),
            **OPEN,
        ),
        [
            (
                "queue_missing",
                "error",
                "the queue 'raster' is not there, and tasks of stage 2 can only come through it",
            ),
            ("tasks_not_announced", "info", "no message is confirmed for 4 tasks"),
        ],
    ),
    "no jobs queue": (
        facts("finalizing", missing_queues={"jobs": "create it"}),
        [
            (
                "queue_missing",
                "error",
                "the queue 'jobs' is not there, and finalizing can only be asked for through it",
            ),
            ("step_not_announced", "info", "no message for it is confirmed"),
        ],
    ),
    "ended, and needs no queue": (
        facts("completed", finished_at=ago(60), missing_queues={"jobs": "create it"}),
        [("completed", "info", "ended")],
    ),
    "a rule and a trigger of others": (
        facts(
            "processing",
            foreign=ForeignFacts(
                (ForeignTrigger("app", "tasks", "a"), ForeignTrigger("app", "jobs", "b", "p.f")),
                (DisabledTrigger("app", "tasks", "free_places"),),
                (PreparedTransaction("two's", "ann", ago(90), ("jobs", "tasks")),),
            ),
        ),
        [
            ("foreign_trigger", "error", "the rule a on app.tasks is not the engine's"),
            ("stage_over", "warning", "has no open task"),
            (
                "locked_by_prepared_transaction",
                "warning",
                'prepared transaction "two\'s" of ann since 2026',
            ),
            ("foreign_trigger", "warning", "the trigger b before each row of app.jobs (function p.f) is not"),
            ("own_trigger_disabled", "warning", "the disabled trigger free_places of app.tasks should be enabled"),
        ],
    ),
    "a trigger of others, while tasks run": (
        facts(
            "processing", foreign=ForeignFacts((ForeignTrigger("app", "jobs", "b", "p.f"),)), leases=(lease(),), **OPEN
        ),
        [("tasks_running", "info", "claimed by app:host:7")],
    ),
    "locked by others": (
        facts(
            "processing",
            holders=(
                LockHolder(71, "psql", "ann", "idle in transaction", 90.0, ("jobs", "tasks"), 2),
                LockHolder(72, "", "bob", None, None, ("tasks",), 1),
            ),
            **OPEN,
        ),
        [
            (
                "locked_by_session",
                "warning",
                "has rows or all of jobs, tasks locked, in a transaction open since 11:58:30Z (90 s ago); 2 sessions",
            ),
            (
                "locked_by_session",
                "warning",
                "session 72 (application without a name, user bob, state not visible to this role) has rows or all of",
            ),
        ],
    ),
    "nothing to see": (facts("processing", **OPEN), [("no_reason_found", "warning", "the job is processing")]),
}


@pytest.mark.parametrize("name", CASES)
def test_state_is_explained(name):
    rows, expected = CASES[name]
    found = explain(rows)
    assert [(finding.code, finding.severity) for finding in found] == [case[:2] for case in expected]
    for finding, (_, _, text) in zip(found, expected, strict=True):
        assert text in finding.message


def test_another_day_is_told_with_its_date():
    (finding,) = explain(facts("completed", finished_at=NOW - timedelta(days=3)))
    assert finding.message == "ended 2025-12-30 12:00:00Z (72 h ago)"


def test_warnings_say_what_to_do():
    for rows, _ in CASES.values():
        for finding in explain(rows):
            assert finding.advice or finding.severity == "info" or finding.code == "no_reason_found"


def test_dead_message_says_that_the_rows_are_not_lost():
    rows, _ = CASES["their message died"]
    assert "the rows are not lost: the janitor announces them again" in explain(rows)[0].advice


def test_interruption_names_the_usual_causes():
    rows, _ = CASES["interrupted"]
    advice = explain(rows)[0].advice
    assert all(word in advice for word in ("memory", "signal", "os._exit", "max_interruptions (5)"))


LONG = "first " + "x" * 65_000 + "\nsecond line"
LONG_ERROR = {"type": "Boom", "message": LONG}


@pytest.mark.parametrize(
    "rows",
    [
        facts("failed", finished_at=ago(9), error=LONG_ERROR, failures=(FAILURE.model_copy(update={"message": LONG}),)),
        facts("cancelled", finished_at=ago(9), error=LONG_ERROR),
        facts("queued", attempt=2, due_at=ahead(12), step_error=LONG_ERROR),
        facts("processing", retries=RetryFacts(1, ahead(1), 0, (RetryingTask("a", "b", 1, ahead(1), LONG_ERROR),))),
        facts("queued", paused_at=ago(9), pause_reason=LONG),
        facts("cancelling", leases=(lease(),), cancel_reason=LONG),
        facts("processing", dead_letters=(LETTERS.model_copy(update={"description": LONG}),), **OPEN),
    ],
    ids=["failed", "cancelled", "step", "retry", "paused", "cancelling", "dead letter"],
)
def test_long_text_is_one_short_line_that_says_where_all_of_it_is(rows):
    """An error message of 64 KB flooded the terminal of whoever asked."""
    told = [finding.message for finding in explain(rows)]
    assert all("\n" not in message and len(message) < 1000 for message in told)
    assert any("in all; see `coremachine " in message and f"{JOB[:12]} -o json`)" in message for message in told)
    assert not any("second line" in message for message in told)
