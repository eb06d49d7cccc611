"""Roles: who may do what, by keys and by what Entra says; and that nobody may anything by mistake."""

import asyncio
import base64
import json
import logging

import pytest

from core.errors import StoreUnavailable
from core.safety.roles import Role, digest_of, read_role_keys
from tests.unit.triggers.fakes import JOB_ID, FakeServices, client
from tests.unit.triggers.test_api import assert_problem
from triggers.access import KEY_COOKIE, AccessRules, cookie_of_key, role_needed
from triggers.api import create_api

KEYS = {role: f"key-of-{role.word}" for role in Role}
SETTING = ",".join(f"{role.word}:{role.word}-bot={digest_of(key)}" for role, key in KEYS.items())


def principal(*roles, kind="roles"):
    claims = [{"typ": "name", "val": "kim"}, *({"typ": kind, "val": role} for role in roles)]
    return base64.b64encode(json.dumps({"auth_typ": "aad", "claims": claims}).encode()).decode()


class Guarded:
    """The API behind the gate; each call is a whole request."""

    def __init__(self, environment, *, trusts=False):
        self.services = FakeServices()
        rules = AccessRules.read(environment, trusts_principal=trusts)
        self.app = create_api(lambda: self.services, trusts_principal=trusts, access=rules)

    def __call__(self, method, path, **options):
        async def ask():
            async with client(self.app) as http:
                return await http.request(method, path, **options)

        return asyncio.run(ask())

    def with_key(self, key, method, path, **options):
        return self(method, path, headers={"x-coremachine-key": key}, **options)


@pytest.fixture
def guarded():
    return Guarded({"COREMACHINE_ROLE_KEYS": SETTING})


CALLS = [
    ("GET", "/api/jobs", Role.VIEWER),
    ("GET", f"/api/jobs/{JOB_ID}", Role.VIEWER),
    ("GET", "/api/docs", Role.VIEWER),
    ("POST", "/api/jobs/submit/hello_world", Role.SUBMITTER),
    ("POST", "/api/durable/orchestrators/hello_world", Role.SUBMITTER),
    ("POST", f"/api/jobs/{JOB_ID}/cancel", Role.OPERATOR),
    ("POST", f"/api/jobs/{JOB_ID}/pause", Role.OPERATOR),
    ("POST", f"/api/durable/instances/{JOB_ID}/terminate", Role.OPERATOR),
]


class TestKeys:
    @pytest.mark.parametrize(("method", "path", "needed"), CALLS)
    def test_each_role_may_what_it_and_lower_ones_may(self, guarded, method, path, needed):
        for role, key in KEYS.items():
            answer = guarded.with_key(key, method, path)
            if role >= needed:
                assert answer.is_success, answer.text
            else:
                assert_problem(answer, 403, "role_too_low")

    def test_without_a_key_or_with_a_wrong_one_nothing_is_answered(self, guarded):
        for headers in ({}, {"x-coremachine-key": "wrong"}, {"x-coremachine-key": SETTING.split("=")[1][:64]}):
            answer = guarded("GET", "/api/jobs", headers=headers)
            assert_problem(answer, 401, "no_role")
            assert answer.headers["www-authenticate"] == "CoreMachineKey"
        assert guarded.services.calls == []

    def test_probes_need_none(self, guarded):
        assert guarded("GET", "/api/livez").status_code == 200
        assert guarded("GET", "/api/readyz").status_code == 200

    def test_name_of_the_key_is_the_actor(self, guarded):
        guarded.with_key(KEYS[Role.OPERATOR], "POST", f"/api/jobs/{JOB_ID}/pause")
        assert guarded.services.calls[-1][1]["actor"] == "operator-bot"

    def test_two_keys_are_none(self, guarded):
        headers = [("x-coremachine-key", KEYS[Role.ADMIN]), ("x-coremachine-key", KEYS[Role.ADMIN])]
        assert_problem(guarded("GET", "/api/jobs", headers=headers), 401, "no_role")

    def test_setting_holds_no_key(self):
        assert not any(key in SETTING for key in KEYS.values())

    @pytest.mark.parametrize("text", ["operator=key-of-operator", "root=" + "a" * 64, "x", f"{SETTING},{SETTING}"])
    def test_setting_that_cannot_be_read_lets_nobody_in(self, text):
        guarded = Guarded({"COREMACHINE_ROLE_KEYS": text})
        assert_problem(guarded.with_key(KEYS[Role.ADMIN], "GET", "/api/jobs"), 401, "no_role")
        _, problems = read_role_keys(text)
        assert problems
        assert "key-of-operator" not in str(problems)


