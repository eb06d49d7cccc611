"""Where a server is, and whether it is on this machine."""

from urllib.parse import urlsplit

import httpx

from coremachine.client.errors import WrongArgument
from coremachine.local.web_guard import is_loopback_address


def read_url(url: str) -> str:
    """The address without `/api` at its end.

    Raises:
        WrongArgument: It is no address of a server.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        is_address = False
    if not is_address:
        raise WrongArgument(f"expected an address such as http://127.0.0.1:7071, found {url!r:.300}")
    return url.rstrip("/").removesuffix("/api")


def is_on_this_machine(url: str) -> bool:
    """Whether the server sees this machine's files; no proxy is between."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)
