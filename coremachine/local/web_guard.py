"""Which requests a listener on this machine answers: none that a web page makes a browser send.

A browser sends requests to `localhost` for every page that asks it to. Two checks keep pages out:

- `Origin` and `Sec-Fetch-Site` say which page asks. Only a page of the listener itself is answered, and what a person
  types into the address bar. A page on another port of localhost is another page.
- `Host` is the name under which the browser found the listener. A page whose own name resolves to 127.0.0.1 (DNS
  rebinding) counts as the same origin for the browser, so a connection to a loopback address is answered only under a
  loopback name.

A connection that arrives at another address (a listener bound to 0.0.0.0 on purpose) may have any name in `Host`,
because the names of the machine are not known here; the first check remains.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from coremachine.local.problem import Problem, RefusedError

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::(?P<port>[0-9]{0,5}))?")
_HTTP_PORT = 80
_MAX_PORT = 65535
_MAX_AUTHORITY = 300
_OWN_SITES = frozenset({"same-origin", "none"})
_SHOWN = 200


@dataclass(frozen=True)
class Authority:
    """A host in its usual spelling, and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or is_loopback_address(self.host)


@lru_cache(maxsize=1024)
def is_loopback_address(text: str) -> bool:
    """Whether it is an address of 127.0.0.0/8, or ::1; a name is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback and not (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped)


def parse_authority(text: str) -> Authority | None:
    """`host`, `host:port`, `[v6]` or `[v6]:port`; None for anything else: user names, zones, escapes, other bytes.

    Upper case, one dot at the end of a name and the long forms of an IPv6 address are other spellings of the same.
    """
    return _parse_authority(text) if len(text) <= _MAX_AUTHORITY else None


@lru_cache(maxsize=1024)
def _parse_authority(text: str) -> Authority | None:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"] or _HTTP_PORT)
    host = match["host"].lower()
    if host.startswith("["):
        try:
            host = ipaddress.IPv6Address(host[1:-1]).compressed
        except ValueError:
            return None
    else:
        host = host.removesuffix(".")
    return Authority(host, port) if host and port <= _MAX_PORT else None


def check_sender(
    *,
    hosts: Sequence[str],
    origins: Sequence[str],
    sites: Sequence[str],
    on_loopback: bool,
    host_optional: bool = False,
    lets_in: Callable[[str], bool] = lambda _origin: False,
) -> Authority | None:
    """Check who sends a request, by the values of its Host, Origin and Sec-Fetch-Site headers.

    Args:
        on_loopback: The connection arrived at a loopback address.
        host_optional: HTTP/1.0, which no browser speaks, may leave Host out.
        lets_in: Whether pages of a foreign origin may send requests all the same.

    Returns:
        The authority that Host names, None without the header.

    Raises:
        RefusedError: 400 for a malformed Host, 403 for a page's request.
    """
    own = _check_host(hosts, on_loopback=on_loopback, host_optional=host_optional)
    if len(origins) == 1 and lets_in(origins[0]):
        return own
    if origins and not (len(origins) == 1 and own is not None and _authority_of(origins[0]) == own):
        raise _foreign(f"a request of the page {_shown(origins)}")
    if sites and not (len(sites) == 1 and sites[0].strip().lower() in _OWN_SITES):
        raise _foreign(f"Sec-Fetch-Site {_shown(sites)}")
    return own


def _check_host(hosts: Sequence[str], *, on_loopback: bool, host_optional: bool) -> Authority | None:
    if not hosts and host_optional:
        return None
    authority = parse_authority(hosts[0]) if len(hosts) == 1 else None
    if authority is None:
        found = _shown(hosts) if hosts else "none"
        raise RefusedError(
            Problem(400, "malformed_host", f"Host: expected one name or address with an optional port, found {found}.")
        )
    if on_loopback and not authority.is_loopback:
        raise RefusedError(
            Problem(
                403,
                "foreign_host",
                f"Host: expected localhost, 127.0.0.1 or [::1], found {_shown(hosts)}. This listener answers only "
                "under a loopback name, so that no web page reaches it through a name of its own. Use http://localhost "
                "with the port; a proxy in front must send `Host: localhost`.",
            )
        )
    return authority


def _authority_of(origin: str) -> Authority | None:
    return parse_authority(origin.removeprefix("http://")) if origin.startswith("http://") else None


def _foreign(found: str) -> RefusedError:
    return RefusedError(
        Problem(
            403,
            "foreign_origin",
            f"Expected a request of a program, of a page of this listener or from the address bar, found {found}. Web "
            "pages of other origins are refused, also those on other ports of this machine. Type the address into the "
            "address bar, use the command line, or let the page's own server send the request.",
        )
    )


def _shown(values: Sequence[str]) -> str:
    return ", ".join(repr(value) for value in values)[:_SHOWN]
