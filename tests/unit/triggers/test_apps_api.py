"""Apps and queues over HTTP, on fake services."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from core.models.app import AppInstanceRecord, FleetFacts, QueueLoad, WaitingWork
from core.models.message import Kept
from core.operating.postponed_messages import FORGOTTEN_AFTER, PostponedMessages

from .fakes import Api, FakeServices

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WORKER = AppInstanceRecord(
    instance="raster:h:1:a",
    app_name="raster",
    mode="worker",
    version="1.0",
    queues=("raster", "jobs"),
    task_types=("convert", "cut"),
    job_types=("j",),
    slots=8,
    started_at=AT - timedelta(hours=1),
    seen_at=AT - timedelta(seconds=3),
)
GONE = WORKER.model_copy(update={"instance": "raster:h:2:b", "seen_at": AT - timedelta(minutes=5), "release": "r1"})


@dataclass
class AppFakes(FakeServices):
    postponed: PostponedMessages = field(default_factory=lambda: PostponedMessages(lambda: AT))
    queue_names: dict[str, str] = field(default_factory=lambda: {"jobs": "real-jobs", "raster": "real-raster"})

    @property
    def apps(self):
        return self

    def find_missing_queues(self):
        return {"jobs": "expected a queue 'real-jobs', found none"}

    def find_postponed_messages(self):
        return self.postponed.find()

    def read_fleet(self, job_id=None):
        work = WaitingWork("gpu", "train", AT - timedelta(minutes=10))
        return FleetFacts(AT, (WORKER, GONE), (work,))

    def read_queue_loads(self, queues):
        loads = {"raster": QueueLoad(queue="raster", waiting=7, running=2, oldest_at=AT, dead=1)}
        return [loads.get(name) or QueueLoad(queue=name, waiting=0, running=0, dead=0) for name in [*queues, "gpu"]]


@pytest.fixture
def api():
    return Api(AppFakes())


def test_apps_are_told_with_their_state_and_what_nobody_can_run(api):
    body = api.get("/api/apps").json()
    assert [(each["instance"], each["status"]) for each in body["value"]] == [
        ("raster:h:1:a", "live"),
        ("raster:h:2:b", "silent"),
    ]
    assert body["value"][0]["task_types"] == ["convert", "cut"]
    assert [(each["code"], each["severity"]) for each in body["findings"]] == [("queue_without_app", "warning")]


def test_queues_are_told_with_those_that_read_them(api):
    body = api.get("/api/queues").json()
    jobs, raster, gpu = body["value"]
    assert (jobs["queue"], jobs["real_name"], jobs["is_missing"], jobs["consumers"]) == ("jobs", "real-jobs", True, 1)
    assert jobs["task_types"] == []
    assert raster["task_types"] == ["convert", "cut"]
    numbers = ("waiting", "running", "dead", "consumers", "slots")
    assert [raster[name] for name in numbers] == [7, 2, 1, 1, 8]
    assert (raster["apps"], raster["is_missing"]) == (["raster"], False)
    assert (gpu["queue"], gpu["real_name"]) == ("gpu", None)
    assert [each["code"] for each in body["findings"]] == ["queue_without_app"]


@pytest.mark.parametrize("path", ["/api/apps", "/api/queues"])
def test_unknown_query_parameters_are_refused(api, path):
    assert api.get(f"{path}?limit=3").status_code == 400


def test_message_that_went_back_is_found_until_it_is_forgotten():
    """A submission with a mistyped job type is no dead letter for hours, and no row counts it."""
    began = datetime.now(UTC)
    now = [began]
    services = AppFakes(postponed=PostponedMessages(lambda: now[0]))
    reason = "job type: expected one of ['import_orders'], found 'import_order'; did you mean 'import_orders'?"
    services.postponed.note("jobs", reason, Kept(since=began - timedelta(hours=1), times=4), "do this")
    services.postponed.note("jobs", reason, Kept(since=began, times=1), "do this")
    found = Api(services).get("/api/queues").json()["findings"][0]
    assert (found["code"], found["severity"]) == ("message_postponed", "warning")
    assert datetime.fromisoformat(found["since"]) == began - timedelta(hours=1)
    assert "did you mean 'import_orders'?" in found["message"]
    now[0] += FORGOTTEN_AFTER + timedelta(seconds=1)
    assert services.postponed.find() == []
