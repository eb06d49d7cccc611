"""A look at a job is written down before the job is answered, where a setting asks for it."""

import asyncio

import pytest

from core.errors import StoreUnavailable
from triggers.api import create_api
from triggers.read_audit import AGAIN_SECONDS, ReadAudit, wants_reads

from .fakes import JOB_ID, FakeServices, client
from .test_api import assert_problem

ACTOR = {"x-ms-client-principal-name": "ada@example.com"}


class Audited:
    def __init__(self, failure=None):
        self.rows, self.failure, self.services = [], failure, FakeServices()
        self.api = create_api(lambda: self.services, trusts_principal=True, record_read=self.record)

    def record(self, *row):
        if self.failure is not None:
            raise self.failure
        self.rows.append(row)

    def __call__(self, method, path, **options):
        async def send():
            async with client(self.api) as http:
                return await http.request(method, path, headers=ACTOR, **options)

        return asyncio.run(send())


@pytest.mark.parametrize("path", ["", "/tasks", "/tasks/t-1", "/runs", "/runs/1", "/events", "/poll"])
def test_a_look_at_a_job_leaves_one_row_for_a_while(path):
    audited = Audited()
    for _ in range(3):
        assert audited("GET", f"/api/jobs/{JOB_ID}{path}").status_code in {200, 202}
    assert audited.rows == [(JOB_ID, "ada@example.com", f"/api/jobs/{JOB_ID}{path}")]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/jobs/{'cd' * 32}"),
        ("GET", "/api/jobs"),
        ("GET", "/api/job-types"),
        ("GET", f"/api/jobs/{JOB_ID}?wrong=1"),
        ("POST", f"/api/jobs/{JOB_ID}/pause"),
    ],
)
def test_what_shows_no_job_leaves_none(method, path):
    audited = Audited()
    audited(method, path)
    assert audited.rows == []


def test_nothing_is_shown_where_no_row_can_be_written():
    audited = Audited(StoreUnavailable("away"))
    answer = audited("GET", f"/api/jobs/{JOB_ID}")
    assert_problem(answer, 503, "database_unavailable")
    assert "parameters" not in answer.text


class Looks:
    """Requests for a page that is always there, at times of the test's own."""

    def __init__(self):
        self.now, self.rows = 0.0, []
        self.audit = ReadAudit(self.page, lambda *row: self.rows.append(row), clock=lambda: self.now)
        self.api = create_api(FakeServices)

    async def page(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def __call__(self, path):
        async def swallow(message):
            assert message

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "app": self.api}
        asyncio.run(self.audit(scope, None, swallow))


def test_a_caller_that_goes_on_looking_leaves_another_row_later():
    look = Looks()
    for look.now in (0.0, AGAIN_SECONDS - 1, AGAIN_SECONDS, AGAIN_SECONDS + 1):
        look(f"/api/jobs/{JOB_ID}")
    assert len(look.rows) == 2


def test_pages_of_the_dashboard_count_too():
    """The list shows parameters of many jobs: its row names none."""
    look = Looks()
    for path in ("/api/ui", "/api/ui/jobs", f"/api/ui/jobs/{JOB_ID}", "/api/ui/queues", "/api/ui/static/app.css"):
        look(path)
    assert [row[0] for row in look.rows] == ["", JOB_ID]


@pytest.mark.parametrize(("text", "wanted"), [("", False), ("false", False), ("0", False), ("true", True), ("1", True)])
def test_the_setting_is_a_switch(text, wanted):
    assert wants_reads({"COREMACHINE_AUDIT_READS": text}) is wanted
    assert wants_reads({}) is False
