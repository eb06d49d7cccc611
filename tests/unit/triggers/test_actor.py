"""Who asked: told by App Service's authentication, and by nobody else."""

import pytest

from triggers.actor import is_authentication_on

from .fakes import JOB_ID, Api

NAME, ID = "X-MS-CLIENT-PRINCIPAL-NAME", "X-MS-CLIENT-PRINCIPAL-ID"


def ask(api: Api, headers: dict[str, str]) -> list:
    api.post("/api/jobs/submit/hello_world", json={}, headers=headers)
    for action in ("cancel", "pause", "resume", "rerun"):
        api.post(f"/api/jobs/{JOB_ID}/{action}", json={}, headers=headers)
    api.post("/api/dead-letters/redrive", json={"ids": [1]}, headers=headers)
    calls = [arguments["actor"] for _, arguments in api.services.calls]
    assert len(calls) == 6
    return calls


@pytest.mark.parametrize(
    ("headers", "actor"),
    [
        ({NAME: "ada@example.com", ID: "7"}, "ada@example.com"),
        ({ID: "7"}, "7"),
        ({NAME: "", ID: "7"}, "7"),
        ({}, None),
        ({NAME: "x" * 400}, "x" * 320),
    ],
)
def test_every_action_is_told_who_asks(headers, actor):
    assert set(ask(Api(trusts_principal=True), headers)) == {actor}


def test_without_authentication_nobody_is_believed():
    assert set(ask(Api(), {NAME: "root@example.com", ID: "7"})) == {None}


@pytest.mark.parametrize(
    ("value", "is_on"), [("True", True), ("true", True), ("1", True), ("False", False), ("", False), ("0", False)]
)
def test_app_service_says_whether_its_authentication_is_on(value, is_on):
    assert is_authentication_on({"WEBSITE_AUTH_ENABLED": value}) is is_on


def test_elsewhere_it_is_off():
    assert is_authentication_on({}) is False
