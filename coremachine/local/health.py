"""Whether this process is alive and ready, for probes. It has a port of its own, for apps without HTTP."""

import json
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_SECONDS = 5.0


class HealthServer:
    """`/livez`: 200. `/readyz`: 200 while the app takes work, else 503 with what it does instead.

    Args:
        look: starting, ready, or draining.
    """

    def __init__(self, address: str, port: int, look: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = _SECONDS

            def do_GET(self) -> None:
                status, document = _answer(self.path, look)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Probes come every few seconds: no line for each."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

        self._server = Server((address, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(path: str, look: Callable[[], str]) -> tuple[HTTPStatus, dict[str, str]]:
    if path == "/livez":
        return HTTPStatus.OK, {"status": "alive"}
    if path == "/readyz":
        status = look()
        return HTTPStatus.OK if status == "ready" else HTTPStatus.SERVICE_UNAVAILABLE, {"status": status}
    return HTTPStatus.NOT_FOUND, {"status": "expected /livez or /readyz"}
