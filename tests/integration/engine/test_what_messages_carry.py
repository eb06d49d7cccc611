"""What messages and rows say of their job: its ids, and nothing that is written elsewhere. From request to handler."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest

from core.models import JobQueueMessage, StageCompleteMessage, TaskQueueMessage
from core.operating.janitor import JanitorTimings
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.queries import JobQueries
from triggers.api import create_api

from .machine_suite import Behaviours, Rig

CORRELATION_ID = "order-7"
LARGE = "".join(uuid4().hex for _ in range(1600))  # 50 kB, which PostgreSQL cannot compress away
AT_ONCE = JanitorTimings(announce=0, hold=0, job=0, lost=0)


class NotingBehaviours(Behaviours):
    """Notes the correlation id that each attempt was given."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __call__(self, context):
        self.seen[context.task_id, context.attempt, context.correlation_id] += 1
        return super().__call__(context)


class Apps:
    """A platform app with HTTP and janitor, and a worker app; what both of them send is noted."""

    def __init__(self, engine):
        self.engine, self.queues, self.sent = engine, MemoryQueues(), []
        self.behave = NotingBehaviours()
        self.platform = Rig(engine, self.queues, sender=self, behave=self.behave, timings=AT_ONCE)
        worker = Rig(engine, self.queues, sender=self, behave=self.behave, advances_jobs=False)
        self.machine = SimpleNamespace(
            process_job_message=self.platform.machine.process_job_message,
            process_task_message=worker.machine.process_task_message,
        )
        queries = JobQueries(engine.pool)
        services = SimpleNamespace(
            machine=self.platform.machine,
            queries=queries,
            registry=self.platform.registry,
            find_job_status=queries.find_job_status,
        )
        self.api = create_api(lambda: services)

    def send_messages(self, queue, messages):
        self.sent += messages
        self.queues.send_messages(queue, messages)

    def send_message_with_delay(self, queue, message, delay_seconds):
        self.sent.append(message)
        self.queues.send_message_with_delay(queue, message, delay_seconds)

    def ask(self, method, path, **given):
        async def one():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.api), base_url="http://jobs") as http:
                return await http.request(method, path, **given)

        return asyncio.run(one()).json()

    def lose_messages(self, found):
        """The broker loses what it has; the janitor notices."""
        assert self.queues.clear() > 0
        report = self.platform.janitor.sweep()
        assert getattr(report, found) > 0, report

    def run_through_all_kinds(self):
        """One job whose every way to send a message is taken; its id."""

        def away_once(context):
            if context.attempt == 1:
                raise OSError("disk away")

        self.behave.before["s2-n1"] = away_once
        job_id = self.ask(
            "POST",
            "/api/jobs/submit/shapes",
            json={"n": 20, "label": LARGE},
            headers={"X-Correlation-Id": CORRELATION_ID},
        )["job_id"]
        self.lose_messages("found_lost_jobs")
        while not self.platform.tasks(job_id, 2):
            assert self.queues.deliver(self.machine)
        self.lose_messages("found_lost_tasks")
        self.queues.run(self.machine)
        self.ask("POST", f"/api/jobs/{job_id}/rerun", json={"from_stage": 2})
        self.queues.run(self.machine)
        return job_id


@pytest.fixture
def apps(engine):
    return Apps(engine)


def test_correlation_id_of_the_request_is_in_every_message_attempt_and_log(apps, caplog):
    """It was dropped in the messages of tasks, and the logs of handlers could not be found by it (lesson D29)."""
    job_id = apps.run_through_all_kinds()

    job = apps.ask("GET", f"/api/jobs/{job_id}")
    assert (job["status"], job["run"], job["correlation_id"]) == ("completed", 2, CORRELATION_ID)
    kinds = {(type(message), message.run) for message in apps.sent}
    assert kinds == {
        (kind, run) for kind in (JobQueueMessage, TaskQueueMessage, StageCompleteMessage) for run in (1, 2)
    }
    assert {message.attempt for message in apps.sent if isinstance(message, TaskQueueMessage)} == {1, 2}
    assert {message.correlation_id for message in apps.sent} == {CORRELATION_ID}
    assert {correlation_id for _, _, correlation_id in apps.behave.seen} == {CORRELATION_ID}
    assert {attempt for _, attempt, _ in apps.behave.seen} == {1, 2}
    failures = [record.correlation_id for record in caplog.records if record.message == "task_attempt_failed"]
    assert set(failures) == {CORRELATION_ID}


def test_large_parameters_of_a_job_stand_in_its_own_row_alone(apps):
    """Every task and message repeated them (lesson D5)."""
    job_id = apps.run_through_all_kinds()

    (job,) = apps.engine.query("select parameters from app.jobs")
    assert job["parameters"]["label"] == LARGE
    for message in apps.sent:
        ids = sum(len(task_id) for task_id in getattr(message, "task_ids", ()))
        assert len(message.model_dump_json()) < 1000 + ids
    for table, rows in {"stages": 5, "tasks": 1 + 2 * 21, "job_events": 1}.items():
        sizes = apps.engine.query(
            f"select length(to_jsonb(t)::text) as size from app.{table} t where job_id = %s",  # noqa: S608 - names of this test
            job_id,
        )
        assert len(sizes) >= rows
        assert max(row["size"] for row in sizes) < 2000, table
