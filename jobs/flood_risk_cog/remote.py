"""Places outside of this machine, through fsspec."""

from typing import Any
from urllib.parse import urljoin, urlsplit


class RedirectRefused(OSError):
    """A server sends us to another one, which nobody has allowed."""


def is_remote(path: str) -> bool:
    return "://" in path


def without_file_scheme(path: str) -> str:
    """A `file://` URL as the local path that it is; anything else unchanged."""
    return path.removeprefix("file://")


def filesystem_of(path: str) -> tuple[Any, str]:
    """Fsspec's file system of a path or URL, and the path in it."""
    import fsspec  # noqa: PLC0415 - an extra

    options = {"get_client": _client_of_one_host} if path.startswith(("http://", "https://")) else {}
    return fsspec.core.url_to_fs(path, **options)  # type: ignore[no-any-return]


async def _client_of_one_host(**options: Any) -> Any:
    """An HTTP session that follows redirects on the host that was asked, and no others."""
    import aiohttp  # noqa: PLC0415 - what fsspec uses for http

    async def check(_session: Any, _context: Any, event: Any) -> None:
        asked = str(event.response.url)
        there = urljoin(asked, event.response.headers.get("Location", ""))
        if urlsplit(there).netloc != urlsplit(asked).netloc:
            raise RedirectRefused(f"expected the file at {urlsplit(asked).netloc}, found a redirect to another host")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(check)
    return aiohttp.ClientSession(trace_configs=[trace], **options)


def find_redirect(error: BaseException | None) -> RedirectRefused | None:
    """The refused redirect that an error comes from."""
    while error is not None and not isinstance(error, RedirectRefused):
        error = error.__cause__ or error.__context__
    return error