class TestEntra:
    def test_app_roles_count_where_app_service_vouches_for_them(self):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=True)
        headers = {"x-ms-client-principal": principal("CoreMachine.Viewer", "CoreMachine.Operator")}
        assert guarded("POST", f"/api/jobs/{JOB_ID}/pause", headers=headers).status_code == 200
        headers = {"x-ms-client-principal": principal("CoreMachine.Viewer")}
        assert_problem(guarded("POST", f"/api/jobs/{JOB_ID}/pause", headers=headers), 403, "role_too_low")

    def test_header_that_a_client_wrote_itself_counts_for_nothing(self):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=False)
        headers = {"x-ms-client-principal": principal("CoreMachine.Admin")}
        assert_problem(guarded("GET", "/api/jobs", headers=headers), 401, "no_role")

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "no base64!",
            base64.b64encode(b"[]").decode(),
            base64.b64encode(b'{"claims": [1]}').decode(),
            principal("Admin.CoreMachine"),
            principal("admin", kind="name"),
        ],
    )
    def test_claims_that_name_no_role_give_none(self, value):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=True)
        assert_problem(guarded("GET", "/api/jobs", headers={"x-ms-client-principal": value}), 401, "no_role")

    def test_value_that_is_no_switch_lets_nobody_in(self):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "yes please"}, trusts=True)
        headers = {"x-ms-client-principal": principal("admin")}
        assert_problem(guarded("GET", "/api/jobs", headers=headers), 401, "no_role")


def test_without_the_settings_there_are_no_roles():
    guarded = Guarded({})
    assert guarded("POST", f"/api/jobs/{JOB_ID}/pause").status_code == 200


def test_each_endpoint_that_changes_something_needs_more_than_a_viewer():
    """One that no rule names needs the highest role, so that a new one is not open by mistake."""
    paths = Guarded({})("GET", "/api/openapi.json").json()["paths"]
    changes = [(method.upper(), path) for path, item in paths.items() for method in item if method != "get"]
    assert len(changes) > 15
    for method, path in changes:
        needed = role_needed(method, path.replace("{job_id}", JOB_ID).replace("{name}", "nightly"))
        assert needed is not None
        assert needed > Role.VIEWER, path
    assert role_needed("POST", "/api/of/tomorrow") is Role.ADMIN
    assert role_needed("DELETE", f"/api/jobs/{JOB_ID}") is Role.ADMIN
    assert role_needed("POST", f"/api/jobs/{JOB_ID}/hold") is Role.ADMIN
    assert role_needed("GET", "/api/audit") is Role.OPERATOR


def test_no_key_is_logged(guarded, caplog):
    caplog.set_level(logging.DEBUG)
    guarded.with_key("a-secret-key", "GET", "/api/jobs")
    assert "a-secret-key" not in caplog.text


OTHER_ID = "cd" * 32
LIMITED = {
    "look": "viewer@hello_*",
    "submit": "submitter@hello_*|flood_*",
    "operate": "operator@hello_world",
    "other": "admin@flood_*",
}


@pytest.fixture
def limited():
    setting = ",".join(f"{role}:{name}={digest_of(name)}" for name, role in LIMITED.items())
    return Guarded({"COREMACHINE_ROLE_KEYS": setting})


