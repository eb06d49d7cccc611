"""Which requests may change something: those that a page of this app makes a browser send.

Another site can make a browser send a form here, together with the cookie of App Service's authentication. The browser
notes where a request comes from: `Sec-Fetch-Site`, and `Origin` in browsers that do not have it. A request without
both is refused: programs use the API.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

from triggers.problems import ProblemError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_same_site(headers: Headers, scheme: str) -> None:
    """Raise ProblemError (403) unless the request comes from a page of this app.

    Args:
        scheme: Of the request, for the port of a Host that names none.
    """
    sites = headers.getlist("sec-fetch-site")
    if sites:
        if sites != ["same-origin"]:
            raise _foreign(f"Sec-Fetch-Site {', '.join(sites)[:100]!r}")
        return
    origins, hosts = headers.getlist("origin"), headers.getlist("host")
    if len(origins) != 1 or len(hosts) != 1:
        raise _foreign("a request without Sec-Fetch-Site and Origin")
    origin = urlsplit(origins[0])
    # The platform ends TLS before the app: the page's own scheme decides what a host without a port means.
    if _authority(origins[0], scheme) != _authority(f"{origin.scheme}://{hosts[0]}", scheme):
        raise _foreign(f"Origin {origins[0][:100]!r}")


def _authority(address: str, scheme: str) -> tuple[str | None, int | None] | None:
    try:
        parts = urlsplit(address)
        return parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme or scheme)
    except ValueError:
        return None


def _foreign(found: str) -> ProblemError:
    return ProblemError(
        403,
        "foreign_origin",
        f"Expected a request of a page of this app, found {found}. Open the page itself and use its button; "
        "a program uses the HTTP API.",
    )
