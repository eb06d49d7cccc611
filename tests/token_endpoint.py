"""Managed identities' token endpoint on loopback, in the forms of virtual machines (IMDS) and of App Service."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from tests.loopback import QuietHandler, http_server

IMDS_PATH, APP_SERVICE_PATH = "/metadata/identity/oauth2/token", "/msi/token"


class TokenEndpoint:
    """Gives tokens that live for a moment; one in use is given again in the first half of its life.

    Args:
        header: App Service's secret, which a request must show.
        on_new: Gets the resource and a new token before anybody else does.
    """

    def __init__(
        self, *, lives_seconds: float, header: str = "", on_new: Callable[[str, str], object] = lambda *_: None
    ):
        self.lives_seconds, self.header = lives_seconds, header
        self._on_new = on_new
        self._lock = threading.Lock()
        self._given: dict[str, tuple[str, float]] = {}
        # Each request: the form, the resource and the client id.
        self.asked: list[tuple[str, str, str | None]] = []
        self.tokens: list[str] = []

    def answer(self, form, query):
        resource, client_id = query["resource"][0], query.get("client_id", [None])[0]
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

    def problem(self, form, headers):
        if form == "imds":
            return None if headers.get("Metadata") == "true" else "expected the header Metadata: true"
        return None if headers.get("X-IDENTITY-HEADER") == self.header else "expected the secret header"


@contextmanager
def serving(endpoint: TokenEndpoint) -> Iterator[str]:
    """The address below which both forms are."""

    class Handler(QuietHandler):
        def do_GET(self):  # noqa: N802 - what the library calls
            address = urlsplit(self.path)
            form = {IMDS_PATH: "imds", APP_SERVICE_PATH: "app_service"}[address.path]
            problem = endpoint.problem(form, self.headers)
            told = {"error": problem} if problem else endpoint.answer(form, parse_qs(address.query))
            self.answer(400 if problem else 200, "application/json", json.dumps(told).encode())

    with http_server(Handler) as address:
        yield address
