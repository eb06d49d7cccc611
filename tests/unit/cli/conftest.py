"""A small HTTP server that answers as the API would, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from coremachine.cli.main import main

# A document, or the bytes of something else.
Answer = tuple[int, Any]
JOB_ID = "3f2a9c" + "0" * 58
# The connection is closed without an answer.
DROPPED: Answer = (0, {})


@dataclass
class FakeApi:
    """Answers by `METHOD path`, one after the other; the last stays."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, call: str, *documents: Any, status: int = 200) -> None:
        self.answers[call] = [(status, document) for document in documents]

    def respond(self, call: str, query: dict[str, str], body: Any) -> Answer:
        self.requests.append((call, query, body))
        answers = self.answers.get(call)
        if not answers:
            return 404, {"title": "Not Found", "status": 404, "code": "not_found", "detail": f"no {call} here"}
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.headers.append(dict(self.headers.items()))
            status, document = fake.respond(f"{self.command} {parts.path}", dict(parse_qsl(parts.query)), body)
            if (status, document) == DROPPED:
                self.close_connection = True
                return
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def run(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command against the fake; its exit code."""
    monkeypatch.setenv("COREMACHINE_URL", api.url)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: main(arguments)


def job(status: str = "processing", **fields: Any) -> dict[str, Any]:
    """A job's detail, in its second stage."""
    counts = {
        "pending": 0,
        "queued": 1,
        "processing": 2,
        "pending_retry": 0,
        "completed": 6,
        "failed": 1,
        "cancelled": 0,
    }
    stage = {"task_type": "t", "parallelism": "single", "status": "processing", "created_at": "2026-01-02T03:04:05Z"}
    return {
        "job_id": JOB_ID,
        "job_type": "hello_world",
        "status": status,
        "run": 1,
        "stage": 2,
        "total_stages": 2,
        "parameters": {"n": 10},
        "created_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:05:10Z" if status in {"completed", "failed"} else None,
        "result": None,
        "error": None,
        "stages": [
            {**stage, "stage": 1, "name": "greet", "expected_count": 10, "counts": {**counts, "completed": 9}},
            {**stage, "stage": 2, "name": "reply", "expected_count": 10, "counts": counts},
        ],
        **fields,
    }
