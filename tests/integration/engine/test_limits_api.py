"""Limits as operators meet them: over HTTP, while jobs run, and in what explains a job."""

import re
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from core.models import TaskStatus
from core.operating.explain import explain
from infrastructure.insight import InsightQueries
from infrastructure.limits import LimitRepository
from infrastructure.queries import JobQueries
from tests.unit.triggers.fakes import Api

from .test_janitor import run_to_tasks
from .test_limits import claim, declare, limited, set_limit, take

ODD = "tiles/ä b?c=d#%25:{x}"


@pytest.fixture
def api(rig):
    return Api(SimpleNamespace(limits=LimitRepository(rig.engine.pool), machine=rig.machine))


def put(api, name, **body):
    return api("PUT", f"/api/limits/{quote(name, safe='')}", json=body)


def findings(rig, job_id):
    facts = InsightQueries(rig.engine.pool).get_job_facts(job_id)
    return {finding.code: finding for finding in explain(facts)}


def test_a_raised_limit_lets_what_waits_begin_at_once(api, rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "at_once": 0}])
    job_id = run_to_tasks(rig, n=5)
    answer = put(api, "api", at_once=2, rate="100/min", reason="it is up again").json()
    assert (answer["at_once"], answer["rate"], answer["reserved"], answer["is_edited"]) == (2, "100/min", 2, True)
    rig.queues.run(rig.machine)
    assert rig.job(job_id).status == "completed"
    (row,) = rig.engine.query("select action, reason, detail from app.audit_log")
    assert (row["action"], row["reason"]) == ("set_limit", "it is up again")
    assert row["detail"] == {
        "limit": "api",
        "from": {"at_once": 0},
        "to": {"at_once": 2, "rate_count": 100, "rate_seconds": 60},
    }


def test_a_task_that_waits_for_a_rate_waits_no_longer_when_its_numbers_change(api, rig, monkeypatch):
    """Its message was scheduled by the old rate, up to a minute ahead, and its place was kept until then."""
    declare(monkeypatch, limits=[{"name": "api", "rate": "3/40s"}])
    job_id = run_to_tasks(rig, n=4)
    for _ in range(3):
        assert rig.queues.deliver(rig.machine)
    (pilot,) = [task for task in rig.tasks(job_id, 2) if task["status"] == "pending_retry"]
    assert put(api, "api", rate="4/40s").json()["reserved"] == 1
    (task,) = [task for task in rig.tasks(job_id, 2) if task["task_id"] == pilot["task_id"]]
    assert (task["status"], task["held_for"]) == ("pending_retry", None)
    assert task["due_at"] <= datetime.now(UTC)
    while rig.queues.deliver(rig.machine):
        pass
    assert rig.job(job_id).status == "completed"


def test_an_odd_name_is_a_name(api, rig):
    assert put(api, ODD, at_once=1).json()["name"] == ODD
    ref = limited(rig.engine, 2, ODD)
    assert len(take(rig.engine, ref)) == 1
    assert api.get(f"/api/limits/{quote(ODD, safe='')}").json()["reserved"] == 1
    assert api("DELETE", f"/api/limits/{quote(ODD, safe='')}").json() == {"name": ODD}
    assert api("DELETE", f"/api/limits/{quote(ODD, safe='')}").status_code == 404


def test_limits_are_listed_with_who_holds_them(api, rig):
    ref = limited(rig.engine, 5, {"name": "b", "at_once": 2})
    for task_id in take(rig.engine, ref):
        claim(rig.engine, ref, task_id)
    set_limit(rig.engine, "a", 1)
    first = api.get("/api/limits?limit=1").json()
    assert [each["name"] for each in first["value"]] == ["a"]
    (second,) = api.get("/api/limits", params={"limit": 1, "cursor": first["next_cursor"]}).json()["value"]
    assert second["holders"] == [{"job_id": ref.job_id, "run": 1, "stage": 1, "count": 2}]
    assert (second["held"], second["waiting"], second["at_once"]) == (2, 1, 2)
    assert api.get("/api/limits/none").status_code == 404


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("api", {"at_once": -1}),
        ("api", {"at_once": "4"}),
        ("api", {"rate": "many"}),
        ("api", {"rate": "1/0s"}),
        ("api", {"most": 4}),
        (" api", {"at_once": 1}),
        ("a\tb", {"at_once": 1}),
        ("a" * 201, {"at_once": 1}),
    ],
)
def test_what_is_no_limit_is_refused(api, name, body):
    answer = put(api, name, **body)
    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_explain_names_the_limit_its_numbers_and_who_holds_it(rig):
    other, ref = limited(rig.engine, 3, {"name": "api", "at_once": 2}), limited(rig.engine, 4, "api")
    for task_id in take(rig.engine, other):
        claim(rig.engine, other, task_id)
    found = findings(rig, ref.job_id)["waits_for_limit"]
    assert found.message == (
        f"waiting for the limit api (2 at once): 4 tasks of stage 1; held by job {other.job_id[:12]} stage 1 (2)"
    )
    assert found.advice == "for other numbers, at once and for all jobs: coremachine limits set api --at-once N"
    rig.engine.query("select app.set_limit('api', 0, null, null, 'maintenance', 'kim')")
    closed = findings(rig, ref.job_id)["waits_for_limit"]
    assert closed.severity == "warning"
    assert re.search(r"; it lets none begin, as was chosen by kim \S+Z \(\d+ s ago\): maintenance$", closed.message)
    assert (closed.advice or "").endswith("--at-once N; for those that stages declare: coremachine limits forget api")
    set_limit(rig.engine, "api", 5)
    turn = findings(rig, ref.job_id)["waits_for_turn"]
    assert "waiting for its turn at the limit api: 4 tasks of stage 1; 1 other stage waits there" in turn.message
    assert "by their priority" in (turn.advice or "")


def test_a_stage_that_waits_alone_for_its_turn_waits_for_no_other(rig):
    """It was one of the stages that wait there, and was advised to change its priority."""
    ref = limited(rig.engine, 3, {"name": "api", "at_once": 1})
    for task_id in take(rig.engine, ref):
        claim(rig.engine, ref, task_id)
    set_limit(rig.engine, "api", 5)
    turn = findings(rig, ref.job_id)["waits_for_turn"]
    assert "2 tasks of stage 1; no other stage waits there, and there is room" in turn.message
    assert turn.advice is None


def test_explain_says_when_a_rate_lets_the_next_begin(rig, monkeypatch):
    declare(monkeypatch, limits=[{"name": "api", "rate": "2/30s"}])
    job_id = run_to_tasks(rig, n=4)
    for _ in range(2):
        assert rig.queues.deliver(rig.machine)
    found = findings(rig, job_id)
    assert set(found) == {"waits_for_limit"}
    (pilot,) = [task for task in rig.tasks(job_id, 2) if task["status"] == "pending_retry"]
    assert found["waits_for_limit"].next_at == pilot["due_at"]
    listed = JobQueries(rig.engine.pool).list_tasks(job_id, statuses=[TaskStatus.PENDING_RETRY])
    assert [task.held_for for task in listed.items] == [pilot["held_for"]] == ["api"]
    assert "(2/30s): 2 tasks of stage 2" in found["waits_for_limit"].message
    assert "next start by the rate" in found["waits_for_limit"].message
