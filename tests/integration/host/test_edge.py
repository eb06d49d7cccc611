"""The edge of the HTTP server on real sockets: what is refused, what is waited for, and how many may wait."""

import asyncio
import contextlib
import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvicorn
import uvloop

from coremachine.local.connections import ConnectionBook
from coremachine.local.host.edge import EdgeLimits, EdgeProtocol

from .conftest import wait_until

HOST = b"Host: localhost\r\n"


class SmallServer:
    """The edge with small limits, and an application that says what it got."""

    def __init__(self, limits: EdgeLimits, *, connections: int = 100, tick_seconds: float = 60.0) -> None:
        self.calls: list[tuple[str, bytes | None]] = []
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.book = ConnectionBook("http", connections, tick_seconds=tick_seconds)
        protocol: Any = partial(EdgeProtocol, self.book, limits)
        config = uvicorn.Config(self._app, http=protocol, log_config=None, lifespan="off", interface="asgi3")
        self._server = uvicorn.Server(config)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=lambda: uvloop.run(self._server.serve([self._listener])))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self._loop = asyncio.get_running_loop()
        if scope["path"] == "/hold":
            self.entered.release()
            await asyncio.to_thread(self.release.wait, 20)
        body: bytes | None = b""
        while scope["method"] == "POST" and scope["path"] != "/unread":
            event = await receive()
            if event["type"] == "http.disconnect":
                body = None
                break
            assert body is not None
            body += event["body"]
            if not event["more_body"]:
                break
        self.calls.append((scope["path"], body))
        self.entered.release()
        answer = json.dumps(sorted(name.decode() for name, _ in scope["headers"])).encode()
        if scope["path"] == "/large":
            answer = bytes(30_000_000)
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def cut_connections(self) -> None:
        """As a broken network does."""
        for connection in list(self._server.server_state.connections):
            self._loop.call_soon_threadsafe(connection.transport.abort)  # type: ignore[union-attr]

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, data: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Until the server closes; a time-out of the socket fails the test."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def read_response(connection: socket.socket) -> bytes:
    """One response with Content-Length, on a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def problem_of(response: bytes) -> dict[str, Any]:
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    for header in (
        "content-type: application/problem+json",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "connection: close",
    ):
        assert header in lines
    document: dict[str, Any] = json.loads(body)
    assert set(document) == {"type", "title", "status", "detail", "instance", "code"}
    assert document["status"] == int(lines[0].split(" ")[1])
    assert document["type"].endswith(document["code"])
    return document


@pytest.fixture
def server() -> Iterator[SmallServer]:
    with SmallServer(EdgeLimits(body_bytes=200_000)) as running:
        yield running


def test_request_of_a_program_passes(server):
    response = server.ask(b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200")
    assert server.ask(b"GET /a HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert [path for path, _ in server.calls] == ["/a", "/a"]


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_host"),
        (b"POST /jobs HTTP/1.1\r\nHost: \xe9\xff\r\nContent-Length: 0\r\n\r\n", 400, "malformed_host"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "foreign_host"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Origin: null\r\nContent-Length: 2\r\n\r\n{}", 403, "foreign_origin"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Sec-Fetch-Site: cross-site\r\n\r\n", 403, "foreign_origin"),
        (b"OPTIONS / HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", 403, "foreign_origin"),
        (b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed_target"),
        (b"GET /%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed_target"),
        (b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed_target"),
        (b"GET /\xe9 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400, "malformed_request"),
        (b"NONSENSE\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "unsupported_version"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "target_too_long"),
        (b"GET /" + b"a" * 9000, 414, "target_too_long"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 33_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 101 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 600_000, 431, "headers_too_large"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 200001\r\n\r\n", 413, "body_too_large"),
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed_request",
        ),
        (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed_framing"),
    ],
)
def test_what_no_function_should_see_is_answered_with_a_problem(server, request_bytes, status, code):
    problem = problem_of(server.ask(request_bytes))
    assert (problem["status"], problem["code"]) == (status, code)
    assert server.calls == []


def test_refused_head_request_has_no_body(server):
    response = server.ask(b"HEAD / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 403")
    assert response.endswith(b"\r\n\r\n")


def test_refused_upload_can_be_read_by_a_client_that_sends_on(server):
    """Closing a socket with unread input resets it: the client would lose the answer."""
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 300000\r\n\r\n")
        for _ in range(30):
            connection.sendall(b"x" * 10_000)
        assert problem_of(read_all(connection))["code"] == "body_too_large"


def test_chunked_body_has_the_same_limit(server):
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert problem_of(read_all(connection))["code"] == "body_too_large"
    assert server.entered.acquire(timeout=20)
    assert server.calls == [("/", None)]


def test_endless_chunk_extension_is_refused(server):
    with server.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1;a=")
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                connection.sendall(b"x" * 10_000)
        assert problem_of(read_all(connection))["code"] == "malformed_request"


def test_trailers_are_no_headers(server):
    response = server.ask(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"1\r\na\r\n0\r\nX-Functions-Key: k\r\n\r\n"
    )
    assert b"x-functions-key" not in response
    assert b"transfer-encoding" in response  # of the request's: the app can see that a body was meant
    assert server.calls == [("/", b"a")]


def test_malformed_request_behind_a_good_one_waits_for_its_answer(server):
    with server.connect() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n")
        assert server.entered.acquire(timeout=20)
        server.release.set()
        assert read_all(connection).count(b"HTTP/1.1 ") == 1
    assert server.calls == [("/hold", b"")]


def test_continue_is_said_before_the_body_and_only_if_the_body_is_wanted(server):
    head = b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n"
    with server.connect() as connection:
        connection.sendall(b"POST /" + head + b"\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_response(connection).startswith(b"HTTP/1.1 200")
    assert server.calls == [("/", b"{}")]
    # Answered without: nobody knows whether the two bytes still come, so the connection cannot go on.
    assert server.ask(b"POST /unread" + head + b"\r\n").startswith(b"HTTP/1.1 200")
    assert problem_of(server.ask(b"POST /" + head + b"Origin: null\r\n\r\n"))["status"] == 403


def test_another_protocol_is_not_spoken_and_the_request_answered(server):
    response = server.ask(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in response


@pytest.fixture
def impatient() -> Iterator[SmallServer]:
    with SmallServer(EdgeLimits(silence_ticks=3), tick_seconds=0.02) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", None),
        (b"\r\n\r\n", None),
        (b"GET / HT", "request_timeout"),
        (b"GET / HTTP/1.1\r\n" + HOST, "request_timeout"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nab", "request_timeout"),
    ],
)
def test_half_open_requests_are_closed_after_a_time(impatient, sent, code):
    with impatient.connect() as connection:
        connection.sendall(sent)
        response = read_all(connection)
    assert (problem_of(response)["code"] if response else None) == code
    if b"POST" in sent:
        assert impatient.entered.acquire(timeout=20)
        assert impatient.calls == [("/", None)]  # told that the body never comes, and not that it is b"ab"


def test_half_open_request_behind_an_answered_one_is_closed(impatient):
    with impatient.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert read_response(connection).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /se")
        assert problem_of(read_all(connection))["code"] == "request_timeout"


def test_body_that_never_ends_behind_an_early_answer_is_closed(impatient):
    with impatient.connect() as connection:
        connection.sendall(b"POST /unread HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nab")
        assert read_all(connection).count(b"HTTP/1.1 ") == 1


def test_long_answer_is_waited_for_whatever_the_client_does_meanwhile(impatient):
    with impatient.connect() as connection, impatient.connect() as clock:
        connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\nGET /next HT")
        assert impatient.entered.acquire(timeout=20)
        assert read_all(clock) == b""  # so much time has passed that a silent one is closed
        impatient.release.set()
        assert read_response(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("requests", [1, 3])
def test_client_that_takes_no_answer_is_given_up(impatient, requests):
    with impatient.connect() as connection:
        connection.sendall((b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n") * requests)
        assert impatient.entered.acquire(timeout=20)
        wait_until(lambda: impatient.book.open == 0, "the connection closed")


def test_bound_is_kept_and_those_who_ask_are_answered():
    """Silent sockets make room; requests at work stay; when all are at work, the answer is 503."""
    with SmallServer(EdgeLimits(), connections=3) as server, contextlib.ExitStack() as opened:
        silent = [opened.enter_context(server.connect()) for _ in range(10)]
        assert server.ask(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert [read_all(connection) for connection in silent[:7]] == [b""] * 7
        for _ in range(3):
            connection = opened.enter_context(server.connect())
            connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n")
            assert server.entered.acquire(timeout=20)
        response = server.ask(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert problem_of(response)["code"] == "too_many_connections"
        assert b"\r\nretry-after: 5\r\n" in response
        server.release.set()
    assert [path for path, _ in server.calls] == ["/", "/hold", "/hold", "/hold"]


def test_1500_silent_sockets_do_not_stop_a_request(start_host: Callable[..., Any]):
    host = start_host("asgi_app", workers=1)
    with contextlib.ExitStack() as opened:
        for _ in range(1500):
            opened.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=20))
        assert httpx.get(f"{host.url}/items/7", timeout=20).json() == {"item_id": 7, "q": ""}


def test_the_host_refuses_with_problems_and_passes_chunked_on(start_host: Callable[..., Any]):
    host = start_host("asgi_app", workers=1)
    with httpx.Client(base_url=host.url, timeout=20) as http:
        for path in ("/items/7", "/admin/host/status", "/admin/functions"):
            refused = http.get(path, headers={"Origin": "http://evil.example"})
            assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
            assert http.get(path, headers={"Origin": host.url}).status_code == 200
        odd = http.request("PROPFIND", "/items/7")
        assert (odd.status_code, odd.headers["content-type"]) == (404, "application/problem+json")
        assert odd.json()["instance"] == "/items/7"
        assert odd.headers["x-content-type-options"] == "nosniff"
        # Chunked: no body reaches the function, as in Azure; the header does.
        chunked = http.post("/headers", content=iter([b"{}"]))
        assert chunked.json() == {"transfer_encoding": "chunked", "body": ""}


def test_exhausted_descriptors_are_said_and_got_over(start_host: Callable[..., Any], tmp_path: Path):
    host = start_host("asgi_app", workers=1)
    [pid] = host.worker_pids
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{pid}/fd").iterdir())) + 20, hard))
    with contextlib.ExitStack() as opened:
        for _ in range(100):
            opened.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=20))
        log = tmp_path / "host.log"
        wait_until(lambda: "descriptors_exhausted listener=http" in log.read_text(), "the log line")
    wait_until(lambda: answers(f"{host.url}/items/7"), "an answer")


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=20).status_code == 200
    return False


def test_client_that_leaves_with_requests_behind_each_other_is_no_error(
    server: SmallServer, caplog: pytest.LogCaptureFixture
):
    with server.connect() as connection:
        connection.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\nGET /next HTTP/1.1\r\n" + HOST + b"\r\n")
        assert server.entered.acquire(timeout=20)
        server.cut_connections()
        assert read_all(connection) == b""
    wait_until(lambda: server.book.open == 0, "the connection closed")
    server.release.set()
    assert server.entered.acquire(timeout=20)
    assert server.ask(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_unfinished_body_reaches_no_function(start_host: Callable[..., Any]):
    """A client that leaves in the middle of `{"n": 77}` has not asked for `{"n": 7`."""
    host = start_host("asgi_app", workers=1)
    with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
        connection.sendall(b"POST /count HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n{}")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert httpx.get(f"{host.url}/count", timeout=20).json() == 0
