"""What can be read of a dead message, however broken it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from core.models.dead_letter import MessageReference, Selection
from core.operating.dead_letters import KEPT_BODY_BYTES, keep_body, keep_text, read_message, read_reference

JOB = "ab" * 32
TASK = {"job_id": JOB, "job_type": "t", "run": 2, "stage": 3, "task_ids": ["s3-a", "s3-b"]}


@pytest.mark.parametrize(
    ("queue", "document", "expected"),
    [
        ("tasks", TASK, MessageReference("task", JOB, 2, 3, ("s3-a", "s3-b"))),
        # Of a later release: this one cannot read it, yet knows which rows to wake.
        ("tasks", TASK | {"shard": 5}, MessageReference("task", JOB, 2, 3, ("s3-a", "s3-b"))),
        ("tasks", {"job_id": JOB, "stage": 3}, MessageReference("unreadable", JOB, 1, 3)),
        ("tasks", TASK | {"job_id": "../etc"}, MessageReference("unreadable", None, 2, 3, ("s3-a", "s3-b"))),
        ("tasks", TASK | {"run": True, "stage": 2**40}, MessageReference("unreadable", JOB, 1, None, ("s3-a", "s3-b"))),
        ("tasks", TASK | {"task_ids": ["s3-a", 7, "x" * 101]}, MessageReference("task", JOB, 2, 3, ("s3-a",))),
        ("jobs", {"job_id": JOB, "job_type": "t", "run": 2, "stage": 1}, MessageReference("job", JOB, 2, 1)),
        (
            "jobs",
            {"message_type": "stage_complete", "job_id": JOB, "job_type": "t", "run": 1, "completed_stage": 4},
            MessageReference("stage_complete", JOB, 1, 4),
        ),
        ("jobs", {"job_type": "t", "parameters": {"n": 1}}, MessageReference("submission")),
        ("jobs", {"parameters": {"n": 1}}, MessageReference("unreadable")),
        ("jobs", ["a", "list"], MessageReference("unreadable")),
    ],
)
def test_reference_is_what_the_body_says(queue, document, expected):
    assert read_reference(queue, json.dumps(document).encode(), {}) == expected


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b"null"])
def test_properties_tell_the_job_of_a_body_that_is_none(body):
    properties = {"job_id": JOB, "run": 2, "stage": 1, "DeadLetterReason": "x"}
    assert read_reference("tasks", body, properties) == MessageReference("unreadable", JOB, 2, 1)
    # On the jobs queue that is enough to wake the job.
    assert read_reference("jobs", body, properties).kind == "job"


@given(st.binary(max_size=200), st.sampled_from(["jobs", "tasks"]))
def test_no_body_raises(body, queue):
    read_reference(queue, body, {})
    keep_body(body).encode()


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        ("tasks", TaskQueueMessage(job_id=JOB, job_type="t", stage=1, task_ids=("a",))),
        ("jobs", JobQueueMessage(job_id=JOB, job_type="t")),
        ("jobs", StageCompleteMessage(job_id=JOB, job_type="t", completed_stage=1)),
        ("jobs", JobQueueMessage(job_type="t", parameters={})),
    ],
)
def test_own_messages_are_read_as_what_they_were(queue, message):
    assert read_message(queue, message.model_dump_json(exclude_none=True)) == message


def test_body_and_texts_are_kept_up_to_a_size():
    assert keep_body(b"a\x00\xff") == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert len(keep_body(b"a" * (KEPT_BODY_BYTES + 5))) == KEPT_BODY_BYTES
    assert keep_text(None) is None
    assert len(keep_text("a" * 9000)) == 4000


def test_submission_sent_again_has_another_id():
    """A broker that drops doubles would drop it otherwise."""
    first = JobQueueMessage(job_type="t", parameters={}, correlation_id="c-1")
    again = first.model_copy(update={"cause": "redrive-1"})
    assert (first.message_id, again.message_id) == ("submit-c-1", "submit-c-1-redrive-1")


def test_selection_selects_something():
    with pytest.raises(ValueError, match="at least one of ids, fingerprint, queue and job_id"):
        Selection()
