"""Where deliveries may go: the wall between what somebody may name and what the app can reach."""

import pytest

from core.webhooks.targets import TargetRules, read_networks, read_target

REFUSED = [
    "127.0.0.1",
    "::1",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.1.1",
    "fe80::1",
    "fd12::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]
NEVER = ["169.254.169.254", "168.63.129.16", "::ffff:169.254.169.254", "fd00:ec2::254"]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_no_public_address_is_refused(address):
    assert "no public address" in TargetRules().find_refusal(address, is_secure=True)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are_for_https(address):
    rules = TargetRules(read_networks("10.0.0.0/8"))
    assert rules.find_refusal(address, is_secure=True) is None
    assert "expected https" in rules.find_refusal(address, is_secure=False)


def test_a_network_may_be_allowed_also_over_http():
    rules = TargetRules(read_networks("10.1.0.0/16, ::1/128"))
    assert [rules.find_refusal(each, is_secure=False) for each in ("10.1.2.3", "::ffff:10.1.2.3", "::1")] == [None] * 3
    assert rules.find_refusal("10.2.0.1", is_secure=True) is not None


@pytest.mark.parametrize("address", NEVER)
def test_what_gives_an_identity_away_is_never_allowed(address):
    rules = TargetRules(read_networks("0.0.0.0/0, ::/0"))
    assert "never allowed" in rules.find_refusal(address, is_secure=True)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "https://",
        "example.org/hook",
        "https://kim:secret@example.org/",
        "https://example.org/#part",
        "https://example.org/a b",
        "https://example.org/\r\nHost: other",
        "https://exämple.org/",
        "https://example.org:99999/",
        "https://[::1/",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="expected an address such as") as raised:
        read_target(url)
    assert "secret" not in str(raised.value)


def test_parts_of_an_address():
    target = read_target("https://example.org:8443/hook?a=1&b=2")
    assert (target.is_secure, target.host, target.port) == (True, "example.org", 8443)
    assert (target.path, target.authority) == ("/hook?a=1&b=2", "example.org:8443")
    assert read_target("http://example.org").path == "/"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/99"])
def test_networks_that_are_none_are_named(text):
    with pytest.raises(ValueError, match=r".+"):
        read_networks(text)
