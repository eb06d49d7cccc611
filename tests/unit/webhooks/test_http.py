"""One request to a receiver: which address it goes to, and what receivers may do to it."""

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from core.models.webhook import PostAnswer
from core.webhooks.sender import NotDelivered
from core.webhooks.targets import TargetRules, read_networks
from coremachine.local.broker.certificates import server_context
from infrastructure.webhook_http import HttpPoster, read_retry_after

RULES = TargetRules(read_networks("127.0.0.0/8,::1/128"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(answer, *, context=None):
    """One connection; `answer` gets it, and what came is in the list."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                try:
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    with connection:
                        received = b""
                        while b"\r\n\r\n" not in received:
                            received += connection.recv(65536)
                        came.append(received)
                        answer(connection)
                except OSError:
                    came.append(b"broken")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], came
        finally:
            thread.join()


def sends(data):
    return lambda connection: connection.sendall(data)


def post(port, *, seconds=30, rules=RULES, scheme="http", host="127.0.0.1", **options):
    poster = HttpPoster(rules, seconds=seconds, **options)
    return poster.post(f"{scheme}://{host}:{port}/hook?a=1", {"webhook-id": "i"}, b"{}")


@pytest.mark.parametrize("status", [200, 204, 302, 500])
def test_the_status_is_what_counts_and_no_redirect_is_followed(status):
    text = f"HTTP/1.1 {status} Word\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".encode()
    with server(sends(text)) as (port, came):
        assert post(port) == PostAnswer(status)
    assert came[0].startswith(b"POST /hook?a=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    assert b"webhook-id: i\r\n" in came[0]


def test_the_answer_has_when_to_come_again():
    with server(sends(b"HTTP/1.1 429 Slow\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n")) as (port, _):
        assert post(port) == PostAnswer(429, 120.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 30 ", 30.0),
        ("Fri, 01 Jan 2027 00:01:00 GMT", 60.0),
        ("Fri, 01 Jan 2027 00:01:00 -0000", 60.0),
        ("Thu, 31 Dec 2026 23:00:00 GMT", 0.0),
        ("-5", None),
        ("1e3", None),
        ("9" * 4000, None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_number_or_a_date_is_read_and_nothing_else(text, seconds):
    assert read_retry_after(text, 1_798_761_600.0) == seconds


def test_a_body_without_end_is_not_read():
    def pour(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with server(pour) as (port, came):
        assert post(port).status == 200
    assert came[-1] == b"broken"


@pytest.mark.parametrize("drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_receiver_that_does_not_come_to_an_end_is_left(drip):
    """Byte by byte it would have an hour: the limit is for the whole answer."""

    def stall(connection):
        connection.sendall(drip)
        while connection.recv(1):
            pass

    with server(stall) as (port, _), pytest.raises(NotDelivered, match=r"no answer within 0\.2 seconds"):
        post(port, seconds=0.2)


@pytest.mark.parametrize("data", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 " + b"x" * 70_000])
def test_an_answer_that_is_none_is_a_failure(data):
    with server(sends(data)) as (port, _), pytest.raises(NotDelivered, match=r"no HTTP|Error"):
        post(port)


def test_nobody_listening_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(NotDelivered, match="refused"):
        post(port)


def test_loopback_is_refused_unless_it_is_allowed():
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1 is no public address"):
        post(1, rules=TargetRules())


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["127.0.0.1", "169.254.169.254"]])
def test_a_name_is_judged_by_all_that_it_means_now(monkeypatch, addresses):
    """It may have meant another place when the webhook was written (DNS rebinding)."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 80)) for each in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(NotDelivered, match=r"no public address|never allowed"):
        post(80, host="example.org")


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(monkeypatch):
    looked = []
    find = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **o: looked.append(host) or find("127.0.0.1", *a, **o))
    with server(sends(OK)) as (port, came):
        assert post(port, host="example.org").status == 200
    assert b"Host: example.org:" in came[0]
    assert [host for host in looked if host != "127.0.0.1"] == ["example.org"]


def test_a_name_that_nobody_knows_is_a_failure(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NotDelivered, match="name of the host is not known"):
        post(80, host="example.org")


def test_certificates_count(tmp_path):
    context = server_context(tmp_path)
    with server(sends(OK), context=context) as (port, _), pytest.raises(NotDelivered, match="certificate"):
        post(port, scheme="https", host="localhost")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with server(sends(OK), context=context) as (port, _):
        assert post(port, scheme="https", host="localhost", authorities=trusting).status == 200
