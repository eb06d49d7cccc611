"""Roles in the dashboard: who has no role signs in, and a form needs the role that the API's own path needs."""

import asyncio
import base64
import logging
from http.cookies import SimpleCookie

import azure.functions as func
import pytest
from azure.functions.http import HttpResponseConverter

from core.safety.roles import Role, digest_of
from tests.unit.triggers.fakes import JOB_ID
from tests.unit.triggers.test_access import KEYS, SETTING, Guarded, principal
from triggers import http
from triggers.access import KEY_COOKIE, cookie_of_key, role_needed
from triggers.ui.router import ROUTERS

FROM_PAGE = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
# The API's path for each form, with its method where that is not POST. Sign-in and sign-out have none: a caller
# without a role needs them.
TWINS = {
    "/ui/jobs/bulk": "/jobs/bulk",
    "/ui/jobs/{job_id}/cancel": "/jobs/{job_id}/cancel",
    "/ui/jobs/{job_id}/pause": "/jobs/{job_id}/pause",
    "/ui/jobs/{job_id}/resume": "/jobs/{job_id}/resume",
    "/ui/jobs/{job_id}/rerun": "/jobs/{job_id}/rerun",
    "/ui/jobs/{job_id}/delete": "DELETE /jobs/{job_id}",
    "/ui/jobs/{job_id}/hold": "/jobs/{job_id}/hold",
    "/ui/jobs/{job_id}/release": "/jobs/{job_id}/release",
    "/ui/limits/{name:path}": "PUT /limits/{name}",
    "/ui/webhooks/{name}/test": "/webhooks/{name}/test",
    "/ui/webhooks/{name}/deliveries/{delivery_id}/redeliver": "/webhooks/{name}/deliveries/{delivery_id}/redeliver",
    "/ui/submit/{job_type}": "/jobs/submit/{job_type}",
    "/ui/schedules/{name}/pause": "/schedules/{name}/pause",
    "/ui/schedules/{name}/resume": "/schedules/{name}/resume",
    "/ui/schedules/{name}/run": "/schedules/{name}/run",
    "/ui/schedules/{name}/edit": "PUT /schedules/{name}",
    "/ui/schedules/{name}/delete": "DELETE /schedules/{name}",
    "/ui/new-schedule": "PUT /schedules/{name}",
    "/ui/webhooks/{name}/edit": "PUT /webhooks/{name}",
    "/ui/webhooks/{name}/pause": "PUT /webhooks/{name}",
    "/ui/webhooks/{name}/resume": "PUT /webhooks/{name}",
    "/ui/webhooks/{name}/rotate-secret": "/webhooks/{name}/rotate-secret",
    "/ui/webhooks/{name}/delete": "DELETE /webhooks/{name}",
    "/ui/new-webhook": "PUT /webhooks/{name}",
    "/ui/jobs/{job_id}/adjust": "PATCH /jobs/{job_id}",
    "/ui/dead-letters/redrive": "/dead-letters/redrive",
}
OPEN = {"/ui/sign-in", "/ui/sign-out"}


@pytest.fixture
def guarded():
    return Guarded({"COREMACHINE_ROLE_KEYS": SETTING})


def cookie(role):
    return {"cookie": f"{KEY_COOKIE}={cookie_of_key(KEYS[role])}"}


def sign_in(guarded, key, headers=None, **fields):
    return guarded("POST", "/api/ui/sign-in", data={"key": key, **fields}, headers={**FROM_PAGE, **(headers or {})})


def made(answer):
    jar = SimpleCookie(answer.headers["set-cookie"])
    return jar[KEY_COOKIE]


