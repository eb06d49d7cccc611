"""Schedules over HTTP: the real commands on a store in memory."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from core.models.schedule import DueTick, ScheduleFacts, TickRecord
from core.models.view import Page
from core.scheduling.schedules import Schedules
from core.scheduling.ticker import ScheduleTicker
from infrastructure.queries import InvalidCursor

from .fakes import Api, FakeServices

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
BODY = {"job_type": "hello_world", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "parameters": {"n": 3}}


@dataclass
class MemoryStore:
    """One schedule and its ticks, as the repository has them."""

    row: object = None
    ticks: list = field(default_factory=list)
    always_changed: bool = False

    def read_clock(self):
        return NOW

    def find_schedule(self, name):
        return self.row if self.row is not None and self.row.name == name else None

    def put_schedule(self, schedule, skipped, *, seen, actor):
        if self.always_changed:
            return "changed"
        revision = 1 if seen is None else seen.revision + 1
        change = {"action": "created", "actor": actor}
        self.row = schedule.model_copy(update={"revision": revision, "last_change": change})
        return "created" if seen is None else "replaced"

    def pause_schedule(self, name, *, reason, actor):
        if self.find_schedule(name) is None:
            return None
        change = {"action": "paused", "reason": reason, "actor": actor}
        self.row = self.row.model_copy(update={"paused_at": NOW, "last_change": change})
        return True

    def resume_schedule(self, seen, plan, *, reason, actor):
        if not self.always_changed:
            self.row = self.row.model_copy(update={"paused_at": None})
        return not self.always_changed

    def add_manual_tick(self, name, tick, *, actor, hold_seconds):
        return DueTick(name, tick.tick_at, self.row.job_type, tick.parameters, "k", 1, True, actor, NOW)

    def settle_tick(self, tick, answer):
        self.ticks.insert(
            0,
            TickRecord(
                schedule=tick.schedule,
                tick_at=tick.tick_at,
                is_manual=True,
                status=answer.status,
                reason=answer.reason,
                detail=answer.detail,
                job_type=tick.job_type,
                parameters=dict(tick.parameters),
                submission_key="k",
                submitted_job_id=answer.job_id,
                actor=tick.actor,
                created_at=NOW,
            ),
        )
        return True

    def find_tick(self, name, tick_at):
        return self.ticks[0]

    def delete_schedule(self, name, *, actor):
        found, self.row = self.find_schedule(name), None
        return found is not None

    def find_facts(self, name):
        return None if self.find_schedule(name) is None else ScheduleFacts(NOW, self.row)

    def list_schedules(self, *, cursor=None, **_):
        if cursor:
            raise InvalidCursor(cursor)
        return Page((self.row,) if self.row else (), None)

    def list_ticks(self, name, **_):
        return Page(tuple(self.ticks), None)


class Submits:
    """As `Submitter`, on the fake machine."""

    def __init__(self, services):
        self.services = services

    def submit(self, request, *, before_write):
        before_write()
        return self.services.submit_job(request)


@dataclass
class ScheduleFakes(FakeServices):
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def schedules(self):
        return Schedules(self.store, self.registry, ScheduleTicker(self.store, Submits(self)), most_bytes=1000)

    @property
    def schedule_queries(self):
        return self.store


@pytest.fixture
def api():
    return Api(ScheduleFakes())


def put(api, **body):
    return api("PUT", "/api/schedules/nightly", json=BODY | body)


def test_a_schedule_is_written_and_replaced(api):
    first, second = put(api), put(api)
    assert (first.status_code, second.status_code) == (201, 200)
    written = first.json()
    assert written["next_tick_at"] == "2026-01-06T01:30:00Z"
    assert (written["catch_up"], written["overlap"], written["paused"], written["notes"]) == (
        "latest",
        "skip",
        False,
        [],
    )
    assert second.json()["revision"] == 2
    assert api.get("/api/schedules/nightly").json() == {
        name: second.json()[name] for name in second.json() if name != "notes"
    }
    assert [each["name"] for each in api.get("/api/schedules").json()["value"]] == ["nightly"]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 0 31 2 *"}, "cron"),
        ({"cron": 5}, "cron"),
        ({"time_zone": "Berlin"}, "time_zone"),
        ({"catch_up": "never"}, "catch_up"),
        ({"overlap": "maybe"}, "overlap"),
        ({"starts_at": "2026-01-01T00:00:00"}, "starts_at"),
        ({"starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}, "ends_at"),
        ({"parameters": {"n": "{tick:%B}"}}, "parameters.n"),
        ({"parameters": {"n": "many"}}, "parameters.n"),
        ({"parameters": {"m": 1}}, "parameters.m"),
        ({"parameters": []}, "parameters"),
        ({"corn": "* * * * *"}, "corn"),
        ({"description": "AccountKey=" + "a" * 86 + "=="}, "description"),
        ({"job_type": ""}, "job_type"),
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, "starts_at"),
        ({"ends_at": "9999-12-31T23:59:59-12:00"}, "ends_at"),
    ],
)
def test_what_is_wrong_is_named_by_field(api, body, wrong):
    answer = put(api, **body)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [wrong]
    assert api.services.store.row is None


def test_a_job_type_of_another_release_is_noted(api):
    answer = put(api, job_type="of_tomorrow")
    assert answer.status_code == 201
    assert "of_tomorrow" in answer.json()["notes"][0]


def test_an_end_in_the_past_is_noted(api):
    assert "no tick" in put(api, ends_at="2026-01-05T12:00:01Z").json()["notes"][0]


def test_parameters_that_are_too_large_are_refused(api):
    answer = put(api, job_type="of_tomorrow", parameters={"text": "a" * 2000})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameters")


@pytest.mark.parametrize("job_type", ["hello_world", "of_tomorrow"])
def test_parameters_that_cannot_be_stored_are_refused(api, job_type):
    answer = put(api, job_type=job_type, parameters={"text": "\0"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameters")


def test_pause_resume_run_and_delete(api):
    put(api)
    paused = api("POST", "/api/schedules/nightly/pause", json={"reason": "holiday"}).json()
    assert (paused["paused"], paused["last_change"]["reason"]) == (True, "holiday")
    assert api.get("/api/schedules/nightly/explain").json()["findings"][0]["code"] == "paused"
    assert api("POST", "/api/schedules/nightly/resume").json()["paused"] is False
    ran = api("POST", "/api/schedules/nightly/run")
    assert (ran.status_code, ran.json()["status"], ran.json()["manual"]) == (202, "submitted", True)
    (tick,) = api.get("/api/schedules/nightly/ticks").json()["value"]
    assert tick == ran.json()
    assert api("DELETE", "/api/schedules/nightly").json() == {"name": "nightly"}


def test_run_now_says_why_there_is_no_job(api):
    put(api)
    api.services.store.row = api.services.store.row.model_copy(update={"parameters": {"n": "many"}})
    answer = api("POST", "/api/schedules/nightly/run")
    assert (answer.status_code, answer.json()["code"]) == (409, "tick_failed")
    assert "n: expected" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/run"),
        ("GET", "/next"),
        ("GET", "/ticks"),
        ("GET", "/explain"),
    ],
)
def test_an_unknown_schedule_is_a_404(api, method, path):
    answer = api(method, f"/api/schedules/nobody{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_schedule")


def test_the_next_times_are_on_the_zones_clock(api):
    put(api, ends_at=(NOW + timedelta(days=2)).isoformat())
    found = api.get("/api/schedules/nightly/next?count=5").json()["value"]
    assert found == ["2026-01-06T02:30:00+01:00", "2026-01-07T02:30:00+01:00"]
    assert api.get("/api/schedules/nightly/next?count=0").status_code == 400


def test_writers_without_end_are_a_conflict(api):
    put(api)
    api("POST", "/api/schedules/nightly/pause")
    api.services.store.always_changed = True
    for answer in (put(api), api("POST", "/api/schedules/nightly/resume")):
        assert (answer.status_code, answer.json()["code"]) == (409, "schedule_changed")


def test_wrong_queries_are_refused(api):
    assert api.get("/api/schedules?cursor=abc").json()["errors"][0]["field"] == "cursor"
    assert api.get("/api/schedules/nightly/ticks?status=gone").json()["errors"][0]["field"] == "status"
    assert api.get("/api/schedules/a%20b").status_code == 400
