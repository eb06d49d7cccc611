"""What a shell offers after Tab."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from coremachine.cli import completion
from coremachine.cli.main import main

from .conftest import JOB_ID, FakeApi

Offer = Callable[..., str]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Offer:
    """What bash is given for the words of a line, of which the last is typed only in part."""

    def ask(*words: str, url: str) -> str:
        monkeypatch.setenv("COREMACHINE_URL", url)
        monkeypatch.setenv("_COREMACHINE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["coremachine", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        main([])
        shown = capfd.readouterr()
        assert shown.err == ""
        return shown.out

    return ask


def page_of(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"value": list(rows), "next_cursor": None}


def test_job_types_are_offered(api: FakeApi, offer: Offer) -> None:
    api.answer("GET /api/job-types", page_of({"job_type": "word_count", "description": "words"}, {"job_type": "other"}))
    assert offer("submit", "wo", url=api.url).split() == ["word_count"]
    assert offer("list", "--type", "o", url=api.url).split() == ["other"]


def test_job_ids_are_offered(api: FakeApi, offer: Offer) -> None:
    other = "a" * 64
    jobs = [{"job_id": job_id, "job_type": "word_count", "status": "failed"} for job_id in (JOB_ID, other)]
    api.answer("GET /api/jobs", page_of(*jobs))
    assert offer("explain", "3f", url=api.url).split() == [JOB_ID[:12]]
    assert offer("explain", other[:20], url=api.url).split() == [other]
    assert offer("failures", "", url=api.url).split() == [JOB_ID[:12], other[:12]]


def test_nothing_is_offered_and_nothing_said_without_a_server(api: FakeApi, offer: Offer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert offer("explain", "3f", url=f"http://127.0.0.1:{port}").split() == []
    assert offer("explain", "3f", url="no address").split() == []
    api.answer("GET /api/jobs", {"title": "no", "code": "forbidden"}, status=403)
    assert offer("explain", "3f", url=api.url).split() == []


def test_a_server_that_does_not_answer_is_left_soon(monkeypatch: pytest.MonkeyPatch, offer: Offer) -> None:
    monkeypatch.setattr(completion, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert offer("explain", "3f", url=f"http://127.0.0.1:{silent.getsockname()[1]}").split() == []
