"""What holds for every request: its target, its body, its method, and the headers and bounds of every answer."""

import asyncio
import json

import azure.functions as func
import pytest

from triggers.api import create_api
from triggers.http import answer as answer_function
from triggers.problems import ProblemError, problem_document

from .fakes import JOB_ID, JSON, Api, FakeServices, client
from .test_api import assert_problem, errors_of

SUBMIT = "/api/jobs/submit/hello_world"
ACTIONS = [SUBMIT, *(f"/api/jobs/{JOB_ID}/{action}" for action in ("cancel", "pause", "resume", "rerun"))]


def ask_raw(method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes = b"", services=None):
    """A request as ASGI has it, past what a client would refuse to send: status, headers, body."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("jobs.example", 80),
        "headers": headers,
    }
    api = Api(services)
    asyncio.run(api.app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], api.services.calls


class TestDoubledHeaders:
    @pytest.mark.parametrize(
        "name",
        [
            *("Idempotency-Key", "X-Correlation-Id", "Content-Type", "Content-Length", "Content-Encoding"),
            *("Authorization", "X-Functions-Key", "Traceparent", "Last-Event-Id"),
        ],
    )
    def test_header_of_one_value_that_came_twice_is_refused_and_named(self, name):
        """The first of two keys was taken, and the request that the other one named was made as well."""
        header = name.lower().encode()
        status, _, body, calls = ask_raw("POST", SUBMIT, [(header, b"5"), (b"accept", b"*/*"), (header, b"5")])
        (problem,) = json.loads(body)["errors"]
        assert (status, calls) == (400, [])
        assert problem["message"] == f"{name.lower()}: expected one value, found several; give the header once"

    @pytest.mark.parametrize("name", ["Idempotency-Key", "X-Correlation-Id"])
    def test_two_that_the_host_has_joined_are_refused_too(self, name):
        api = Api()
        problem = assert_problem(api.post(SUBMIT, json={}, headers={name: "one,two"}), 400, "invalid_request")
        assert [error["message"] for error in problem["errors"]] == [
            f"{name.lower()}: expected one value without a comma, found 2 of them; give the header once"
        ]
        assert api.services.calls == []

    def test_headers_that_are_lists_may_come_twice(self):
        headers = [(b"accept", b"a/b"), (b"accept", b"*/*"), (b"prefer", b"wait=0"), (b"prefer", b"return=minimal")]
        assert ask_raw("GET", "/api/job-types", headers)[0] == 200


class TestBody:
    @pytest.mark.parametrize("path", [*ACTIONS, "/api/dead-letters/redrive"])
    @pytest.mark.parametrize(
        "headers",
        [
            [(b"transfer-encoding", b"chunked"), (b"content-type", b"application/json")],
            [(b"transfer-encoding", b"chunked")],
            [(b"transfer-encoding", b"gzip, chunked"), (b"content-length", b"0")],
            [(b"content-length", b"9"), (b"content-type", b"application/json")],
            [(b"content-type", b"application/json")],
        ],
    )
    def test_body_that_did_not_arrive_is_not_an_empty_one(self, path, headers):
        """Azure's host hands `Transfer-Encoding: chunked` on without the chunks: `{"n": 77}` ran the defaults."""
        status, _, body, calls = ask_raw("POST", path, [(b"host", b"jobs.example"), *headers])
        problem = json.loads(body)
        assert (status, problem["code"], calls) == (411, "length_required", [])
        assert "Content-Length" in problem["detail"]

    def test_part_of_a_body_is_refused(self):
        headers = [(b"host", b"h"), (b"content-length", b"9"), (b"content-type", b"application/json")]
        status, _, body, calls = ask_raw("POST", SUBMIT, headers, b"{}")
        assert (status, json.loads(body)["errors"][0]["expected"], calls) == (400, "the 9 bytes of Content-Length", [])

    @pytest.mark.parametrize("length", [b"-1", b"x", b"1, 1", b"9" * 40])
    def test_length_that_is_none_is_refused(self, length):
        headers = [(b"host", b"h"), (b"content-length", length), (b"content-type", b"application/json")]
        assert ask_raw("POST", SUBMIT, headers, b"{}")[0] == 400

    @pytest.mark.parametrize("path", ACTIONS)
    def test_no_body_and_no_word_of_one_means_the_defaults(self, path):
        assert Api().post(path).status_code in {200, 202, 409}
        assert ask_raw("POST", path, [(b"host", b"h")])[0] in {200, 202, 409}

    def test_chunks_that_arrive_are_read(self):
        async def chunks():
            yield b'{"n"'
            yield b": 5}"

        api = Api()
        assert api.post(SUBMIT, content=chunks(), headers=JSON).status_code == 202
        assert api.services.calls[0][1]["parameters"] == {"n": 5}

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/jsonp",
            "text/json",
            "application/json; charset=latin-1",
            'application/json; charset="utf-16"',
            "*/*",
        ],
    )
    @pytest.mark.parametrize("path", ACTIONS)
    def test_body_that_is_not_called_json_is_refused(self, path, content_type):
        headers = {} if content_type is None else {"Content-Type": content_type}
        api = Api()
        response = api.post(path, content=b"{}", headers=headers)
        assert_problem(response, 415, "unsupported_media_type")
        assert api.services.calls == []

    @pytest.mark.parametrize(
        "content_type",
        ["application/json; charset=utf-8", 'Application/JSON;Charset="UTF-8"', "application/merge-patch+json"],
    )
    def test_json_by_its_other_names_is_taken(self, content_type):
        assert Api().post(SUBMIT, content=b"{}", headers={"Content-Type": content_type}).status_code == 202

    def test_packed_body_is_refused(self):
        response = Api().post(SUBMIT, content=b"{}", headers={**JSON, "Content-Encoding": "gzip"})
        assert_problem(response, 415, "unsupported_media_type")

    def test_blanks_are_no_json(self):
        assert_problem(Api().post(SUBMIT, content=b" \n", headers=JSON), 400, "invalid_request")