class TestRules:
    def test_each_form_needs_the_role_of_its_path_in_the_api(self):
        paths = Guarded({})("GET", "/api/openapi.json").json()["paths"]
        forms = {route.path for router in ROUTERS for route in router.routes if "POST" in route.methods}
        assert forms == TWINS.keys() | OPEN
        for form, twin in TWINS.items():
            verb, _, path = twin.rpartition(" ")
            verb = verb or "POST"
            named = {each.replace("hello_world", "{job_type}") for each, item in paths.items() if verb.lower() in item}
            assert f"/api{path}" in named
            needed = role_needed("POST", _filled(f"/api{form}"))
            assert needed is role_needed(verb, _filled(f"/api{path}")), form
            assert needed in {Role.SUBMITTER, Role.OPERATOR, Role.ADMIN}

    def test_signing_in_and_what_pages_are_made_of_are_open(self, guarded):
        assert [role_needed("POST", f"/api{path}") for path in OPEN] == [None, None]
        assert guarded("GET", "/api/ui/static/ui.css").status_code == 200
        assert role_needed("GET", "/api/ui/jobs") is Role.VIEWER
        assert role_needed("GET", "/api/ui/webhooks/on-call") is Role.OPERATOR
        assert role_needed("GET", "/api/ui/webhooks/on-call/edit") is role_needed("GET", "/api/ui/new-webhook")
        assert role_needed("GET", "/api/ui/new-webhook") is Role.ADMIN
        assert role_needed("GET", "/api/ui/schedules/nightly/edit") is role_needed("GET", "/api/ui/new-schedule")
        assert role_needed("GET", "/api/ui/new-schedule") is Role.OPERATOR
        assert role_needed("POST", "/api/ui/of/tomorrow") is Role.ADMIN


def _filled(path):
    named = path.replace("{name:path}", "tiles/a").replace("{name}", "nightly").replace("{delivery_id}", "1")
    return named.replace("{job_id}", JOB_ID).replace("{job_type}", "hello_world")


