"""Errors that the local stack's HTTP listeners answer by themselves: application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

_MAX_INSTANCE = 256


@dataclass(frozen=True)
class Problem:
    """One answer that refuses: what was expected, what was found, what to do."""

    status: int
    code: str
    detail: str
    more_headers: tuple[tuple[str, str], ...] = ()

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return (
            ("content-type", "application/problem+json"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            *self.more_headers,
        )

    def body(self, instance: str) -> bytes:
        """The JSON document; `instance` is the request's path."""
        document = {
            "type": f"urn:local-stack:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": quote(instance[:_MAX_INSTANCE], safe="/:%?=&~!$'()*+,;@"),
            "code": self.code,
        }
        return json.dumps(document).encode()

    def as_bytes(self, instance: str, *, with_body: bool = True) -> bytes:
        """The whole HTTP/1.1 response; the connection ends after it."""
        body = self.body(instance)
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"content-length: {len(body)}", "connection: close", "", ""]
        return "\r\n".join(lines).encode("latin-1") + (body if with_body else b"")


class RefusedError(Exception):
    """A request that is not answered otherwise."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)
