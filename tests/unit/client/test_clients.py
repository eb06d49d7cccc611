"""What both clients do with answers, outages and arguments; each test runs with and without awaiting."""

import asyncio
import inspect
import json
import ssl
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest

from coremachine import client as api
from coremachine.client import clients, exchange, waiting

JOB_ID = "3f2a9c" + "0" * 58
NOW = "2026-01-02T03:04:05Z"
LINKS = dict.fromkeys(
    ["self", "poll", "operation", "tasks", "events", "runs", "cancel", "pause", "resume", "rerun"], "http://jobs/x"
)
SUBMITTED = {
    "job_id": JOB_ID,
    "job_type": "hello_world",
    "status": "queued",
    "run": 1,
    "created": True,
    "outcome": "created",
    "advice": None,
    "correlation_id": "c",
    "links": LINKS,
}
AWAY = (503, {"title": "Service Unavailable", "code": "database_unavailable", "detail": "send it again later"})
RUN = {
    "run": 1,
    "status": "completed",
    "parameters": {},
    "result": None,
    "error": None,
    "started_at": NOW,
    "finished_at": NOW,
}


def job(status="processing", **fields):
    absent = ("updated_at", "finished_at", "duration_seconds", "deadline_at", "forced_from", "result", "error")
    absent += ("paused_at", "cancel_deadline_at", "tags", "start_at", "hold", "run_started_at")
    plain = {"job_id": JOB_ID, "job_type": "hello_world", "status": status, "run": 1, "stage": 1, "total_stages": 1}
    rest = {"parameters": {}, "correlation_id": "c", "created_at": NOW, "paused": False, "allowed_actions": []}
    return {**plain, **rest, **dict.fromkeys(absent), "stages": [], "links": LINKS, **fields}


