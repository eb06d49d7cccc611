"""Who may send a request to a listener on this machine."""

import pytest

from coremachine.local.problem import RefusedError
from coremachine.local.web_guard import Authority, check_sender, parse_authority


def check(host="localhost:7071", *, origins=(), sites=(), on_loopback=True):
    return check_sender(hosts=[host], origins=origins, sites=sites, on_loopback=on_loopback)


def refusal(*args, **options):
    with pytest.raises(RefusedError) as caught:
        check(*args, **options)
    return caught.value.problem


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:7071",
        "LOCALHOST:80",
        "localhost.",
        "localhost:",
        "127.0.0.1",
        "127.255.0.3:9",
        "[::1]:7071",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_loopback_names_are_answered(host):
    assert check(host).is_loopback


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "0.0.0.0:7071",
        "128.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "192.168.1.5",
        "localhost..",
    ],
)
def test_other_names_are_refused_with_what_to_do(host):
    problem = refusal(host)
    assert (problem.status, problem.code) == (403, "foreign_host")
    assert "http://localhost" in problem.detail


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":80",
        ".",
        "user@localhost",
        "localhost@evil.example",
        "localhost:99999",
        "localhost:-1",
        "localhost:80:80",
        "localhost/",
        "local host",
        "[::1%25lo]",
        "[::1%lo]",
        "::1",
        "[::1",
        "[localhost]",
        "loc%61lhost",
        "\xe9\xff",
        "localhost\x00",
        "localhost,evil.example",
        "a" * 100_000,
    ],
)
@pytest.mark.parametrize("on_loopback", [True, False])
def test_malformed_hosts_are_refused_wherever_the_host_listens(host, on_loopback):
    problem = refusal(host, on_loopback=on_loopback)
    assert (problem.status, problem.code) == (400, "malformed_host")
    assert len(problem.detail) < 500


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
def test_host_is_there_once(hosts):
    with pytest.raises(RefusedError) as caught:
        check_sender(hosts=hosts, origins=[], sites=[], on_loopback=True)
    assert caught.value.problem.status == 400


def test_only_an_old_client_may_leave_host_out_and_no_page_profits_from_it():
    assert check_sender(hosts=[], origins=[], sites=[], on_loopback=True, host_optional=True) is None
    with pytest.raises(RefusedError):
        check_sender(hosts=[], origins=["http://localhost"], sites=[], on_loopback=True, host_optional=True)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:7071", "http://localhost:7071"),
        ("LocalHost:7071", "http://localhost:7071"),
        ("localhost:80", "http://localhost"),
        ("[::1]:7071", "http://[::1]:7071"),
    ],
)
@pytest.mark.parametrize("site", [[], ["same-origin"], ["none"]])
def test_the_listeners_own_pages_are_answered(host, origin, site):
    assert check(host, origins=[origin], sites=site) == parse_authority(host)


@pytest.mark.parametrize(
    "origins",
    [
        ["http://evil.example"],
        ["null"],
        [""],
        ["http://localhost:9999"],
        ["http://127.0.0.1:7071"],
        ["https://localhost:7071"],
        ["http://localhost:7071/"],
        ["http://user@localhost:7071"],
        ["localhost:7071"],
        ["file://"],
        ["chrome-extension://abcdef"],
        ["http://localhost:7071", "http://localhost:7071"],
        ["http://localhost:7071 http://evil.example"],
    ],
)
@pytest.mark.parametrize("on_loopback", [True, False])
def test_other_origins_are_refused_with_what_to_do(origins, on_loopback):
    problem = refusal(origins=origins, on_loopback=on_loopback)
    assert (problem.status, problem.code) == (403, "foreign_origin")
    assert "command line" in problem.detail


@pytest.mark.parametrize("sites", [["cross-site"], ["same-site"], [""], ["SOMETHING"], ["none", "cross-site"]])
@pytest.mark.parametrize("origins", [[], ["http://localhost:7071"]])
def test_other_sites_are_refused(sites, origins):
    assert refusal(origins=origins, sites=sites).code == "foreign_origin"


def test_listener_of_the_network_is_answered_under_any_name_but_not_for_pages_of_others():
    assert check("build-box:7071", on_loopback=False) == Authority("build-box", 7071)
    assert check("build-box:7071", origins=["http://build-box:7071"], on_loopback=False).host == "build-box"
    assert refusal("build-box:7071", origins=["http://evil.example"], on_loopback=False).status == 403
