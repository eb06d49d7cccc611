"""Targets and framing that are refused before anybody decodes them."""

import pytest

from coremachine.local.problem import RefusedError
from coremachine.local.request_head import check_framing, origin_form, pick_checked
from coremachine.local.web_guard import Authority

OWN = Authority("localhost", 7071)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/", b"/"),
        (b"/api/jobs?limit=5&x='a'", b"/api/jobs?limit=5&x='a'"),
        (b"/a%20b/%C3%A9?q=%e2%82%ac%0A", b"/a%20b/%C3%A9?q=%e2%82%ac%0A"),
        (b"/a%2Fb//c", b"/a%2Fb//c"),
        (b"http://localhost:7071/api?x=1", b"/api?x=1"),
        (b"HTTP://LOCALHOST:7071", b"/"),
        (b"http://localhost:7071?x=1", b"/?x=1"),
    ],
)
def test_good_targets_become_path_and_query(target, found):
    assert origin_form(target, OWN) == found


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"api/jobs",
        b"localhost:7071",
        b"/\xe9",
        b"/a b",
        b"/a\x00",
        b"/a\x7f",
        b"/a#b",
        b"/%",
        b"/%4",
        b"/%zz",
        b"/%ff",
        b"/%C3",
        b"/%ED%A0%80",
        b"/%00",
        b"/a%0d%0aSet-Cookie:x",
        b"/%7F",
        b"/%C2%85",
        b"/?q=%",
        b"/?q=%ff",
        b"http://evil.example/",
        b"http://localhost:9999/",
        b"http://user@localhost:7071/",
        b"http:///",
        b"https://localhost:7071/",
    ],
)
def test_malformed_targets_are_refused_with_what_was_expected(target):
    with pytest.raises(RefusedError) as caught:
        origin_form(target, OWN)
    problem = caught.value.problem
    assert (problem.status, problem.code) == (400, "malformed_target")
    assert "expected" in problem.detail
    assert problem.detail.isprintable()


def test_absolute_target_without_host_is_refused():
    with pytest.raises(RefusedError):
        origin_form(b"http://localhost/", None)


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("0.9", [], 505),
        ("2.0", [], 505),
        ("1.1", [(b"transfer-encoding", b"gzip, chunked")], 400),
        ("1.1", [(b"transfer-encoding", b"identity")], 400),
        ("1.1", [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], 400),
        ("1.0", [(b"transfer-encoding", b"chunked")], 400),
        ("1.1", [(b"content-length", b"5"), (b"content-length", b"5")], 400),
        ("1.1", [(b"content-length", b"+5")], 400),
        ("1.1", [(b"content-length", b"5, 5")], 400),
        ("1.1", [(b"content-length", b"-1")], 400),
        ("1.1", [(b"content-length", b"")], 400),
        ("1.1", [(b"content-length", b"9" * 5000)], 400),
    ],
)
def test_framing_that_two_servers_could_read_differently_is_refused(version, headers, status):
    with pytest.raises(RefusedError) as caught:
        check_framing(version, pick_checked(headers))
    assert caught.value.problem.status == status


def test_usual_framing_passes():
    assert check_framing("1.1", pick_checked([(b"transfer-encoding", b"Chunked "), (b"x", b"y")])) == 0
    assert check_framing("1.0", pick_checked([(b"content-length", b"007")])) == 7
    assert check_framing("1.1", pick_checked([])) == 0
