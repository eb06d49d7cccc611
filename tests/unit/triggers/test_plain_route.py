"""The shorter way to an endpoint answers what FastAPI's way does. A function key in the query takes the longer one."""

import asyncio

import fastapi.routing
import pytest

from core.errors import StoreUnavailable
from triggers.api import create_api
from triggers.ports import ServicesNotReady

from .fakes import JOB_ID, Api, FakeServices, client

LONG_WAY = {"code": "a-function-key"}
UNKNOWN_JOB = "cd" * 32


def both_ways(method: str, path: str, *, services=FakeServices, **options):
    params = options.pop("params", {})
    return [Api(services())(method, path, params={**params, **more}, **options) for more in ({}, LONG_WAY)]


def told(response):
    return response.status_code, sorted(response.headers.multi_items()), response.content


@pytest.fixture
def dependencies_solved(monkeypatch):
    """How many requests have taken FastAPI's way."""
    solved = []
    solve = fastapi.routing.solve_dependencies

    async def count(**arguments):
        solved.append(arguments["request"].url.path)
        return await solve(**arguments)

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", count)
    return solved


@pytest.mark.parametrize("content", [b'{"n": 5}', b"", b"[1]", b'{"n": ', b'{"n": 5, "n": 6}', b'{"nn": 5}', b"\xff"])
def test_submission_is_answered_alike(content):
    plain, long = both_ways("POST", "/api/jobs/submit/hello_world", content=content)
    assert told(plain) == told(long)


def test_submission_of_an_unknown_type_is_answered_alike():
    plain, long = both_ways("POST", "/api/jobs/submit/hello_wrld", json={})
    assert told(plain) == told(long)
    assert plain.status_code == 404


@pytest.mark.parametrize(
    ("status", "params"),
    [
        ("processing", {}),
        ("processing", {"wait": "0"}),
        ("completed", {}),
        ("completed", {"wait": "0"}),
        ("completed", {"wait": "30"}),
    ],
)
def test_job_is_answered_alike(status, params):
    plain, long = both_ways(
        "GET", f"/api/jobs/{JOB_ID}", params=params, services=lambda: FakeServices(statuses=[status])
    )
    assert told(plain) == told(long)
    assert plain.status_code == 200


@pytest.mark.parametrize("error", [StoreUnavailable("no database"), ServicesNotReady("no settings"), ValueError("x")])
@pytest.mark.parametrize(("method", "path"), [("GET", f"/api/jobs/{JOB_ID}"), ("POST", "/api/jobs/submit/hello_world")])
def test_errors_are_answered_alike(method, path, error):
    plain, long = both_ways(method, path, services=lambda: FakeServices(failure=error))
    assert told(plain) == told(long)
    assert plain.status_code >= 500


def test_app_that_cannot_work_says_so_before_it_reads_the_body():
    def refuse():
        raise ServicesNotReady("a setting is wrong")

    async def ask():
        async with client(create_api(refuse)) as http:
            return await http.post("/api/jobs/submit/hello_world", content=b"[")

    assert asyncio.run(ask()).json()["code"] == "app_not_ready"


@pytest.mark.parametrize("path", [f"/api/jobs/{JOB_ID}", f"/api/jobs/{JOB_ID}?wait=0", f"/api/jobs/{UNKNOWN_JOB}"])
def test_plain_look_takes_the_short_way(dependencies_solved, path):
    Api().get(path)
    assert dependencies_solved == []


def test_plain_submission_takes_the_short_way(dependencies_solved):
    Api().post("/api/jobs/submit/hello_world", json={})
    assert dependencies_solved == []


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", f"/api/jobs/{JOB_ID}?wait=31", {}),
        ("GET", f"/api/jobs/{JOB_ID}?wait=0.5", {}),
        ("GET", f"/api/jobs/{JOB_ID}?waitt=3", {}),
        ("GET", f"/api/jobs/{JOB_ID}", {"Prefer": "wait=0"}),
        ("GET", "/api/jobs/x", {}),
        ("POST", "/api/jobs/submit/hello_world?force=true", {}),
        ("POST", "/api/jobs/submit/hello_world", {"Idempotency-Key": "a"}),
        ("POST", "/api/jobs/submit/hello_world", {"X-Correlation-Id": "not printable \x7f"}),
    ],
)
def test_whatever_could_be_refused_takes_the_long_way(dependencies_solved, method, path, headers):
    Api()(method, path, headers=headers)
    assert len(dependencies_solved) == 1