class Server:
    """Answers one after the other, and remembers what was asked; the last stays. An exception is raised."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, document, headers = (*answer, {})[:3]
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        return httpx.Response(status, content=content if status != 304 else b"", headers=headers)


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that were slept, which nobody waits for."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    # In the client's module alone: a thread that an earlier test left sleeps as before.
    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(clients, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    return slept


@pytest.fixture(params=["sync", "async"])
def ask(request):
    """Calls a method of a client on a server: its answer, or all items of a list."""

    def call_sync(server, method, *args, options, **kwargs):
        with api.Client("http://jobs", transport=httpx.MockTransport(server), **options) as client:
            answer = getattr(client, method)(*args, **kwargs)
            return list(answer) if isinstance(answer, api.Listing) else answer

    async def call_async(server, method, *args, options, **kwargs):
        async with api.AsyncClient("http://jobs", transport=httpx.MockTransport(server), **options) as client:
            answer = getattr(client, method)(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else [item async for item in answer]

    def call(server, method, *args, options=(), **kwargs):
        if request.param == "sync":
            return call_sync(server, method, *args, options=dict(options), **kwargs)
        return asyncio.run(call_async(server, method, *args, options=dict(options), **kwargs))

    return call


def test_submission_is_sent_as_the_api_reads_it(ask):
    server = Server((202, SUBMITTED))
    answer = ask(
        server,
        "submit_job",
        "hello_world",
        {"n": 3},
        tag=["team=geo", "a=b"],
        start_at=datetime(2026, 3, 1, 6, tzinfo=UTC),
        idempotency_key="order-7",
        wait=10,
        options={"key": "k", "role_key": "r"},
    )
    assert (answer.job_id, answer.status, answer.links.self_) == (JOB_ID, "queued", "http://jobs/x")
    (request,) = server.requests
    assert (request.method, request.url.path) == ("POST", "/api/jobs/submit/hello_world")
    assert request.url.params.multi_items() == [
        ("tag", "team=geo"),
        ("tag", "a=b"),
        ("start_at", "2026-03-01T06:00:00+00:00"),
    ]
    assert json.loads(request.content) == {"n": 3}
    sent = {name: request.headers[name] for name in ("idempotency-key", "prefer", "x-functions-key")}
    assert sent == {"idempotency-key": "order-7", "prefer": "wait=10", "x-functions-key": "k"}
    assert request.headers["x-coremachine-key"] == "r"


def test_list_goes_on_to_its_last_page(ask):
    server = Server((200, {"value": [RUN], "next_cursor": "c1"}), (200, {"value": [{**RUN, "run": 2}]}))
    assert [each.run for each in ask(server, "list_runs", JOB_ID)] == [1, 2]
    assert [dict(request.url.params) for request in server.requests] == [{}, {"cursor": "c1"}]


def test_list_that_never_ends_is_left(ask):
    server = Server((200, {"value": [], "next_cursor": "c1"}))
    with pytest.raises(api.UnexpectedAnswer, match="another next_cursor of jobs/"):
        ask(server, "list_runs", JOB_ID)
    assert len(server.requests) == 2


def test_answer_of_a_newer_server_is_read(ask):
    """Fields that are not known are left out, and statuses that are not are kept."""
    run = {**RUN, "status": "hibernating", "dreams": 3}
    (found,) = ask(Server((200, {"value": [run], "more": True})), "list_runs", JOB_ID)
    assert (found.status, found.status.is_known) == ("hibernating", False)
    answer = ask(Server((200, job("hibernating", allowed_actions=["wake"]))), "get_job", JOB_ID)
    assert (answer.status.is_terminal, answer.allowed_actions) == (False, ["wake"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((200, {"job_id": JOB_ID}), "job_type"),
        ((200, ["no", "job"]), "is it CoreMachine?"),
        ((200, b"<html>"), "is it CoreMachine?"),
        ((200, b'{"n": ' + b"9" * 5000 + b"}"), "is it CoreMachine?"),
        ((302, b"", {"Location": "https://login.example/a?state=secret"}), r"a redirect to https://login\.example: "),
        ((302, b"", {"Location": "/.auth/login"}), "found a redirect to http"),
    ],
)
def test_answer_of_another_kind_is_named(ask, answer, said):
    with pytest.raises(api.UnexpectedAnswer, match=said):
        ask(Server(answer), "get_job", JOB_ID)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, api.InvalidRequest),
        (401, api.Unauthorized),
        (403, api.Forbidden),
        (404, api.NotFound),
        (405, api.InvalidRequest),
        (409, api.Conflict),
        (410, api.Conflict),
        (413, api.InvalidRequest),
        (415, api.InvalidRequest),
        (422, api.Conflict),
        (429, api.Throttled),
        (500, api.ServerFault),
        (503, api.Unavailable),
    ],
)
def test_problem_is_an_exception_of_its_family(ask, status, kind):
    problem = {"title": "T", "status": status, "code": "some_code", "detail": "D", "errors": [{"field": "n"}]}
    with pytest.raises(api.ApiProblem) as caught:
        ask(Server((status, problem)), "get_job", JOB_ID, options={"retry_seconds": 0})
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.title, error.detail) == (status, "some_code", "T", "D")
    assert (error.errors, error.problem) == ([{"field": "n"}], problem)


def test_read_is_repeated_until_the_server_is_back(ask, pauses):
    seen = []
    server = Server((*AWAY, {"Retry-After": "5"}), httpx.ConnectError("refused"), (200, job()))
    answer = ask(server, "get_job", JOB_ID, options={"on_outage": seen.append})
    assert answer.job_id == JOB_ID
    # What the server asked for, then the next pause of its own; one outage, said once, and its end.
    assert pauses == [5.0, 1.0]
    assert [type(each) for each in seen] == [api.Unavailable, type(None)]


def test_outage_has_an_end(ask, monkeypatch, pauses):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(exchange, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    server = Server(AWAY)
    with pytest.raises(api.Unavailable):
        ask(server, "get_job", JOB_ID, options={"retry_seconds": 25})
    assert (len(server.requests), pauses) == (4, [0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        ("cancel_job", (JOB_ID,), {}),
        ("submit_job", ("hello_world",), {"force": True}),
        ("act_on_jobs", ("cancel", {}), {"confirm": 1}),
        ("readyz", (), {}),
    ],
)
def test_what_could_be_done_twice_is_asked_once(ask, method, args, options):
    server = Server(AWAY)
    with pytest.raises(api.Unavailable):
        ask(server, method, *args, **options)
    assert len(server.requests) == 1


def test_what_was_one_of_too_many_is_asked_again(ask):
    throttled = (429, {"code": "too_many_requests"}, {"Retry-After": "1"})
    server = Server(throttled, (202, {"job_id": JOB_ID, "status": "cancelling", "links": LINKS}))
    assert ask(server, "cancel_job", JOB_ID).status == "cancelling"


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), (502, b"bad gateway")])
def test_server_that_was_never_seen_is_not_waited_for(ask, answer):
    server = Server(answer)
    with pytest.raises((api.ServerUnreachable, api.Unavailable)):
        ask(server, "get_job", JOB_ID)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["app_not_ready", "app_cannot_be_loaded"])
def test_app_that_somebody_must_set_up_is_not_waited_for(ask, code):
    server = Server((503, {"code": code, "detail": "no database"}))
    with pytest.raises(api.Unavailable):
        ask(server, "get_job", JOB_ID)
    assert len(server.requests) == 1


def test_not_ready_is_an_answer(ask):
    checks = [{"name": "database", "ok": False, "detail": "away"}]
    assert ask(Server((503, {"status": "not_ready", "checks": checks})), "readyz").checks[0].detail == "away"


def test_wait_carries_a_body_only_for_what_changed(ask):
    tag = {"ETag": '"1"'}
    server = Server((200, job(), tag), (304, b"", tag), AWAY, (200, job("completed", result={"n": 3})))
    assert ask(server, "wait_for_job", JOB_ID).result == {"n": 3}
    assert [request.headers.get("If-None-Match") for request in server.requests] == [None, '"1"', '"1"', '"1"']
    assert {request.url.params["wait"] for request in server.requests} == {"20"}


def test_wait_shows_each_change(ask):
    states = []
    server = Server((200, job("queued")), (200, job("processing")), (200, job("failed")))
    answer = ask(server, "wait_for_job", JOB_ID, on_change=lambda each: states.append(each.status))
    assert (answer.status, states) == ("failed", ["queued", "processing", "failed"])


def counted(completed, at):
    """A stage of many tasks as a process of the server has counted it; `at` is a second, or None for now."""
    time = None if at is None else f"2026-01-02T03:04:{at:02}Z"
    counts = {"pending": 0, "queued": 0, "processing": 0, "pending_retry": 0, "failed": 0, "cancelled": 0}
    absent = ("max_parallel", "planned_at", "finished_at", "deadline_at", "queue_deadline_at", "from_run")
    return {
        "stage": 1,
        "name": "reply",
        "task_type": "reply",
        "parallelism": "fan_out",
        "status": "processing",
        "expected_count": 5000,
        "failed_count": 0,
        "created_at": NOW,
        "duration_seconds": None,
        **dict.fromkeys(absent),
        "counts": counts | {"completed": completed},
        "counted_at": time,
    }


def test_a_count_of_before_does_not_take_the_place_of_a_later_one(ask):
    """Two processes answer in turns, and each has its own count of a large stage: progress went backwards."""
    shown = []
    answers = [(900, 10), (500, 7), (1200, 12), (1100, 11), (5000, None)]
    jobs = [(200, job(stages=[counted(*each)])) for each in answers]
    # In another run everything begins anew.
    jobs += [(200, job(run=2, stages=[counted(3, 5)])), (200, job("failed", run=2, stages=[counted(2, 4)]))]
    answer = ask(Server(*jobs), "wait_for_job", JOB_ID, on_change=lambda each: shown.append(each.stages[0]))
    assert [stage.counts["completed"] for stage in shown] == [900, 900, 1200, 1200, 5000, 3, 3]
    assert shown[1].counted_at == shown[0].counted_at
    assert answer.stages[0].counts["completed"] == 3


def test_wait_has_an_end(ask, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with pytest.raises(api.WaitTimeout, match="still processing after 30 s") as caught:
        ask(Server((200, job())), "wait_for_job", JOB_ID, timeout_seconds=30)
    assert (caught.value.job_id, caught.value.status) == (JOB_ID, "processing")


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        ("get_job", ("",), {}),
        ("get_job", ("..",), {}),
        ("submit_job", ("hello_world",), {"idempotency_key": "a b"}),
        ("submit_job", ("hello_world", {"n": float("nan")}), {}),
        ("submit_job", ("hello_world", {"n": {1, 2}}), {}),
        ("submit_job", ("hello_world", {"n": "\ud800"}), {}),
        ("list_jobs", (), {"created_after": datetime(2026, 1, 1)}),  # noqa: DTZ001 - that is what is wrong
    ],
)
def test_argument_that_no_request_can_have_is_named(ask, method, args, options):
    with pytest.raises(api.WrongArgument, match="expected"):
        ask(Server((200, {})), method, *args, **options)


@pytest.mark.parametrize("url", ["", "jobs", "ftp://jobs", "http://", "http://jobs:x"])
def test_address_that_is_none_is_named(url):
    with pytest.raises(api.WrongArgument, match="expected an address"):
        api.Client(url)


def test_key_is_not_repeated_in_an_error():
    with pytest.raises(api.WrongArgument) as caught:
        api.Client("http://jobs", key="secret word")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", [api.Client, api.AsyncClient])
def test_certificates_are_read_where_there_is_tls_alone(monkeypatch, kind):
    """Those of all authorities took 25 ms, of each command that asked the stack of this machine."""
    read = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *given, **named: read.append(load(*given, **named))
    )
    for url, times in (("http://127.0.0.1:7071", 0), ("http://jobs", 0), ("https://jobs", 1)):
        kind(url)
        assert len(read) == times, url


def test_a_server_without_tls_is_never_asked_over_an_unchecked_one():
    context = api.Client("http://jobs")._options["verify"]
    assert (context.verify_mode, context.check_hostname, context.get_ca_certs()) == (ssl.CERT_REQUIRED, True, [])
    assert api.Client("https://jobs")._options["verify"] is True


class Token:
    token = "t0"  # noqa: S105 - none of a server


class Credential:
    def get_token(self, *scopes):
        self.scopes = scopes
        return Token()


class AwaitedCredential(Credential):
    async def get_token(self, *scopes):
        return super().get_token(*scopes)


def test_token_goes_with_each_request(ask):
    server, credential = Server((200, job())), Credential()
    ask(server, "get_job", JOB_ID, options={"credential": credential, "scope": "api://x/.default"})
    assert server.requests[0].headers["Authorization"] == "Bearer t0"
    assert credential.scopes == ("api://x/.default",)


def test_credential_may_be_awaited():
    async def call(server):
        options = {"credential": AwaitedCredential(), "scope": "api://x/.default"}
        async with api.AsyncClient("http://jobs", transport=httpx.MockTransport(server), **options) as client:
            await client.get_job(JOB_ID)

    server = Server((200, job()))
    asyncio.run(call(server))
    assert server.requests[0].headers["Authorization"] == "Bearer t0"


def test_credential_without_a_scope_is_refused():
    with pytest.raises(api.WrongArgument, match="found credential alone"):
        api.Client("http://jobs", credential=Credential())