HOSTS = ["\xe9\xff", "a b", "a/b", "a@b", "", "[::1", "a:b", "a:99999", "a:1:2", "a\\b", "<x>", "x" * 300, "a?b", "a#b"]


class TestTarget:
    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("path", ACTIONS)
    def test_host_that_no_link_can_be_made_of_is_refused_before_the_work(self, path, host):
        status, _, body, calls = ask_raw("POST", path, [(b"host", host.encode("latin-1"))])
        assert (status, json.loads(body)["errors"][0]["field"], calls) == (400, "host", [])

    def test_two_hosts_are_refused(self):
        assert ask_raw("POST", SUBMIT, [(b"host", b"a"), (b"host", b"b")])[0] == 400

    @pytest.mark.parametrize(
        "host", ["localhost", "127.0.0.1:7071", "[::1]:80", "jobs.example.", "a_b.example", "A:80"]
    )
    def test_host_may_be_any_name_or_address(self, host):
        assert ask_raw("POST", SUBMIT, [(b"host", host.encode())])[0] == 202

    def test_without_a_host_links_begin_at_the_server(self):
        _, headers, _, _ = ask_raw("POST", SUBMIT, [])
        assert headers[b"location"].startswith(b"http://jobs.example/api/jobs/")


class TestFunction:
    """As the Functions host calls it; Azure's own library reads the request."""

    @staticmethod
    def ask(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> func.HttpResponse:
        request = func.HttpRequest(method, url, headers=headers or {}, body=b"")
        return asyncio.run(answer_function(request, None, problems=("a setting is wrong",)))

    @pytest.mark.parametrize(
        "url",
        [
            "http://h/api/jobs/%ff",
            "http://h/api/jobs/\xe9%ff",
            "http://[::1/api/jobs",
            "http://h:x/api/jobs",
            "http://h/api/%C0%80",
        ],
    )
    def test_address_that_cannot_be_read_is_a_problem(self, url):
        response = self.ask(url)
        assert (response.status_code, response.mimetype) == (400, "application/problem+json")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(response.get_body())["status"] == 400

    @pytest.mark.parametrize("host", HOSTS)
    def test_host_that_cannot_be_read_is_a_problem(self, host):
        assert self.ask("http://h/api/jobs", {"host": host}).status_code == 400

    @pytest.mark.parametrize("port", ["x", "-1", "9" * 5000, ""])
    def test_forwarded_port_of_any_kind_is_no_500(self, port):
        assert self.ask("http://h/api/jobs", {"host": "h", "x-forwarded-port": port}).status_code in {400, 503}

    def test_percent_sign_is_a_character_like_any_other(self):
        response = self.ask("http://h/api/%25ff")
        assert (response.status_code, json.loads(response.get_body())["instance"]) == (404, "/api/%ff")


class TestMethods:
    GETS = ("/api/jobs", f"/api/jobs/{JOB_ID}", "/api/job-types", "/api/livez", "/api/readyz", "/api/docs")

    @pytest.mark.parametrize("path", GETS)
    def test_head_is_get_without_the_body(self, path):
        api = Api()
        full, head = api.get(path), api("HEAD", path)
        assert (head.status_code, head.content) == (full.status_code, b"")
        assert head.headers == full.headers

    def test_head_of_what_is_not_there_is_404(self):
        assert Api()("HEAD", "/api/none").status_code == 404

    @pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "POST", "TRACE", "BREW"])
    @pytest.mark.parametrize("path", [f"/api/jobs/{JOB_ID}/runs", "/api/docs/start.js", "/api/openapi.json"])
    def test_method_that_a_path_has_not_is_405_with_those_it_has(self, method, path):
        response = Api()(method, path)
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"

    def test_allow_names_the_methods_of_all_endpoints_of_a_path(self):
        response = Api().get(SUBMIT)
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "OPTIONS, POST"
        assert Api()("HEAD", SUBMIT).status_code == 405
        # No id of a dead letter, though it would fit there.
        assert Api().get("/api/dead-letters/redrive").headers["allow"] == "OPTIONS, POST"

    def test_options_says_what_there_is_and_allows_no_other_origin(self):
        response = Api()("OPTIONS", SUBMIT, headers={"Origin": "https://evil.example"})
        assert (response.status_code, response.headers["allow"], response.content) == (204, "OPTIONS, POST", b"")
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert_problem(Api()("OPTIONS", "/api/none"), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs"),
        ("GET", "/api/none"),
        ("GET", "/api/jobs/x"),
        ("PUT", "/api/jobs"),
        ("OPTIONS", "/api/jobs"),
        ("GET", "/api/docs"),
        ("GET", "/api/docs/start.js"),
        ("GET", "/api/openapi.json"),
        ("POST", SUBMIT),
    ],
)
def test_no_answer_is_kept_or_taken_for_another_type(method, path):
    for api in (Api(), Api(FakeServices(failure=RuntimeError("x")))):
        response = api(method, path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


LONG = "x" * 5000
TEXTS = ["\x00", "a\x00b", "\ud800", "\udfff\ud800", "\x1b[31m", "\u202e", LONG, "\r\nX: y", "../../etc", "' or 1=1 --"]


class TestFields:
    """NUL, half a surrogate pair, numbers beyond their column: nothing of it comes to the services."""

    @pytest.mark.parametrize("text", ["%00", "a%00b", "x" * 101])
    @pytest.mark.parametrize(
        "path",
        [
            "/api/jobs/submit/{}",
            "/api/jobs?job_type={}",
            "/api/jobs?cursor={}==",
            "/api/failures?job_type={}",
            "/api/dead-letters?queue={}",
            f"/api/jobs/{JOB_ID}/events?cursor={{}}==",
            "/api/jobs/{}",
        ],
    )
    def test_text_that_cannot_be_stored_or_is_too_long_is_refused(self, path, text):
        api = Api()
        method = "POST" if "submit" in path else "GET"
        assert_problem(api(method, path.replace("{}", text)), 400, "invalid_request")
        assert api.services.calls == []

    @pytest.mark.parametrize("number", [2**31, 3_000_000_000, 10**30, 0, -1])
    def test_number_beyond_its_column_is_refused(self, number):
        api = Api()
        for query in (f"run={number}", f"stage={number}"):
            assert_problem(api.get(f"/api/jobs/{JOB_ID}/tasks?{query}"), 400, "invalid_request")
        for body in ({"from_stage": number}, {"expected_run": number}):
            assert_problem(api.post(f"/api/jobs/{JOB_ID}/rerun", json=body), 400, "invalid_request")
        if number not in {2**31, 3_000_000_000}:
            assert_problem(api.post("/api/dead-letters/redrive", json={"ids": [number]}), 400, "invalid_request")
            assert_problem(api.get(f"/api/dead-letters/{number}"), 400, "invalid_request")
        assert api.services.calls == []

    @pytest.mark.parametrize("text", ["\x00", "a\x00", "\ud800", "", "x" * 1001])
    @pytest.mark.parametrize("action", ["cancel", "pause", "resume", "rerun"])
    def test_reason_that_cannot_be_stored_is_refused(self, action, text):
        api = Api()
        response = api.post(f"/api/jobs/{JOB_ID}/{action}", content=json.dumps({"reason": text}), headers=JSON)
        assert set(errors_of(assert_problem(response, 400, "invalid_request"))) == {"reason"}
        assert api.services.calls == []

    @pytest.mark.parametrize("name", ["\ud800", "\x00", "a\udfff", "n\x00"])
    @pytest.mark.parametrize("path", [*ACTIONS, "/api/dead-letters/redrive"])
    @pytest.mark.parametrize("wrap", [lambda name: {name: 1}, lambda name: {"parameters": {"a": [{name: 1}]}}])
    def test_name_that_cannot_be_stored_is_refused(self, path, name, wrap):
        api = Api()
        response = api.post(path, content=json.dumps(wrap(name)), headers=JSON)
        assert "NUL or half a surrogate pair" in assert_problem(response, 400, "invalid_request")["detail"]
        assert api.services.calls == []

    @pytest.mark.parametrize("text", TEXTS)
    def test_any_text_as_any_value_is_no_500(self, text):
        api = Api()
        bodies = [{text: 1}, {"reason": text}, {"mode": text}, {"parameters": {"a": text}}, {"ids": [text]}]
        for path in [*ACTIONS, "/api/dead-letters/redrive"]:
            for body in [*bodies, {"queue": text}, {"job_id": text}, {"message": text}, {"n": text}, {"n": [text]}]:
                response = api.post(path, content=json.dumps(body), headers=JSON)
                assert response.status_code < 500, (path, body)
                response.json()

    @pytest.mark.parametrize("text", ["password=hunter2", "x?sig=abc", "Bearer abc.123.def", "postgres://u:p4ss@h"])
    def test_credential_is_refused_where_it_would_be_kept(self, text):
        api = Api()
        for action in ("cancel", "pause", "resume", "rerun"):
            response = api.post(
                f"/api/jobs/{JOB_ID}/{action}", json={"reason": f"because {text}" if "?" not in text else text}
            )
            errors = errors_of(assert_problem(response, 400, "invalid_request"))
            assert errors["reason"]["expected"] == "text without credentials"
            assert text not in response.text
        if " " not in text:
            response = api.post(SUBMIT, json={}, headers={"X-Correlation-Id": text})
            assert "text without credentials" in assert_problem(response, 400, "invalid_request")["detail"]
        assert api.services.calls == []

    @pytest.mark.parametrize("text", ["1_0", "+1", "%201", "1%20", "%D9%A1", "1.0", "9" * 5000])
    def test_number_that_is_not_plain_digits_is_refused(self, text):
        api = Api()
        query = text.replace("+", "%2B")
        for path in (f"dead-letters/{text}", f"jobs/{JOB_ID}/tasks?run={query}", f"jobs?limit={query}"):
            problem = assert_problem(api.get(f"/api/{path}"), 400, "invalid_request")
            assert "a number of at most 19 digits" in problem["detail"]
        assert api.services.calls == []

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("/api/failures?fingerprint=x", "text that matches ^[0-9a-f]{16}$"),
            ("/api/jobs?cursor=@", "text that matches ^[A-Za-z0-9_-]{1,1000}$"),
            ("/api/failures?job_type=", "at least 1 character"),
            ("/api/failures?job_type=" + "x" * 101, "at most 100 characters"),
        ],
    )
    def test_what_is_expected_is_told_as_it_is(self, path, words):
        (error,) = assert_problem(Api().get(path), 400, "invalid_request")["errors"]
        assert error["expected"] == words

    def test_bounds_of_lists_are_told_in_items(self):
        response = Api().post("/api/dead-letters/redrive", json={"ids": list(range(1, 5000))})
        assert "items" in errors_of(assert_problem(response, 400, "invalid_request"))["ids"]["expected"]

    def test_number_without_end_is_told_without_settings_of_python(self):
        response = Api().post(SUBMIT, content=b'{"n": ' + b"9" * 5000 + b"}", headers=JSON)
        problem = assert_problem(response, 400, "invalid_request")
        assert "a number of more than 4300 digits" in problem["detail"]
        assert "sys." not in response.text


