"""Where deliveries may go: public addresses over https, and the networks that a setting allows.

An app inside a network reaches what its callers do not: a caller who may name an address could let it knock there. So
the address that is connected to is looked at, not the name, which may mean something else a moment later.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

NETWORKS_SETTING = "COREMACHINE_WEBHOOK_NETWORKS"
LONGEST_URL = 2000
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What gives a machine's own identity to any program on it: never, whatever a setting allows.
_NEVER: tuple[Network, ...] = tuple(
    map(ip_network, ("169.254.169.254/32", "168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128"))
)
# They lead to an IPv4 address that is written in them.
_TRANSLATED: tuple[Network, ...] = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


@dataclass(frozen=True)
class Target:
    """The parts of an address."""

    is_secure: bool
    host: str
    port: int
    # With the query.
    path: str
    # As the header `Host` has it.
    authority: str


def read_target(url: str) -> Target:
    """The parts of an http or https address.

    Raises:
        ValueError: It is none, or has a user or a fragment; the text does not repeat it.
    """
    expected = "expected an address such as https://example.org/hook"
    if len(url) > LONGEST_URL or not url.isascii() or any(not "!" <= character <= "~" for character in url):
        raise ValueError(f"{expected}, found characters that no address has, or more than {LONGEST_URL}")
    try:
        parts = urlsplit(url)
        given_port = parts.port
    except ValueError as error:
        raise ValueError(f"{expected}, found another text") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{expected}, found another text")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError(f"{expected}, found one with a user or a fragment")
    port = given_port or (443 if parts.scheme == "https" else 80)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    return Target(parts.scheme == "https", parts.hostname, port, path, parts.netloc)


class TargetRules:
    """Which addresses may be connected to.

    Args:
        allowed: Networks that are allowed beside the public ones, also over http.
    """

    def __init__(self, allowed: tuple[Network, ...] = ()) -> None:
        self._allowed = allowed

    def find_refusal(self, address: str, *, is_secure: bool) -> str | None:
        """Why an address is refused; None where it is allowed."""
        found: Address = ip_address(address)
        if isinstance(found, IPv6Address):
            found = found.ipv4_mapped or found
        if _is_in(found, _NEVER):
            return f"{found} gives the identity of this machine away and is never allowed"
        if _is_in(found, self._allowed):
            return None
        if not found.is_global or found.is_multicast or found.is_reserved or _is_in(found, _TRANSLATED):
            return f"{found} is no public address; {NETWORKS_SETTING} may allow its network"
        if not is_secure:
            return f"expected https, found http; only {NETWORKS_SETTING} allows that, for its networks"
        return None

    def find_refusal_of(self, target: Target) -> str | None:
        """The same as far as it shows without a look at names."""
        try:
            return self.find_refusal(target.host, is_secure=target.is_secure)
        except ValueError:
            pass
        if target.is_secure or self._allowed:
            return None
        return f"expected https, found http; only {NETWORKS_SETTING} allows that, for its networks"


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks such as `10.1.0.0/16`, with commas between. Raises ValueError, which names the wrong one."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
