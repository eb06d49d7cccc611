"""Which requests may change something: those that a page of this app makes a browser send.

Another site can make a browser send a form here, together with the cookie of App Service's authentication. The browser
notes where a request comes from: `Sec-Fetch-Site`, and `Origin` in browsers that do not have it. A request without
both is refused: programs use the API.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from triggers.problems import ProblemError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_same_site(headers: Headers) -> None:
    """Raise ProblemError (403) unless the request comes from a page of this app."""
    sites = headers.getlist("sec-fetch-site")
    if sites:
        if sites != ["same-origin"]:
            raise _foreign(f"Sec-Fetch-Site {', '.join(sites)[:100]!r}")
        return
    origins, hosts = headers.getlist("origin"), headers.getlist("host")
    if len(origins) != 1 or len(hosts) != 1:
        raise _foreign("a request without Sec-Fetch-Site and Origin")
    origin = _authority(origins[0])
    # The platform ends TLS before the app: the page's own scheme decides what a host without a port means.
    if origin is None or origin != _authority(f"{origins[0].partition(':')[0]}://{hosts[0]}"):
        raise _foreign(f"Origin {origins[0][:100]!r}")


def _authority(address: str) -> tuple[str, int] | None:
    """Host and port of a web address; None for anything else, such as the `null` of a sandboxed page."""
    try:
        parts = urlsplit(address)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None


def _foreign(found: str) -> ProblemError:
    return ProblemError(
        403,
        "foreign_origin",
        f"Expected a request of a page of this app, found {found}. Open the page itself and use its button; "
        "a program uses the HTTP API.",
    )
