"""The HTTP API as calls; all waiting for jobs is here too."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from core.models import JobStatus
from core.safety.safe_text import brief_text
from coremachine.cli.errors import ApiError, CliError, ServerUnreachable, TimeIsUp, UsageProblem
from coremachine.cli.patience import Patience, Say, is_outage
from coremachine.local.stack_file import find_stack_of
from coremachine.local.web_guard import is_loopback_address

DEFAULT_URL = "http://127.0.0.1:7071"
JOB_ID_LENGTH = 64
# Azure's front ends cut a silent request after 230 s; 20 is far below and rarely asks.
LONGEST_POLL_SECONDS = 20.0
_POLL_SECONDS = 0.25
_SLOW_POLL_SECONDS = 1.0
_TIMEOUT_SECONDS = 30.0
# A thousand submissions, or an action on a thousand jobs; Azure's front ends cut what takes longer.
_BATCH_SECONDS = 230.0
# Near a deadline the wait for an answer is shorter, but never shorter than this.
_LEAST_TIMEOUT_SECONDS = 5.0
# A wait without a deadline goes on over an outage of this length; a submission is repeated for a shorter one.
_OUTAGE_SECONDS = 600.0
_SUBMIT_OUTAGE_SECONDS = 30.0
_PAGE = 200
# Of a request that follows: shorter than any limit of a proxy.
_WAIT_SECONDS = 20
# How many of the newest jobs an abbreviated id is looked for in.
_PREFIX_SEARCH = 1000
_TERMINAL = frozenset(status.value for status in JobStatus if status.is_terminal)

Json = dict[str, Any]
# What commands rely on in an answer; a server of another kind answers with other JSON.
_JOB_SHAPE: Mapping[str, type] = {"job_id": str, "status": str, "run": int}
_PAGE_SHAPE: Mapping[str, type] = {"value": list}
_SCHEDULE_SHAPE: Mapping[str, type] = {"name": str, "cron": str}
_LIMIT_SHAPE = {"name": str, "holders": list}
_DELIVERY_SHAPE: dict[str, type] = {"id": str, "status": str}


def choose_url(given: str | None) -> str:
    """The option, else COREMACHINE_URL, else the stack of this folder or one above, else the default port."""
    url = given or os.environ.get("COREMACHINE_URL")
    if not url:
        stack = find_stack_of(Path.cwd())
        url = stack.url if stack else DEFAULT_URL
    return url.rstrip("/").removesuffix("/api")


def is_terminal(status: str) -> bool:
    """Whether a job stays in this status. An unknown one (of a newer server) does not count."""
    return status in _TERMINAL


class ApiClient:
    """Calls to one server. Every call raises `ApiError` or `ServerUnreachable`.

    Args:
        url: Without `/api`.
        transport: Another way to the server, for tests.
    """

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        _check_url(url)
        self.url = url
        # Whether the server has answered: one that never did may be the wrong one.
        self._was_reached = False
        variables = {"COREMACHINE_FUNCTION_KEY": "x-functions-key", "COREMACHINE_KEY": "x-coremachine-key"}
        keys = {name: os.environ.get(name) for name in variables}
        self._http = httpx.Client(
            base_url=f"{url}/api/",
            timeout=_TIMEOUT_SECONDS,
            transport=transport,
            headers={variables[name]: _header(name, key) for name, key in keys.items() if key},
            # A proxy of the environment (HTTP_PROXY) does not reach this machine's own servers.
            trust_env=not _is_on_this_machine(url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the server sees this machine's files."""
        return _is_on_this_machine(self.url)

    def submit(
        self,
        job_type: str,
        parameters: Mapping[str, Any],
        *,
        force: bool = False,
        idempotency_key: str | None = None,
        if_ended: str | None = None,
        tags: Sequence[str] = (),
        start_at: str | None = None,
        say: Say | None = None,
    ) -> Json:
        """The job that the submission made or found.

        Args:
            say: With it, submit again where the server is away for a moment and a repetition finds the same job; it
                shows that to people.
            force: A new job, even if one of the same parameters is there.
            idempotency_key: The same key again gives the same job.
            if_ended: return, rerun, force or fail, where the job is there and does not run with these parameters.
            tags: `name=value` each.
            start_at: RFC 3339.
        """
        query = {"force": "true" if force else None, "if_ended": if_ended, "tag": list(tags), "start_at": start_at}
        if idempotency_key is not None:
            _header("--idempotency-key", idempotency_key)

        def send() -> Json:
            return self._call(
                "POST",
                _path("jobs", "submit", job_type),
                json=dict(parameters),
                params={name: value for name, value in query.items() if value},
                headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
                shape=_JOB_SHAPE,
            )

        is_repeatable = idempotency_key is not None or not (force or if_ended not in {None, "return"})
        if say is None or not is_repeatable:
            return send()
        return self._patience(say, outage_seconds=_SUBMIT_OUTAGE_SECONDS).ask(send)

    def draft(self, job_type: str, parameters: Mapping[str, Any]) -> Json:
        """What a submission would write; nothing is."""
        path = _path("jobs", "submit", job_type)
        return self._call("POST", path, json=dict(parameters), params={"dry_run": "true"}, shape={"first_stage": dict})

    def submit_batch(self, jobs: Sequence[Json]) -> Json:
        """Up to 1,000 submissions: an outcome for each, in their order."""
        return self._call(
            "POST", "jobs/submit:batch", json={"jobs": list(jobs)}, timeout=_BATCH_SECONDS, shape=_PAGE_SHAPE
        )

    def get_job(self, job_id: str, *, wait_seconds: float = 0.0, timeout_seconds: float = _TIMEOUT_SECONDS) -> Json:
        """The job. With a wait, the server may answer when the job has ended, at the latest after that time."""
        query = {"wait": f"{wait_seconds:g}"} if wait_seconds else {}
        timeout = timeout_seconds + wait_seconds
        return self._call("GET", _path("jobs", job_id), params=query, timeout=timeout, shape=_JOB_SHAPE)

    def list_jobs(self, *, limit: int = 20, paused: bool | None = None, **query: Any) -> list[Json]:
        """`query`: status, job_type, tag, correlation_id, error, created_after, created_before, sort."""
        return self._collect("jobs", {**query, "paused": None if paused is None else str(paused).lower()}, limit)

    def list_tasks(
        self, job_id: str, *, status: str | None = None, stage: int | None = None, run: int | None = None, limit: int
    ) -> list[Json]:
        return self._collect(_path("jobs", job_id, "tasks"), {"status": status, "stage": stage, "run": run}, limit)

    def get_task(self, job_id: str, task_id: str, *, run: int | None = None) -> Json:
        query = {} if run is None else {"run": run}
        return self._call("GET", _path("jobs", job_id, "tasks", task_id), params=query)

    def list_events(self, job_id: str, *, limit: int) -> list[Json]:
        return self._collect(_path("jobs", job_id, "events"), {}, limit)

    def follow_events(self, job_id: str) -> Iterator[Json]:
        """The timeline, from its beginning, as it comes, until the job has ended."""
        query: dict[str, Any] = {"wait": _WAIT_SECONDS}
        has_ended = False
        while not has_ended:
            asked_at = time.monotonic()
            page = self._call("GET", _path("jobs", job_id, "events"), params=query, shape=_PAGE_SHAPE)
            for event in page["value"]:
                has_ended = _has_ended_after(event, has_ended=has_ended)
                yield event
            query["cursor"] = page["next_cursor"]
            if not page["value"]:
                # A server where too many wait answers at once.
                time.sleep(max(0.0, min(1.0, asked_at + 1.0 - time.monotonic())))

    def list_logs(
        self, job_id: str, *, task_id: str | None = None, run: int | None = None, after: int | None = None, limit: int
    ) -> list[Json]:
        query = {"task_id": task_id, "run": run, "after": after}
        return self._collect(_path("jobs", job_id, "logs"), query, limit)

    def list_job_types(self) -> list[Json]:
        return self._collect("job-types", {}, 10_000)

    def list_runs(self, job_id: str) -> list[Json]:
        return list(self._call("GET", _path("jobs", job_id, "runs"), shape=_PAGE_SHAPE)["value"])

    def get_run(self, job_id: str, run: int) -> Json:
        return self._call("GET", _path("jobs", job_id, "runs", str(run)))

    def act(self, job_id: str, action: str, body: Mapping[str, Any]) -> Json:
        """Cancel, pause, resume or rerun; what is None in the body is not sent."""
        sent = {name: value for name, value in body.items() if value is not None}
        return self._call("POST", _path("jobs", job_id, action), json=sent, shape={"status": str})

    def act_on_many(self, body: Mapping[str, Any]) -> Json:
        """An action on all jobs of a filter; without `confirm` only their count."""
        return self._call("POST", "jobs/bulk", json=dict(body), timeout=_BATCH_SECONDS, shape={"matched": int})

    def delete_job(self, job_id: str, reason: str | None) -> Json:
        query = {} if reason is None else {"reason": reason}
        return self._call("DELETE", _path("jobs", job_id), params=query, timeout=_BATCH_SECONDS)

    def list_audit(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect("audit", query, limit)

    def explain(self, job_id: str) -> Json:
        return self._call("GET", _path("jobs", job_id, "explain"))

    def group_failures(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect("failures", {**query, "group": "true"}, limit)

    def list_failures(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect("failures", {**query, "group": "false"}, limit)

    def list_dead_letters(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect("dead-letters", query, limit)

    def get_dead_letter(self, dead_letter_id: int) -> Json:
        return self._call("GET", _path("dead-letters", str(dead_letter_id)))

    def redrive(self, request: Mapping[str, Any]) -> Json:
        return self._call("POST", "dead-letters/redrive", json=dict(request))

    def list_schedules(self, *, limit: int, job_type: str | None = None, paused: bool | None = None) -> list[Json]:
        query = {"job_type": job_type, "paused": None if paused is None else str(paused).lower()}
        return self._collect("schedules", query, limit)

    def get_schedule(self, name: str) -> Json:
        return self._call("GET", _path("schedules", name), shape=_SCHEDULE_SHAPE)

    def put_schedule(self, name: str, body: Mapping[str, Any]) -> Json:
        """Written or replaced; what is None in the body is not sent."""
        sent = {field: value for field, value in body.items() if value is not None}
        return self._call("PUT", _path("schedules", name), json=sent, shape=_SCHEDULE_SHAPE)

    def act_on_schedule(self, name: str, action: str, reason: str | None) -> Json:
        """Pause, resume or run."""
        shape = {"status": str} if action == "run" else _SCHEDULE_SHAPE
        body = {} if reason is None else {"json": {"reason": reason}}
        return self._call("POST", _path("schedules", name, action), shape=shape, **body)

    def delete_schedule(self, name: str) -> Json:
        return self._call("DELETE", _path("schedules", name))

    def list_ticks(self, name: str, *, limit: int) -> list[Json]:
        return self._collect(_path("schedules", name, "ticks"), {}, limit)

    def list_next_ticks(self, name: str, count: int) -> list[Any]:
        answer = self._call("GET", _path("schedules", name, "next"), params={"count": count})
        return list(answer.get("value") or [])

    def explain_schedule(self, name: str) -> Json:
        return self._call("GET", _path("schedules", name, "explain"), shape={"findings": list})

    def list_webhooks(self, *, limit: int) -> list[Json]:
        return self._collect("webhooks", {}, limit)

    def get_webhook(self, name: str) -> Json:
        return self._call("GET", _path("webhooks", name), shape={"name": str})

    def put_webhook(self, name: str, body: Mapping[str, Any]) -> Json:
        """Written or replaced; what is None in the body is not sent."""
        sent = {field: value for field, value in body.items() if value is not None}
        return self._call("PUT", _path("webhooks", name), json=sent, shape={"name": str})

    def act_on_webhook(self, name: str, action: str) -> Json:
        """Test or rotate-secret."""
        shape = {"secret": str} if action == "rotate-secret" else _DELIVERY_SHAPE
        return self._call("POST", _path("webhooks", name, action), shape=shape)

    def delete_webhook(self, name: str) -> Json:
        return self._call("DELETE", _path("webhooks", name))

    def list_deliveries(self, name: str, *, limit: int, status: str | None = None) -> list[Json]:
        return self._collect(_path("webhooks", name, "deliveries"), {"status": status}, limit)

    def redeliver(self, name: str, delivery_id: str) -> Json:
        path = _path("webhooks", name, "deliveries", delivery_id, "redeliver")
        return self._call("POST", path, shape=_DELIVERY_SHAPE)

    def list_apps(self) -> Json:
        return self._call("GET", "apps", shape={"value": list, "findings": list})

    def list_limits(self, *, limit: int) -> list[Json]:
        return self._collect("limits", {}, limit)

    def put_limit(self, name: str, body: Mapping[str, Any]) -> Json:
        """Numbers for a limit; what is None in the body is not sent."""
        sent = {field: value for field, value in body.items() if value is not None}
        return self._call("PUT", _path("limits", name), json=sent, shape=_LIMIT_SHAPE)

    def forget_limit(self, name: str) -> Json:
        return self._call("DELETE", _path("limits", name), shape={"name": str})

    def list_queues(self) -> Json:
        return self._call("GET", "queues", shape={"value": list, "findings": list})

    def look_whether_ready(self) -> tuple[list[str], str]:
        """What the app reports as missing, and the line about its job types."""
        try:
            answer = self._call("GET", "readyz")
        except ApiError as error:
            checks = error.problem.get("checks") or []
            failed = [f"{check['name']}: {check['detail']}" for check in checks if not check.get("ok")]
            return failed or [str(error)], ""
        names = [check["detail"] for check in answer.get("checks") or [] if check.get("name") == "registry"]
        return [], names[0] if names else ""

    def resolve_job_id(self, text: str) -> str:
        """The whole id for the beginning of one, looked for among the newest jobs.

        Raises:
            ApiError: No job is like that (status 404).
            UsageProblem: Several are; or there is no beginning, as where a script's variable is empty.
        """
        if not text.strip():
            raise UsageProblem(f"expected the id of a job or its beginning, found {text!r}")
        if len(text) >= JOB_ID_LENGTH:
            return text
        jobs = self.list_jobs(limit=_PREFIX_SEARCH)
        found = [job["job_id"] for job in jobs if str(job.get("job_id")).startswith(text)]
        if len(found) == 1:
            return str(found[0])
        if found:
            raise UsageProblem(f"{text!r} begins {len(found)} job ids: {', '.join(item[:16] for item in found[:5])}")
        detail = f"expected the id of a job or its beginning, found none that begins with {text!r}; see `list`"
        raise ApiError(HTTPStatus.NOT_FOUND, {"title": "No such job", "detail": detail})

    def wait_for_job(self, job_id: str, timeout_seconds: float | None, say: Say) -> Json:
        """Wait until the job has ended, with long polls where the server knows them.

        An outage of the server does not end the wait before its deadline; without one, it may last 10 minutes. `say`
        shows it to people.

        Raises:
            TimeIsUp: It has not in time, or the server stayed away.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            asked_at = time.monotonic()
            job = self._look(job_id, deadline, LONGEST_POLL_SECONDS, say)
            if is_terminal(job["status"]):
                return job
            _check_deadline(job, deadline)
            if time.monotonic() - asked_at < _POLL_SECONDS:
                # The server answered at once: it knows no long polls.
                _sleep(_SLOW_POLL_SECONDS, deadline)

    def follow_job(
        self, job_id: str, on_change: Callable[[Json], None], timeout_seconds: float | None, say: Say
    ) -> Json:
        """As `wait_for_job`, and show each state on the way.

        Raises:
            TimeIsUp: It has not ended in time, or the server stayed away.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            job = self._look(job_id, deadline, 0.0, say)
            on_change(job)
            if is_terminal(job["status"]):
                return job
            _check_deadline(job, deadline)
            _sleep(_POLL_SECONDS, deadline)

    def _look(self, job_id: str, deadline: float | None, poll_seconds: float, say: Say) -> Json:
        """The job as it is now, or after a long poll."""

        def look() -> Json:
            if deadline is None:
                return self.get_job(job_id, wait_seconds=poll_seconds)
            left = max(0.0, deadline - time.monotonic())
            timeout = max(_LEAST_TIMEOUT_SECONDS, min(_TIMEOUT_SECONDS, left))
            return self.get_job(job_id, wait_seconds=min(poll_seconds, left), timeout_seconds=timeout)

        times = {"outage_seconds": _OUTAGE_SECONDS} if deadline is None else {"deadline": deadline}
        try:
            return self._patience(say, **times).ask(look)
        except CliError as error:
            if not (is_outage(error) and self._was_reached):
                raise
            raise TimeIsUp(
                f"{error.summary}; the job is written and goes on: see `coremachine watch {job_id[:12]}`"
            ) from error

    def _patience(self, say: Say, **times: float) -> Patience:
        return Patience(say, lambda: self._was_reached, **times)

    def _collect(self, path: str, query: Mapping[str, Any], limit: int) -> list[Json]:
        return list(islice(self._pages(path, query, limit), limit))

    def _pages(self, path: str, query: Mapping[str, Any], limit: int) -> Iterator[Json]:
        parameters = {name: value for name, value in query.items() if value is not None}
        if path != "job-types":
            parameters["limit"] = min(limit, _PAGE)
        while True:
            page = self._call("GET", path, params=parameters, shape=_PAGE_SHAPE)
            yield from page["value"]
            if not page.get("next_cursor"):
                return
            parameters["cursor"] = page["next_cursor"]

    def _call(self, method: str, path: str, *, shape: Mapping[str, type] | None = None, **options: Any) -> Json:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise ServerUnreachable(self.url, "it did not answer in time") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.url, str(error) or type(error).__name__) from error
        document = _document_of(answer)
        # A problem document is an answer too: a server that is not ready yet is there.
        self._was_reached = self._was_reached or isinstance(document, dict)
        if answer.is_success:
            return _in_shape(document, shape or {}, str(answer.url))
        problem = document if isinstance(document, dict) else {"detail": answer.text[:500]}
        raise ApiError(answer.status_code, problem)


def _path(*parts: str) -> str:
    """A path of these parts, whatever they hold: `a?b=c` is a name here and no query.

    Raises:
        UsageProblem: A part that no path can have.
    """
    for part in parts:
        # Clients and servers take these two for places, encoded too.
        if part in {"", ".", ".."}:
            raise UsageProblem(f"expected a name or an id, found {part!r}")
    return "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def _check_url(url: str) -> None:
    """Raises UsageProblem for what is no address of a server."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        is_address = False
    if not is_address:
        raise UsageProblem(f"--url, COREMACHINE_URL: expected an address such as {DEFAULT_URL}, found {url!r:.300}")


def _header(name: str, value: str) -> str:
    """The value, if a header can hold it. The value itself may be a secret, and is not repeated.

    Raises:
        UsageProblem: It cannot.
    """
    wrong = next((place for place, character in enumerate(value) if not "!" <= character <= "~"), None)
    if wrong is not None or not value:
        found = "nothing" if wrong is None else f"another one at place {wrong + 1}"
        raise UsageProblem(f"{name}: expected visible ASCII characters, found {found}")
    return value


def _is_on_this_machine(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)


def _in_shape(document: Any, shape: Mapping[str, type], url: str) -> Json:
    """The document, if it has what commands rely on. Raises CliError."""
    if not isinstance(document, dict):
        raise CliError(f"expected a JSON object from {url}, found something else: is it CoreMachine?")
    for name, kind in shape.items():
        value: Any = document.get(name)
        is_right = isinstance(value, kind) and all(
            isinstance(row, dict) for row in (value if isinstance(value, list) else ())
        )
        if not is_right:
            expected = "a list of objects" if kind is list else kind.__name__
            found = "nothing" if value is None else brief_text(ascii(value))
            raise CliError(f"expected {name} ({expected}) in the answer of {url}, found {found}: is it CoreMachine?")
    return document


def _document_of(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None


def _has_ended_after(event: Json, *, has_ended: bool) -> bool:
    """Whether a job's run is over after this event of its timeline."""
    name = str(event.get("event"))
    if name in {"job_submitted", "job_rerun"}:
        return False
    return has_ended or name.removeprefix("job_") in _TERMINAL


def _check_deadline(job: Json, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeIsUp(f"the job is still {job['status']} and goes on; see `coremachine watch {job['job_id'][:12]}`")


def _sleep(seconds: float, deadline: float | None) -> None:
    time.sleep(seconds if deadline is None else max(0.0, min(seconds, deadline - time.monotonic())))
