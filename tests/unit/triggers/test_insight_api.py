"""Failures, dead letters and explanations over HTTP, on fake services."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from core.models import JobStatus
from core.models.dead_letter import (
    DeadLetterDetail,
    DeadLetterGroup,
    DeadLetterSummary,
    FailedTaskSummary,
    FailureGroup,
    Selection,
)
from core.models.insight import JobFacts
from core.models.view import Page
from core.operating.dead_letters import RedriveItem, RedriveReport
from infrastructure.queries import InvalidCursor, JobNotFound

from .fakes import JOB_ID, Api, FakeServices

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FINGERPRINT = "0123456789abcdef"
LETTER = DeadLetterDetail(
    dead_letter_id=7,
    queue="tasks",
    message_id="m",
    sequence_number=2**40,
    kind="task",
    job_id=JOB_ID,
    run=1,
    stage=2,
    task_ids=("a",),
    reason="TTLExpiredException",
    description=None,
    fingerprint=FINGERPRINT,
    delivery_count=1,
    body_size=3,
    enqueued_at=AT,
    received_at=AT,
    resolved_at=None,
    resolution=None,
    correlation_id=None,
    body="{}",
)
SUMMARY = DeadLetterSummary(**{name: getattr(LETTER, name) for name in DeadLetterSummary.model_fields})
LETTERS = DeadLetterGroup(
    fingerprint=FINGERPRINT,
    reason="TTLExpiredException",
    description=None,
    count=3,
    queues=("tasks",),
    job_count=1,
    first_at=AT,
    last_at=AT,
    examples=(7,),
)
FAILURE = FailedTaskSummary(
    job_id=JOB_ID,
    job_type="t",
    run=1,
    stage=2,
    task_id="a",
    task_index=0,
    task_type="x",
    name=None,
    attempt=2,
    fingerprint=FINGERPRINT,
    error={"type": "E"},
    finished_at=AT,
)
FAILURES = FailureGroup(
    fingerprint=FINGERPRINT,
    error_type="E",
    message="m",
    retryable=True,
    count=3,
    job_count=1,
    job_types=("t",),
    task_types=("x",),
    stages=(2,),
    first_at=AT,
    last_at=AT,
    examples=(),
)


@dataclass
class InsightFakes(FakeServices):
    asked: list[tuple[str, Any]] = field(default_factory=list)
    missing_queues: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self):
        return self

    dead_letters = dead_letter_queries = insight = failures

    def _ask(self, name: str, arguments: dict[str, Any], answer: Callable[[], Any]) -> Any:
        self.asked.append((name, {key: value for key, value in arguments.items() if value is not None}))
        return answer()

    def group_failures(self, **arguments):
        return self._ask(
            "group_failures", arguments, lambda: [FAILURES] if arguments["job_id"] in {None, JOB_ID} else []
        )

    def list_failures(self, **arguments):
        return self._ask("list_failures", arguments, lambda: Page((FAILURE,), "next"))

    def list_dead_letters(self, **arguments):
        if arguments["cursor"] == "bad":
            raise InvalidCursor("bad")
        return self._ask("list_dead_letters", arguments, lambda: Page((SUMMARY,), None))

    def group_dead_letters(self, **arguments):
        return self._ask("group_dead_letters", arguments, lambda: [LETTERS])

    def find_dead_letter(self, dead_letter_id):
        return LETTER if dead_letter_id == LETTER.dead_letter_id else None

    def redrive(self, selection, *, dry_run, limit, actor=None):
        outcome = "to_be_sent" if dry_run else "sent"
        report = RedriveReport((RedriveItem(LETTER, outcome, "as m"),), 4)
        return self._ask("redrive", {"selection": selection, "dry_run": dry_run, "limit": limit}, lambda: report)

    def find_unnamed_queues(self, queues):
        return tuple(queue for queue in queues if queue not in {"jobs", "tasks", "raster"})

    def find_missing_queues(self):
        return self.missing_queues

    def get_job_facts(self, job_id):
        if job_id != JOB_ID:
            raise JobNotFound(job_id)
        return JobFacts(
            now=AT,
            job_id=JOB_ID,
            status=JobStatus.QUEUED,
            run=1,
            stage=1,
            total_stages=2,
            created_at=AT,
            updated_at=AT,
        )


@pytest.fixture
def api():
    return Api(InsightFakes())


def test_explanation_has_findings_with_advice(api):
    answer = api.get(f"/api/jobs/{JOB_ID}/explain")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["at"], len(body["findings"])) == ("queued", "2026-01-02T03:04:05Z", 1)
    finding = body["findings"][0]
    assert (finding["code"], finding["severity"], finding["since"]) == (
        "step_not_announced",
        "info",
        "2026-01-02T03:04:05Z",
    )
    assert finding["advice"] == "the janitor sends it at its next sweep"
    assert api.get(f"/api/jobs/{'cd' * 32}/explain").json()["code"] == "unknown_job"


def test_explanation_names_a_missing_queue_and_what_to_do():
    api = Api(InsightFakes(missing_queues={"jobs": "expected a queue, found none; create it"}))
    first, second = api.get(f"/api/jobs/{JOB_ID}/explain").json()["findings"]
    assert (first["code"], first["severity"]) == ("queue_missing", "error")
    assert first["advice"] == "expected a queue, found none; create it; the janitor then sends what waits"
    assert second["code"] == "step_not_announced"


def test_failures_are_grouped_unless_asked_otherwise(api):
    grouped = api.get(f"/api/failures?job_id={JOB_ID}&limit=5").json()
    assert (grouped["value"][0]["count"], "next_cursor" in grouped) == (3, False)
    each = api.get(f"/api/failures?group=false&fingerprint={FINGERPRINT}").json()
    assert (each["value"][0]["task_id"], each["next_cursor"]) == ("a", "next")
    assert api.services.asked == [
        ("group_failures", {"job_id": JOB_ID, "limit": 5}),
        ("list_failures", {"fingerprint": FINGERPRINT, "limit": 100}),
    ]


def test_failures_of_an_unknown_job_are_a_404(api):
    assert api.get(f"/api/failures?job_id={'cd' * 32}").json()["code"] == "unknown_job"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("fingerprint=xyz&group=false", "fingerprint"),
        (f"fingerprint={FINGERPRINT}", "group=false"),
        ("jobid=1", "job_id"),
        ("job_id=1", "64 hexadecimal digits"),
    ],
)
def test_wrong_queries_for_failures_are_explained(api, query, found):
    answer = api.get(f"/api/failures?{query}")
    assert answer.status_code == 400
    assert found in answer.text


def test_dead_message_is_shown_without_credentials(api, monkeypatch):
    """A redrive reads it from the database, as it came."""
    body = '{"parameters": {"db": "postgresql://u:hush@db/x", "password": "hush", "n": 3}}'
    letter = LETTER.model_copy(update={"body": body, "description": "found 'AccountKey=hush'"})
    monkeypatch.setattr(InsightFakes, "find_dead_letter", lambda _, _id: letter)
    shown = api.get("/api/dead-letters/7").json()
    assert shown["body"] == '{"parameters": {"db": "postgresql://u:***@db/x", "password": "***", "n": 3}}'
    assert shown["description"] == "found 'AccountKey=***'"


def test_dead_letters_are_listed_open_ones_first_of_all(api):
    listed = api.get("/api/dead-letters?queue=tasks").json()["value"][0]
    assert (listed["dead_letter_id"], listed["sequence_number"], "body" in listed) == (7, 2**40, False)
    assert api.get("/api/dead-letters?resolved=all").status_code == 200
    assert api.get("/api/dead-letters?resolved=true").status_code == 200
    assert api.get("/api/dead-letters?group=true").json()["value"][0]["count"] == 3
    assert api.services.asked == [
        ("list_dead_letters", {"queue": "tasks", "resolved": False, "limit": 100}),
        ("list_dead_letters", {"limit": 100}),
        ("list_dead_letters", {"resolved": True, "limit": 100}),
        ("group_dead_letters", {"resolved": False}),
    ]
    assert api.get("/api/dead-letters?cursor=bad").status_code == 400


def test_one_dead_letter_has_its_body(api):
    assert api.get("/api/dead-letters/7").json()["body"] == "{}"
    missing = api.get("/api/dead-letters/8")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_dead_letter")


def test_redrive_passes_its_selection_on(api):
    answer = api.post("/api/dead-letters/redrive", json={"ids": [7], "dry_run": True, "limit": 10})
    assert answer.json() == {
        "dry_run": True,
        "counts": {"to_be_sent": 1},
        "remaining": 4,
        "value": [{"dead_letter_id": 7, "queue": "tasks", "job_id": JOB_ID, "outcome": "to_be_sent", "detail": "as m"}],
    }
    api.post("/api/dead-letters/redrive", json={"queue": "tasks", "fingerprint": FINGERPRINT, "job_id": JOB_ID})
    assert [arguments for _, arguments in api.services.asked] == [
        {"selection": Selection(ids=(7,)), "dry_run": True, "limit": 10},
        {
            "selection": Selection(fingerprint=FINGERPRINT, queue="tasks", job_id=JOB_ID),
            "dry_run": False,
            "limit": 1000,
        },
    ]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, "at least one of ids, fingerprint, queue and job_id"),
        ({"dry_run": True}, "at least one of"),
        ({"id": [1]}, "did you mean 'ids'"),
        ({"ids": ["x"]}, "ids.0"),
        ({"job_id": "1"}, "64 hexadecimal digits"),
    ],
)
def test_redrive_of_nothing_in_particular_is_refused(api, body, found):
    answer = api.post("/api/dead-letters/redrive", json=body)
    assert answer.status_code == 400
    assert found in answer.text
    assert api.services.asked == []
