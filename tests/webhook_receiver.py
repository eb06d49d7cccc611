"""A receiver of webhooks on loopback, which checks signatures as the text of Standard Webhooks describes."""

import base64
import hashlib
import hmac
import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import QuietHandler, http_server


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """The text: sign `msg_id.timestamp.payload` by HMAC-SHA256 with the key after `whsec_`, decoded from base64.

    The header has a list, with spaces between, of the version, a comma and the signature in base64.
    """
    key = base64.b64decode(secret.split("_", 1)[1])
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = (each.partition(",") for each in headers["webhook-signature"].split(" "))
    return any(version == "v1" and hmac.compare_digest(signature, expected) for version, _, signature in given)


@dataclass
class Receiver:
    """What came, in its order; `statuses` are answered one after the other, then 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    came: "queue.Queue[tuple[dict[str, str], bytes]]" = field(default_factory=queue.Queue)

    def next(self) -> tuple[dict[str, str], dict[str, Any], bytes]:
        headers, body = self.came.get(timeout=60)
        return headers, json.loads(body), body


@contextmanager
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(QuietHandler):
        def do_POST(self) -> None:  # noqa: N802 - as the library calls it
            body = self.rfile.read(int(self.headers["content-length"]))
            status = found.statuses.pop(0) if found.statuses else 204
            self.send_response(status)
            self.send_header("location", f"{found.url}/elsewhere")
            self.end_headers()
            found.came.put(({name.lower(): value for name, value in self.headers.items()}, body))

    with http_server(Handler) as address:
        found.url = f"{address}/hook"
        yield found