class TestBounds:
    @pytest.mark.parametrize("path", [*ACTIONS, "/api/dead-letters/redrive"])
    def test_of_many_wrong_names_a_few_are_told_and_the_others_counted(self, path):
        names = {f"unknown_name_{number}": 1 for number in range(40_000)}
        response = Api().post(path, json=names)
        problem = response.json()
        assert response.status_code == 400
        assert len(problem["errors"]) == 20
        assert problem["more_errors"] in {39_980, 39_981}  # a redrive lacks its selection too
        assert problem["detail"].endswith(f"and {problem['more_errors']} more")
        assert len(response.content) < 20_000

    @pytest.mark.parametrize(
        "body",
        [
            {"x" * 500_000: 1},
            {"n": "x" * 900_000},
            {"n": [["x" * 900_000]]},
            {"message": {"x" * 900_000: 1}},
            {"n": list(range(100_000))},
            {"ids": ["x"] * 200_000},
            {"reason": list(range(100_000))},
            {"mode": "x" * 900_000},
            {"parameters": list(range(100_000))},
            {"queue": "x" * 900_000},
        ],
    )
    @pytest.mark.parametrize("path", [SUBMIT, f"/api/jobs/{JOB_ID}/rerun", "/api/dead-letters/redrive"])
    def test_answer_is_small_whatever_was_sent(self, path, body):
        response = Api().post(path, json=body)
        assert response.status_code == 400
        assert len(response.content) < 20_000

    @pytest.mark.parametrize(
        "query", ["x" * 60_000, "status=" + "x," * 30_000, "job_type=a&" * 500, "limit=" + "9" * 60_000]
    )
    def test_long_query_is_answered_shortly(self, query):
        response = Api().get(f"/api/jobs?{query}")
        assert response.status_code == 400
        assert len(response.content) < 20_000

    def test_text_of_a_problem_can_always_be_sent(self):
        document = problem_document("/\ud800", ProblemError(400, "x", "\udfff" * 100_000))
        assert len(json.dumps(document).encode()) < 100_000


class TestDocs:
    def test_page_loads_what_the_app_itself_has(self):
        page = Api().get("/api/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert "//" not in page.text.replace("<!doctype", "")
        for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
            assert f'"docs/{name}"' in page.text
            assert Api().get(f"/api/docs/{name}").status_code == 200

    def test_function_key_goes_on_to_what_the_page_loads(self):
        page = Api().get("/api/docs", params={"code": 'a"&<b', "clientId": "default"})
        assert '"docs/start.js?code=a%22%26%3Cb&amp;clientId=default"' in page.text

    @pytest.mark.parametrize("name", ["page.html", "README.md", "..%2fapi.py", "%2e%2e%2fapi.py", "x", "%00"])
    def test_other_files_are_not_handed_out(self, name):
        assert Api().get(f"/api/docs/{name}").status_code == 404


def test_many_requests_at_once_are_answered_alike():
    services = FakeServices()
    app = create_api(lambda: services)

    async def scenario():
        async with client(app) as http:
            answers = await asyncio.gather(*(http.post(SUBMIT, json={"n": 1 + index % 3}) for index in range(60)))
        assert {answer.status_code for answer in answers} == {202}

    asyncio.run(scenario())