class TestSigningIn:
    def test_without_a_role_a_page_leads_to_the_sign_in_and_back(self, guarded):
        answer = guarded("GET", "/api/ui/submit/hello_world?like=&code=host-key")
        assert answer.status_code == 303
        where = answer.headers["location"]
        assert where == "/api/ui/sign-in?next=%2Fapi%2Fui%2Fsubmit%2Fhello_world%3Flike%3D&code=host-key"
        form = guarded("GET", where)
        assert form.status_code == 200
        assert 'name="next" value="/api/ui/submit/hello_world?like="' in form.text
        back = sign_in(guarded, KEYS[Role.VIEWER], next="/api/ui/submit/hello_world?like=")
        assert (back.status_code, back.headers["location"]) == (303, "/api/ui/submit/hello_world?like=")
        assert sign_in(guarded, KEYS[Role.VIEWER]).headers["location"] == "/api/ui"

    def test_cookie_opens_the_pages_and_nothing_else(self, guarded):
        kept = made(sign_in(guarded, KEYS[Role.OPERATOR]))
        headers = {"cookie": f"{KEY_COOKIE}={kept.value}"}
        assert guarded("GET", "/api/ui/submit", headers=headers).status_code == 200
        assert guarded("GET", "/api/jobs", headers=headers).status_code == 401
        assert guarded("GET", "/api/uijobs", headers=headers).status_code == 401

    def test_wrong_link_is_answered_by_a_page(self, guarded):
        answer = guarded("GET", "/api/ui/jobs/<b>/nothing", headers=cookie(Role.VIEWER))
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "There is no page &#39;jobs/&lt;b&gt;/nothing&#39; here." in answer.text

    def test_preview_of_a_result_is_below_the_pages_too(self, guarded):
        path = f"/api/ui/jobs/{JOB_ID}/preview"
        answer = guarded("GET", path, headers=cookie(Role.VIEWER))
        assert answer.json()["code"] == "no_preview"
        assert guarded("GET", f"{path}/style.css").status_code == 303
        assert guarded("POST", path, headers=cookie(Role.ADMIN)).headers["allow"] == "GET, HEAD, OPTIONS"

    def test_cookie_is_for_the_pages_of_this_session_and_for_no_script(self, guarded):
        kept = made(sign_in(guarded, KEYS[Role.VIEWER]))
        assert (kept["path"], kept["httponly"], kept["samesite"]) == ("/api/ui", True, "strict")
        assert (kept["expires"], kept["max-age"], kept["domain"]) == ("", "", "")

    @pytest.mark.parametrize(
        ("headers", "is_secure"),
        [
            ({}, False),
            ({"x-forwarded-proto": "https"}, True),
            ({"origin": "https://jobs.example"}, True),
            ({"origin": "http://jobs.example"}, False),
        ],
    )
    def test_cookie_that_came_over_tls_never_goes_without(self, guarded, headers, is_secure):
        assert bool(made(sign_in(guarded, KEYS[Role.VIEWER], headers))["secure"]) is is_secure

    def test_any_text_may_be_a_key(self):
        key = 'k;"= ü\\'
        guarded = Guarded({"COREMACHINE_ROLE_KEYS": f"viewer={digest_of(key)}"})
        kept = made(sign_in(guarded, key))
        headers = {"cookie": f"other=1; {KEY_COOKIE}={kept.value}"}
        assert guarded("GET", "/api/ui/submit", headers=headers).status_code == 200

    @pytest.mark.parametrize("key", ["wrong", "", "k" * 2000, SETTING.split("=")[1][:64]])
    def test_wrong_key_gives_no_cookie(self, guarded, key, caplog):
        caplog.set_level(logging.DEBUG)
        answer = sign_in(guarded, key)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "has no role here" in answer.text
        assert not key or key not in answer.text
        assert not key or key not in caplog.text

    def test_key_is_in_no_address_and_no_log(self, guarded, caplog):
        caplog.set_level(logging.DEBUG)
        answer = sign_in(guarded, KEYS[Role.ADMIN], next="/api/ui/jobs")
        assert KEYS[Role.ADMIN] not in answer.headers["location"] + answer.text + caplog.text

    @pytest.mark.parametrize("place", ["https://evil.example", "//evil.example", "/api/uievil", "/api/ui/\\evil", "/x"])
    def test_it_leads_to_pages_of_this_app_alone(self, guarded, place):
        assert sign_in(guarded, KEYS[Role.VIEWER], next=place).status_code == 400
        assert guarded("GET", "/api/ui/sign-in", params={"next": place}).status_code == 400

    def test_another_site_signs_nobody_in(self, guarded):
        answer = sign_in(guarded, KEYS[Role.VIEWER], {"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers

    @pytest.mark.parametrize(
        "given",
        [
            f"{KEY_COOKIE}=no-key!",
            f"{KEY_COOKIE}=",
            f"{KEY_COOKIE}=" + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
            f"{KEY_COOKIE}={cookie_of_key(KEYS[Role.ADMIN])}; {KEY_COOKIE}={cookie_of_key(KEYS[Role.ADMIN])}",
            f"x{KEY_COOKIE}={cookie_of_key(KEYS[Role.ADMIN])}",
        ],
    )
    def test_cookie_that_names_no_key_or_two_is_none(self, guarded, given):
        assert guarded("GET", "/api/ui/submit", headers={"cookie": given}).status_code == 303

    def test_signing_out_forgets_the_key(self, guarded):
        answer = guarded("POST", "/api/ui/sign-out", data={}, headers={**FROM_PAGE, **cookie(Role.VIEWER)})
        kept = made(answer)
        assert (answer.headers["location"], kept.value, kept["max-age"]) == ("/api/ui/sign-in", "", "0")
        assert kept["path"] == "/api/ui"

    def test_link_on_another_site_finds_the_cookie_at_the_second_look(self, guarded):
        """A browser keeps a strict cookie back for such a link; the sign-in page asks again, then as itself."""
        place = {"next": "/api/ui/submit"}
        first = guarded("GET", "/api/ui/sign-in", params=place, headers={"sec-fetch-site": "cross-site"})
        assert 'content="0; url=/api/ui/sign-in?next=%2Fapi%2Fui%2Fsubmit"' in first.text
        headers = {**FROM_PAGE, **cookie(Role.VIEWER)}
        assert guarded("GET", "/api/ui/sign-in", params=place, headers=headers).headers["location"] == "/api/ui/submit"
        stays = guarded("GET", "/api/ui/sign-in", params=place, headers=FROM_PAGE)
        assert "http-equiv" not in stays.text

    def test_without_roles_there_is_nothing_to_sign_in_to(self):
        guarded = Guarded({})
        assert guarded("GET", "/api/ui/sign-in").headers["location"] == "/api/ui"
        answer = sign_in(guarded, "any")
        assert (answer.headers["location"], "set-cookie" in answer.headers) == ("/api/ui", False)

    def test_setting_that_cannot_be_read_is_said(self):
        guarded = Guarded({"COREMACHINE_ROLE_KEYS": "operator=no digest"})
        page = guarded("GET", "/api/ui/sign-in").text
        assert "The setting for roles cannot be read" in page
        assert 'type="password"' not in page
        assert sign_in(guarded, "no digest").status_code == 401


def test_host_gets_the_cookie_and_no_log_gets_the_key(monkeypatch, caplog):
    """Azure's adapter between the host and the app makes the cookie an object of its own, and logs at debug."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("COREMACHINE_ROLE_KEYS", SETTING)
    http._middleware.cache_clear()
    key = KEYS[Role.OPERATOR]
    headers = {**FROM_PAGE, "host": "app.example"}
    request = func.HttpRequest(
        "POST", "https://app.example/api/ui/sign-in", headers=headers, body=f"key={key}".encode()
    )
    answer = asyncio.run(http.answer(request, None, problems=()))
    http._middleware.cache_clear()
    (jar,) = HttpResponseConverter.encode(answer, expected_type=None).value["cookies"]
    kept = jar[KEY_COOKIE]
    assert (kept.value, kept["samesite"], kept["secure"]) == (cookie_of_key(key), "strict", True)
    assert "from ASGI worker" not in caplog.text
    assert cookie_of_key(key) not in caplog.text
    assert key not in caplog.text


def test_entra_without_app_service_in_front_is_said():
    page = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=False)("GET", "/api/ui/sign-in").text
    assert "App Service&#39;s authentication is not" in page
    assert "/.auth/login" not in page


class TestPages:
    def test_refused_form_is_answered_with_a_page_that_says_why(self, guarded):
        low = guarded("POST", f"/api/ui/jobs/{JOB_ID}/cancel", data={}, headers={**FROM_PAGE, **cookie(Role.SUBMITTER)})
        assert (low.status_code, low.headers["content-type"]) == (403, "text/html; charset=utf-8")
        assert "expected the role operator or a higher one, found submitter" in low.text
        none = guarded("POST", f"/api/ui/jobs/{JOB_ID}/cancel", data={}, headers=FROM_PAGE)
        assert (none.status_code, "/api/ui/sign-in" in none.text) == (401, True)
        assert guarded.services.calls == []

    def test_form_acts_in_the_name_of_the_key(self, guarded):
        headers = {**FROM_PAGE, **cookie(Role.OPERATOR)}
        assert guarded("POST", f"/api/ui/jobs/{JOB_ID}/pause", data={}, headers=headers).status_code == 303
        assert guarded.services.calls[-1][1]["actor"] == "operator-bot"

    def test_page_offers_what_the_role_may_and_names_the_role_that_is_needed(self, guarded):
        low = guarded("GET", "/api/ui/submit/hello_world", headers=cookie(Role.VIEWER)).text
        assert "Submit the job</button>" not in low
        assert "needs the role <b>submitter</b> or a higher one, and yours is viewer" in low
        high = guarded("GET", "/api/ui/submit/hello_world", headers=cookie(Role.SUBMITTER)).text
        assert "Submit the job</button>" in high
        assert "needs the role" not in high
        assert "submitter-bot, role submitter" in high

    def test_with_entra_nothing_is_typed(self):
        guarded = Guarded({"COREMACHINE_ENTRA_ROLES": "true"}, trusts=True)
        headers = {"x-ms-client-principal": principal("CoreMachine.Submitter")}
        page = guarded("GET", "/api/ui/submit/hello_world", headers=headers)
        assert (page.status_code, "Submit the job</button>" in page.text) == (200, True)
        assert "Sign out" not in page.text
        form = guarded("GET", "/api/ui/sign-in?next=%2Fapi%2Fui%2Fsubmit").text
        assert "/.auth/login/aad?post_login_redirect_uri=%2Fapi%2Fui%2Fsubmit" in form
        assert 'type="password"' not in form
