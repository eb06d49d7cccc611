"""Entra's token endpoints on loopback: of virtual machines (IMDS), of App Service, and of workload identities."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.loopback import QuietHandler, http_server

IMDS_PATH, APP_SERVICE_PATH = "/metadata/identity/oauth2/token", "/msi/token"
TENANT = "a-tenant"
WORKLOAD_PATH = f"/{TENANT}/oauth2/v2.0/token"


class TokenEndpoint:
    """Gives tokens that live for a moment; one in use is given again in the first half of its life.

    Args:
        header: App Service's secret, which a request must show.
        assertion: The token of the cluster, which a workload must show.
        on_new: Gets the resource and a new token before anybody else does.
    """

    def __init__(
        self,
        *,
        lives_seconds: float,
        header: str = "",
        assertion: str = "",
        on_new: Callable[[str, str], object] = lambda *_: None,
    ):
        self.lives_seconds, self.header, self.assertion = lives_seconds, header, assertion
        self._on_new = on_new
        self._lock = threading.Lock()
        self._given: dict[str, tuple[str, float]] = {}
        # Each request: the form, the resource and the client id.
        self.asked: list[tuple[str, str, str | None]] = []
        self.tokens: list[str] = []

    def answer(self, form, query):
        client_id = query.get("client_id", [None])[0]
        resource = (
            query["scope"][0].split()[0].removesuffix("/.default") if form == "workload" else query["resource"][0]
        )
        with self._lock:
            self.asked.append((form, resource, client_id))
            token, until = self._given.get(resource, ("", 0.0))
            if until - time.time() < self.lives_seconds / 2:
                token, until = f"secret-token-{len(self.tokens) + 1}-{'x' * 24}", time.time() + self.lives_seconds
                self._on_new(resource, token)
                self._given[resource] = token, until
                self.tokens.append(token)
        seconds = max(1, round(until - time.time()))
        told = {"access_token": token, "expires_on": str(int(until)), "expires_in": str(seconds)}
        return told | {"resource": resource, "token_type": "Bearer"}

    def end_all(self, end: Callable[[], object]) -> None:
        """`end` makes the tokens useless; the next request gets another one."""
        with self._lock:
            end()
            self._given.clear()

    def problem(self, form, headers, query):
        if form == "workload":
            is_known = query.get("client_assertion") == [self.assertion] and query["grant_type"] == [
                "client_credentials"
            ]
            return None if is_known else "expected the assertion of the cluster"
        if form == "imds":
            return None if headers.get("Metadata") == "true" else "expected the header Metadata: true"
        return None if headers.get("X-IDENTITY-HEADER") == self.header else "expected the secret header"


@contextmanager
def serving(endpoint: TokenEndpoint, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address below which all forms are; that of workloads is asked over TLS alone."""
    forms = {IMDS_PATH: "imds", APP_SERVICE_PATH: "app_service", WORKLOAD_PATH: "workload"}

    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802 - what the library calls
            self.give(urlsplit(self.path).query)

        def do_POST(self):  # noqa: N802 - what the library calls
            self.give(self.rfile.read(int(self.headers["content-length"])).decode())

        def give(self, text):
            form, query = forms[urlsplit(self.path).path], parse_qs(text)
            problem = endpoint.problem(form, self.headers, query)
            answer = {"error": problem} if problem else endpoint.answer(form, query)
            self.answer(400 if problem else 200, "application/json", json.dumps(answer).encode())

    with http_server(Handler, tls) as address:
        yield address
