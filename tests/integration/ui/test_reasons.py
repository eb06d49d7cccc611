"""Why a job in the list waits or failed: broken situations, each as the list and as the job's page explain it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from core.models import TaskStatus
from core.models.app import AppProfile
from core.models.dead_letter import DeadLetter
from core.models.insight import Finding
from core.models.job_filter import JobFilter
from core.models.limit import Rate
from core.models.submission import SubmitRequest
from core.operating.dead_letters import read_reference
from core.operating.explain import explain
from infrastructure.postgresql import create_pool
from tests.databases import clone_template
from tests.integration.ui.dashboard_app import AppServices, Gate, make_services
from triggers.ui.bars import JobRow
from triggers.ui.jobs_page import rows_of
from triggers.ui.recent import RecentReads

APP = "geo-worker:vm-7:1:a"


@pytest.fixture(scope="module")
def services(template_url: str) -> Iterator[AppServices]:
    with clone_template(template_url) as url, create_pool(url, max_size=10) as pool:
        yield make_services(pool, Gate())


@pytest.fixture(autouse=True)
def _apps_register_themselves(services: AppServices) -> None:
    execute(services, "delete from app.app_instances")


def execute(services: AppServices, query: str, *values: object) -> None:
    with services.pool.connection() as connection:
        connection.execute(query, values)


def register(services: AppServices, queues: tuple[str, ...], task_types: tuple[str, ...]) -> None:
    services.apps.record_app_instance(AppProfile(APP, "geo-worker", "worker", "1", None, queues, task_types, (), 4))


def submit(services: AppServices, job_type: str = "scene_catalog", **more: object) -> str:
    given = {"folder": "abfs://a", "scenes": 2} if job_type == "scene_catalog" else {}
    asked = {name: more.pop(name) for name in ("start_at",) if name in more}
    request = SubmitRequest(job_type, given | more, force=True, **asked)
    return services.machine.submit_job(request).job_id


def deliver_all(services: AppServices) -> None:
    while services.queues.deliver(services.machine):
        pass


def submit_to_stage(services: AppServices, stage: int) -> str:
    """A job whose tasks of this stage are written, and nobody had their message."""
    job_id = submit(services)
    while services.queries.get_job_detail(job_id).job.stage < stage:
        assert services.queues.deliver(services.machine)
    return job_id


def lease(services: AppServices, job_id: str, *, minutes: int = 1, index: int = 0) -> None:
    """A task of its second stage, by a process whose lease ends that many minutes from now."""
    execute(
        services,
        "update app.tasks set status = 'processing', attempt = 1, lease_id = gen_random_uuid(), lease_owner = %s,"
        " started_at = now(), lease_expires_at = now() + %s * interval '1 minute'"
        " where job_id = %s and stage = 2 and task_index = %s",
        *(APP, minutes, job_id, index),
    )


def look(services: AppServices, job_id: str) -> tuple[JobRow, list[str]]:
    """The job's row in the list, and the codes of its page's findings."""
    row, findings = look_at_both(services, job_id)
    return row, [finding.code for finding in findings]


def look_at_both(services: AppServices, job_id: str) -> tuple[JobRow, list[Finding]]:
    job = next(each for each in services.dashboard.search.find_jobs(job_id, JobFilter(), limit=1).items)
    (row,) = rows_of(services, (job,), RecentReads())
    return row, explain(services.insight.get_job_facts(job_id))


def expect(services: AppServices, job_id: str, code: str, text: str) -> JobRow:
    row, findings = look_at_both(services, job_id)
    assert row.reason is not None, findings
    assert (row.reason.code, row.reason.text) == (code, text)
    # A list of what needs somebody leaves out what is only for information.
    assert (findings[0].code, findings[0].severity) == (code, row.reason.severity)
    return row


def test_worker_of_a_queue_is_absent(services):
    other = submit_to_stage(services, 2)
    lease(services, other)
    job_id = submit_to_stage(services, 2)
    register(services, ("tasks",), ("scene_list",))
    # A process that registers itself nowhere is seen by the tasks that it has.
    expect(services, job_id, "waiting_in_queue", "Waits on the queue raster")
    execute(services, "update app.tasks set queue = 'gpu' where job_id = %s", other)
    expect(services, job_id, "queue_without_app", "No app reads the queue raster")


def test_app_on_the_queue_has_no_such_handler(services):
    job_id = submit_to_stage(services, 2)
    register(services, ("raster",), ("other",))
    text = "No app on the queue raster has a handler for scene_convert"
    expect(services, job_id, "task_type_without_app", text)


def test_release_that_knows_a_handler_is_missing(services):
    job_id = submit_to_stage(services, 2)
    execute(services, "update app.tasks set task_type = 'scene_v9' where job_id = %s and stage = 2", job_id)
    deliver_all(services)
    row, codes = look(services, job_id)
    assert (row.reason.code, codes[0]) == ("waits_for_release", "waits_for_release")
    assert "scene_v9" in row.reason.text


def test_release_that_knows_a_job_type_is_missing(services):
    job_id = submit(services)
    execute(services, "update app.jobs set job_type = 'of_tomorrow' where job_id = %s", job_id)
    deliver_all(services)
    row, codes = look(services, job_id)
    assert (row.reason.code, codes[0]) == ("waits_for_release", "waits_for_release")
    assert "of_tomorrow" in row.reason.text


@pytest.mark.parametrize(("at_once", "rate"), [(0, None), (None, Rate(count=0, seconds=60))])
def test_closed_limit_needs_somebody(services, at_once, rate):
    services.limits.set_limit("tiles/a", at_once, rate, reason=None, actor=None)
    job_id = submit(services, "tile_fetch", server="a")
    deliver_all(services)
    row = expect(services, job_id, "waits_for_limit", "Waits for the limit tiles/a, which lets none begin")
    assert [each.text for each in row.parameters] == ["a"]
    assert row.reason.severity == "warning"


def test_limit_whose_rate_is_used_up_lets_more_begin_later(services):
    services.limits.set_limit("tiles/b", None, Rate(count=1, seconds=3600), reason=None, actor=None)
    for _ in range(2):
        job_id = submit(services, "tile_fetch", server="b")
        deliver_all(services)
    row = expect(services, job_id, "waits_for_limit", "Waits for the limit tiles/b")
    assert row.reason.severity == "info"


def test_no_janitor_sends_the_message_of_a_step(services):
    job_id = submit(services)
    execute(
        services,
        "update app.jobs set announced_at = null, due_at = null, updated_at = now() - interval '6 minutes'"
        " where job_id = %s",
        job_id,
    )
    expect(services, job_id, "janitor_late", "Waits for the janitor, and none has come")


def test_no_janitor_sends_the_messages_of_tasks(services):
    job_id = submit_to_stage(services, 2)
    execute(
        services,
        "update app.tasks set status = 'pending', announced_at = null, due_at = null,"
        " created_at = now() - interval '6 minutes' where job_id = %s and stage = 2",
        job_id,
    )
    register(services, ("raster",), ("scene_convert",))
    expect(services, job_id, "janitor_late", "Waits for the janitor, and none has come")


def test_no_janitor_leaves_a_stage_that_is_over(services):
    job_id = submit_to_stage(services, 2)
    execute(services, "delete from app.tasks where job_id = %s and stage = 2", job_id)
    execute(services, "update app.jobs set updated_at = now() - interval '6 minutes' where job_id = %s", job_id)
    expect(services, job_id, "janitor_late", "Waits for the janitor, and none has come")


def test_database_refuses_the_end_of_a_step(services):
    job_id = submit(services)
    execute(
        services,
        "insert into app.job_events (job_id, run, stage, event, detail, at)"
        " values (%s, 1, 1, 'job_step_not_written', jsonb_build_object('reason', 'not on a Monday'), now())",
        job_id,
    )
    text = "Planning of stage 1 ended, and the database refuses to write that: not on a Monday"
    expect(services, job_id, "step_not_written", text)


def test_failing_handler_is_tried_again(services):
    job_id = submit(services, scenes=1, unsteady=[0])
    while not services.queries.list_tasks(job_id, statuses=[TaskStatus.PENDING_RETRY]).items:
        assert services.queues.deliver(services.machine)
    text = "Tries again after RetryableTaskError: the storage account did not answer within 30 s"
    expect(services, job_id, "waiting_for_retry", text)


def test_a_retry_is_not_the_reason_of_a_job_whose_other_tasks_run(services):
    """200 tasks were at work, and the list said of the job that one of them is tried again."""
    job_id = submit_to_stage(services, 2)
    lease(services, job_id, index=1)
    execute(
        services,
        "update app.tasks set status = 'pending_retry', lease_id = null, lease_expires_at = null,"
        " due_at = now() + interval '1 minute' where job_id = %s and stage = 2 and task_index = 1",
        job_id,
    )
    lease(services, job_id)
    row, findings = look_at_both(services, job_id)
    assert row.reason is None
    assert [(each.code, each.severity) for each in findings if each.code == "waiting_for_retry"] == [
        ("waiting_for_retry", "info")
    ]


def test_job_is_paused(services):
    job_id = submit(services)
    services.machine.pause_job(job_id, reason="the source is away", actor="kim")
    expect(services, job_id, "paused", "Paused by kim: the source is away")


def test_message_is_a_dead_letter(services):
    job_id = submit(services)
    body = json.dumps({"job_id": job_id, "job_type": "scene_catalog", "stage": 1, "run": 1}).encode()
    reference = read_reference("jobs", body, {})
    letter = DeadLetter(
        *("jobs", job_id, 1, datetime.now(UTC), reference),
        reason="MaxDeliveryCountExceeded",
        description="it failed",
        delivery_count=10,
        correlation_id=None,
        body=body.decode(),
        body_size=len(body),
    )
    services.state.record_dead_letter(letter)
    expect(services, job_id, "dead_lettered", "A message of it is a dead letter: MaxDeliveryCountExceeded: it failed")


def test_job_begins_later(services):
    job_id = submit(services, start_at=datetime.now(UTC) + timedelta(hours=1))
    row = expect(services, job_id, "starts_later", "Begins later, as it was submitted")
    assert row.reason.at is not None


def test_job_waits_for_its_first_message(services):
    expect(services, submit(services), "step_announced", "Waits for planning of stage 1")


def test_process_of_its_tasks_was_lost(services):
    job_id = submit_to_stage(services, 2)
    lease(services, job_id, minutes=-1)
    expect(services, job_id, "lease_expired", "Its process was lost; the janitor takes its tasks back")


@pytest.mark.parametrize(
    ("broken", "code", "failed"), [([0], "completed_with_errors", 1), ([0, 1, 2, 3, 4, 5], "failed", 6)]
)
def test_job_failed_by_its_tasks(services, broken, code, failed):
    job_id = submit(services, broken=broken, scenes=6)
    deliver_all(services)
    row, codes = look(services, job_id)
    assert (row.reason.code, codes[0], row.failed) == (code, code, failed)
    assert row.reason.text.endswith("TIFFFillTile: read error at row 512, column 1024")
    assert row.apps == ("geo-worker",)


def test_job_that_goes_on_or_completed_needs_no_reason(services):
    job_id = submit_to_stage(services, 2)
    lease(services, job_id)
    assert look(services, job_id)[0].reason is None
    done = submit(services)
    deliver_all(services)
    row, _ = look(services, done)
    assert (row.job.status, row.reason) == ("completed", None)
