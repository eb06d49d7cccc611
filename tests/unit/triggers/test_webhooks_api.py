"""Webhooks over HTTP: the real commands on a store in memory."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from core.models.view import Page
from core.models.webhook import DeliveryRecord, DeliveryStatus
from core.webhooks.signing import WebhookSecrets
from core.webhooks.targets import TargetRules
from core.webhooks.webhooks import Webhooks

from .fakes import Api, FakeServices
from .test_api import assert_problem

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
ID = "0b0c3f0e-0000-4000-8000-000000000001"
BODY = {"url": "https://example.org/hook", "events": ["job.failed", "job.completed"]}
DELIVERY = DeliveryRecord(
    webhook="team",
    delivery_id=ID,
    event="job.failed",
    subject="ab" * 32,
    data={"run": 1},
    status=DeliveryStatus.DEAD,
    attempt=9,
    due_at=NOW,
    http_status=500,
    reason="expected an answer from 200 to 299, found 500; this was attempt 9, the last one",
    created_at=NOW,
    settled_at=NOW,
)


@dataclass
class MemoryStore:
    """One webhook and one delivery, as the repository has them."""

    row: object = None
    delivery: DeliveryRecord = DELIVERY

    def put_webhook(self, webhook, *, seed, actor):
        is_new = self.row is None
        kept = None if is_new else self.row.secret_seed
        seed = None if webhook.secret_setting else kept or seed
        self.row = webhook.model_copy(update={"secret_seed": seed, "last_change": {"actor": actor}})
        return is_new, seed

    def rotate_secret(self, name, seed, *, both_seconds, actor):
        return self.find_webhook(name) is not None and self.row.secret_seed is not None

    def find_webhook(self, name):
        return self.row if self.row is not None and self.row.name == name else None

    def delete_webhook(self, name, *, actor):
        found, self.row = self.find_webhook(name), None
        return found is not None

    def add_test_delivery(self, name, *, actor):
        return ID if self.find_webhook(name) else None

    def redeliver(self, name, delivery_id, *, actor):
        if self.find_delivery(name, delivery_id) is None:
            return None
        self.delivery = self.delivery.model_copy(update={"status": DeliveryStatus.PENDING})
        return DeliveryStatus.DEAD

    def list_webhooks(self, **_):
        return Page((self.row,) if self.row else (), None)

    def list_deliveries(self, name, *, id_begins=None, statuses=(), **_):
        if not self.delivery.delivery_id.startswith(id_begins or ""):
            return Page((), None)
        wanted = self.find_webhook(name) is not None and self.delivery.status in (statuses or DeliveryStatus)
        return Page((self.delivery,) if wanted else (), None)

    def find_delivery(self, name, delivery_id):
        return self.delivery if (name, delivery_id) == ("team", ID) else None


@dataclass
class WebhookFakes(FakeServices):
    store: MemoryStore = field(default_factory=MemoryStore)
    key: str | None = "k" * 32

    @property
    def webhooks(self):
        settings = {"COREMACHINE_WEBHOOK_URL_TEAM": "https://example.org/T0/secret"}
        return Webhooks(self.store, WebhookSecrets(self.key, settings), TargetRules())

    @property
    def webhook_queries(self):
        return self.store


@pytest.fixture
def api():
    return Api(WebhookFakes())


def put(api, **body):
    return api("PUT", "/api/webhooks/team", json=BODY | body)


def test_a_webhook_is_written_and_its_secret_is_shown_once(api):
    first, second = put(api), put(api, job_types=["flood_*"], tags={"team": "geo"}, paused=True)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["secret"].startswith("whsec_")
    assert second.json()["secret"] is None
    read = api.get("/api/webhooks/team")
    found = read.json()
    assert (found["events"], found["job_types"], found["tags"]) == (BODY["events"], ["flood_*"], {"team": "geo"})
    assert (found["paused"], found["failed_tasks"]) == (True, 1)
    assert api.get("/api/webhooks").json()["value"] == [found]
    assert "seed" not in read.text
    assert first.json()["secret"] not in read.text


@pytest.mark.parametrize(
    ("body", "name", "expected"),
    [
        ({"events": ["job.faild"]}, "events.0", "job.failed"),
        ({"events": []}, "events", "at least 1"),
        ({"events": ["webhook.test"]}, "events.0", "one of job.completed"),
        ({"url": "http://example.org/"}, "url", "expected https"),
        ({"url": "https://10.0.0.1/"}, "url", "no public address"),
        ({"url": "https://169.254.169.254/metadata"}, "url", "never allowed"),
        ({"url": "example.org"}, "url", "https://example.org/hook"),
        ({"url": None}, "url", "url_setting"),
        ({"url_setting": "COREMACHINE_WEBHOOK_URL_TEAM"}, "url", "both"),
        ({"url": None, "url_setting": "COREMACHINE_DATABASE_URL"}, "url_setting", "COREMACHINE_WEBHOOK_URL_"),
        ({"secret_setting": "PATH"}, "secret_setting", "COREMACHINE_WEBHOOK_SECRET_"),
        ({"failed_tasks": 0}, "failed_tasks", "greater than or equal to 1"),
        ({"event": []}, "event", "events"),
    ],
)
def test_what_cannot_be_used_is_named(api, body, name, expected):
    answer = put(api, **body)
    problem = assert_problem(answer, 400, "invalid_request")
    assert problem["errors"][0]["field"] == name
    assert expected in answer.text
    assert api.services.store.row is None


def test_an_address_with_a_credential_belongs_into_a_setting(api):
    text = "https://prod-1.logic.azure.com/workflows/x?sig=" + "a1B2" * 11
    answer = put(api, url=text)
    assert_problem(answer, 400, "invalid_request")
    assert "url_setting" in answer.text
    assert "a1B2a1B2" not in answer.text
    named = put(api, url=None, url_setting="COREMACHINE_WEBHOOK_URL_TEAM")
    assert (named.status_code, named.json()["url"]) == (201, None)
    assert "secret" not in named.json()["url_setting"].lower()
    assert "a1B2" not in named.text


@pytest.mark.parametrize("body", [{}, {"secret_setting": "COREMACHINE_WEBHOOK_SECRET_TEAM"}])
def test_a_setting_that_is_missing_is_named_before_anything_is_written(body):
    api = Api(WebhookFakes(key=None))
    problem = assert_problem(put(api, **body), 409, "webhook_setting")
    assert (body.get("secret_setting") or "COREMACHINE_WEBHOOK_KEY") in problem["detail"]
    assert api.services.store.row is None


def test_another_secret_is_shown_once(api):
    former = put(api).json()["secret"]
    answer = api.post("/api/webhooks/team/rotate-secret").json()
    assert answer["secret"].startswith("whsec_")
    assert answer["secret"] != former
    api.services.store.row = api.services.store.row.model_copy(update={"secret_seed": None, "secret_setting": "S"})
    assert_problem(api.post("/api/webhooks/team/rotate-secret"), 409, "secret_in_setting")


def test_deliveries_are_listed_and_sent_again(api):
    put(api)
    (found,) = api.get("/api/webhooks/team/deliveries", params={"status": "dead"}).json()["value"]
    assert (found["id"], found["status"], found["attempts"], found["http_status"]) == (ID, "dead", 9, 500)
    assert found["due_at"] is None
    assert api.get("/api/webhooks/team/deliveries", params={"status": "delivered"}).json()["value"] == []
    for begins, count in ((ID[:12], 1), ("f", 0)):
        listed = api.get("/api/webhooks/team/deliveries", params={"delivery_id": begins})
        assert len(listed.json()["value"]) == count
    assert api.get("/api/webhooks/team/deliveries", params={"delivery_id": "no-id"}).status_code == 400
    again = api.post(f"/api/webhooks/team/deliveries/{ID}/redeliver")
    assert (again.status_code, again.json()["status"]) == (202, "pending")
    assert api.post("/api/webhooks/team/test").status_code == 202


def test_what_is_not_there_is_not_found(api):
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
    ):
        assert_problem(api(method, f"/api/webhooks/other{path}"), 404, "unknown_webhook")
    put(api)
    unknown = f"/api/webhooks/team/deliveries/{ID[:-1]}2/redeliver"
    assert_problem(api.post(unknown), 404, "unknown_delivery")
    assert api("DELETE", "/api/webhooks/team").json() == {"name": "team"}


def test_names_of_events_are_listed_once(api):
    """Both as what was expected and as a hint."""
    (problem,) = assert_problem(put(api, events=["xyz"]), 400, "invalid_request")["errors"]
    assert problem["message"].count("job.completed,") == 1
    assert "known names" not in problem["message"]
