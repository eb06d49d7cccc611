"""Which messages of retries call for more of their stage's tasks."""

from types import SimpleNamespace
from uuid import uuid4

import pytest

from core.models import StageDefinition
from core.running.outcome_writer import OutcomeWriter


@pytest.mark.parametrize(("max_parallel", "is_marked"), [(None, False), (3, True)])
def test_a_retry_calls_for_more_only_where_its_end_makes_room(max_parallel, is_marked):
    """Each look counts all tasks that wait for another attempt: thousands of looks kept small jobs waiting for 26 s."""
    sent = []
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single", max_parallel=max_parallel)
    orchestration = SimpleNamespace(
        queue_for=lambda _stage, _task_type: "tasks",
        announce_retry=lambda message, _queue, _delay: sent.append(message) or False,
    )
    job = SimpleNamespace(job_id="a" * 64, job_type="x", run=1, correlation_id="c")
    row = SimpleNamespace(task_id="s1-1", task_type="work", attempt=1, wait_seconds=1.0)
    OutcomeWriter(None, orchestration, job, stage, None, uuid4(), None, None).send_again([row])
    assert [message.takes_next for message in sent] == [is_marked]
