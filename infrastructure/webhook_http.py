"""Sends a delivery: to an address that was looked at, without redirects, within one limit of time."""

import io
import re
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.client import HTTPException, HTTPResponse

from core.models.webhook import PostAnswer
from core.webhooks.sender import NotDelivered
from core.webhooks.targets import Target, TargetRules, read_target

SECONDS = 10.0
# What is read of an answer's body, so that its sender is not cut off; it is not used.
_MOST_BYTES = 16_384


class HttpPoster:
    """Any thread may call.

    Args:
        seconds: The limit for all of connecting, sending and the answer. A look at a name has limits of its own.
        authorities: What vouches for receivers in place of the system's authorities.
    """

    def __init__(
        self, rules: TargetRules, *, seconds: float = SECONDS, authorities: ssl.SSLContext | None = None
    ) -> None:
        self._rules = rules
        self._seconds = seconds
        self._given_authorities = authorities

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> PostAnswer:
        """The answer. A redirect is an answer like any other: it is not followed.

        Raises:
            NotDelivered: The address may not be connected to, or gave no answer in time.
        """
        try:
            target = read_target(url)
        except ValueError as error:
            raise NotDelivered(str(error)) from error
        try:
            address = self._find_address(target)
            until = time.monotonic() + self._seconds
            with self._connect(target, address, until) as connection:
                connection.settimeout(_seconds_to(until))
                connection.sendall(_write_request(target, headers, body))
                return _read_answer(connection, until)
        except TimeoutError as error:
            raise NotDelivered(f"no answer within {self._seconds:g} seconds") from error
        except (OSError, HTTPException) as error:
            raise NotDelivered(_reason_of(error)) from error

    def _find_address(self, target: Target) -> str:
        """The one that is connected to. All that the name means have to be allowed: which one is used is chance."""
        try:
            found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise NotDelivered("the name of the host is not known") from error
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            refusal = self._rules.find_refusal(address, is_secure=target.is_secure)
            if refusal is not None:
                raise NotDelivered(refusal)
        return addresses[0]

    def _connect(self, target: Target, address: str, until: float) -> socket.socket:
        connection = socket.create_connection((address, target.port), timeout=_seconds_to(until))
        if not target.is_secure:
            return connection
        try:
            connection.settimeout(_seconds_to(until))
            return self._authorities.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise

    @cached_property
    def _authorities(self) -> ssl.SSLContext:
        return self._given_authorities or ssl.create_default_context()


class _Received(io.RawIOBase):
    """What comes over a connection, until a time: a sender that drips is not waited for."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection = connection
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        self._connection.settimeout(_seconds_to(self._until))
        return self._connection.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As `HTTPResponse` asks a socket."""
        del mode
        return io.BufferedReader(self)


def _read_answer(connection: socket.socket, until: float) -> PostAnswer:
    response = HTTPResponse(_Received(connection, until), method="POST")  # type: ignore[arg-type]
    with response:
        response.begin()
        # The head is there, and it is all that counts.
        with suppress(OSError, HTTPException):
            response.read(_MOST_BYTES)
        return PostAnswer(response.status, read_retry_after(response.getheader("Retry-After"), time.time()))


def read_retry_after(text: str | None, now: float) -> float | None:
    """Seconds from now for a header `Retry-After`, which has a number or a date; None where it has neither.

    Args:
        now: Seconds since 1970.
    """
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _write_request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Accept: */*", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _seconds_to(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason_of(error: Exception) -> str:
    """Its kind and the system's word for it: a longer text may repeat the address or what was received."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"the answer is no HTTP ({type(error).__name__})"
