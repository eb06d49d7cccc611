"""Pages of other origins that local.settings.json lets in."""

import asyncio

import pytest

from coremachine.local.host.cors import CorsApp, CorsPolicy
from coremachine.local.problem import RefusedError
from coremachine.local.web_guard import check_sender

PAGE = "http://localhost:3000"


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(policy: CorsPolicy, method: str = "GET", path: str = "/api/x", **headers: str):
    sent = []

    async def send(event):
        sent.append(event)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(CorsApp(app, policy)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_page_that_is_let_in_may_read_the_answer():
    status, headers = ask(CorsPolicy((PAGE,), credentials=True), origin=PAGE)
    assert status == 200
    assert headers[b"access-control-allow-origin"] == PAGE.encode()
    assert headers[b"access-control-allow-credentials"] == b"true"
    assert headers[b"x"] == b"y"


def test_preflight_is_answered_without_the_function():
    asked = {"access_control_request_method": "PUT", "access_control_request_headers": "x-key"}
    status, headers = ask(CorsPolicy(("*",)), "OPTIONS", origin=PAGE, **asked)
    assert status == 204
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers[b"access-control-allow-methods"] == b"PUT"
    assert headers[b"access-control-allow-headers"] == b"x-key"


@pytest.mark.parametrize("headers", [{}, {"origin": "http://elsewhere"}])
def test_other_answers_are_left_alone(headers):
    assert ask(CorsPolicy((PAGE,)), **headers) == (200, {b"x": b"y"})


@pytest.mark.parametrize("path", ["/admin/functions", "/ADMIN"])
def test_administration_stays_closed(path):
    assert ask(CorsPolicy(("*",)), path=path, origin=PAGE)[0] == 403


def test_edge_lets_in_the_pages_of_the_policy_alone():
    def check(origin: str) -> None:
        check_sender(
            hosts=["localhost"],
            origins=[origin],
            sites=["cross-site"],
            on_loopback=True,
            lets_in=CorsPolicy((PAGE,)).allows,
        )

    check(PAGE)
    with pytest.raises(RefusedError):
        check("http://localhost:3001")