class TestRolesForSomeJobTypes:
    @pytest.mark.parametrize(("method", "path", "needed"), CALLS)
    def test_a_role_counts_for_its_types_alone(self, limited, method, path, needed):
        for name, role in (("look", Role.VIEWER), ("submit", Role.SUBMITTER), ("operate", Role.OPERATOR)):
            answer = limited.with_key(name, method, path)
            if path == "/api/docs":
                assert_problem(answer, 403, "role_too_low")
            elif role >= needed:
                assert answer.is_success, answer.text
            else:
                assert_problem(answer, 403, "role_too_low")

    @pytest.mark.parametrize("path", ["", "/tasks", "/events", "/poll", "/logs", "/runs", "/explain"])
    def test_a_job_of_another_type_is_answered_as_one_that_is_not_there(self, limited, path):
        there = limited.with_key("other", "GET", f"/api/jobs/{JOB_ID}{path}")
        missing = limited.with_key("other", "GET", f"/api/jobs/{OTHER_ID}{path}")
        assert_problem(there, 404, "unknown_job")
        assert there.text.replace(JOB_ID, OTHER_ID) == missing.text

    @pytest.mark.parametrize("action", ["cancel", "pause", "resume", "rerun", "hold", "release"])
    def test_nobody_acts_on_a_job_of_another_type(self, limited, action):
        assert_problem(limited.with_key("other", "POST", f"/api/jobs/{JOB_ID}/{action}"), 404, "unknown_job")
        cookie = {"cookie": f"{KEY_COOKIE}={cookie_of_key('other')}"}
        assert limited("POST", f"/api/ui/jobs/{JOB_ID}/{action}", headers=cookie).status_code == 404
        assert {name for name, _ in limited.services.calls} == {"find_job_type"}

    def test_other_addresses_of_a_job_are_guarded_too(self, limited):
        for method, path in (
            ("DELETE", f"/api/jobs/{JOB_ID}"),
            ("GET", f"/api/operations/{JOB_ID}"),
            ("GET", f"/api/durable/instances/{JOB_ID}"),
            ("POST", f"/api/durable/instances/{JOB_ID}/terminate"),
        ):
            assert_problem(limited.with_key("other", method, path), 404, "unknown_job")
            assert limited.with_key("look", "GET", f"/api/operations/{JOB_ID}").is_success

    def test_submissions_of_another_type_are_refused_whether_it_is_there_or_not(self, limited):
        for path in ("/api/jobs/submit/hello_world", "/api/jobs/submit/nothing", "/api/durable/orchestrators/nothing"):
            assert_problem(limited.with_key("other", "POST", path), 403, "role_too_low")

    def test_each_item_of_a_batch_needs_the_role(self, limited):
        jobs = [{"job_type": "hello_world", "parameters": {"n": 1}}, {"job_type": "secret", "parameters": {}}]
        answer = limited.with_key("submit", "POST", "/api/jobs/submit:batch", json={"jobs": jobs})
        found = answer.json()["value"]
        assert [(each["status"], (each["problem"] or {}).get("code")) for each in found] == [
            (202, None),
            (403, "role_too_low"),
        ]
        assert_problem(
            limited.with_key("look", "POST", "/api/jobs/submit:batch", json={"jobs": jobs}), 403, "role_too_low"
        )

    def test_lists_leave_out_what_one_may_not_see(self, limited, guarded):
        limited.with_key("submit", "GET", "/api/jobs")
        guarded.with_key(KEYS[Role.VIEWER], "GET", "/api/jobs")
        assert [api.services.calls[-1][1]["wanted"].visible_types for api in (limited, guarded)] == [
            ("hello_*", "flood_*"),
            None,
        ]
        types = [limited.with_key(name, "GET", "/api/job-types").json()["value"] for name in ("look", "other")]
        assert [[each["job_type"] for each in found] for found in types] == [["hello_world"], []]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/api/audit"),
            ("GET", "/api/failures"),
            ("GET", "/api/dead-letters"),
            ("GET", "/api/apps"),
            ("GET", "/api/queues"),
            ("GET", "/api/schedules"),
            ("GET", "/api/webhooks"),
            ("GET", "/api/openapi.json"),
            ("GET", "/api/ui/jobs"),
            ("POST", "/api/jobs/bulk"),
            ("PUT", "/api/schedules/nightly"),
            ("PUT", "/api/webhooks/team"),
            ("POST", "/api/dead-letters/redrive"),
        ],
    )
    def test_all_else_needs_a_role_for_everything(self, limited, method, path):
        for name in LIMITED:
            assert limited.with_key(name, method, path).status_code == 403

    def test_roles_of_entra_may_be_for_some_types_and_all_of_them_count(self):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=True)
        roles = ["CoreMachine.Viewer", "CoreMachine.Operator@hello_*", "Submitter@x y"]
        headers = {"x-ms-client-principal": principal(*roles)}
        assert guarded("POST", f"/api/jobs/{JOB_ID}/cancel", headers=headers).is_success
        assert_problem(guarded("POST", "/api/jobs/submit/flood", headers=headers), 403, "role_too_low")
        assert guarded("GET", "/api/docs", headers=headers).is_success
        assert guarded.services.calls[0] == ("find_job_type", {"job_id": JOB_ID})

    def test_a_database_that_is_away_is_answered_as_elsewhere(self, limited):
        limited.services.failure = StoreUnavailable("away")
        assert_problem(limited.with_key("look", "GET", f"/api/jobs/{JOB_ID}"), 503, "database_unavailable")

    @pytest.mark.parametrize("role", ["viewer@", "viewer@a||b", "viewer@a b", "viewer@%", "boss@a"])
    def test_a_role_that_cannot_be_read_lets_nobody_in(self, role):
        _, problems = read_role_keys(f"{role}={digest_of('k')}")
        assert len(problems) == 1
