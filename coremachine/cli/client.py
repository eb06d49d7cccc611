"""The HTTP API for commands: `coremachine.client`, with answers as they are printed and errors for people."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, Self

import httpx

from core.models import JobStatus
from core.safety.safe_text import brief_text
from coremachine.cli.errors import ApiError, CliError, TimeIsUp, UsageProblem, error_of
from coremachine.cli.options import chosen_profile
from coremachine.cli.profiles import find_profile
from coremachine.cli.render import say
from coremachine.client import ApiProblem, Client, ClientError, WaitTimeout, WrongArgument, operations
from coremachine.client.address import is_on_this_machine, read_url
from coremachine.client.call import TIMEOUT_SECONDS, Call, header_of
from coremachine.client.exchange import Reply, is_outage
from coremachine.client.waiting import watch_job
from coremachine.local.stack_file import find_folder_of_stack, find_stack_of

DEFAULT_URL = "http://127.0.0.1:7071"
JOB_ID_LENGTH = 64
_DELIVERY_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# A read, and a submission that makes no second job, is repeated over an outage of this length.
_OUTAGE_SECONDS = 30.0
_PAGE = 200
# Until people read that a command waits for the server.
_PATIENCE_SECONDS = 5.0
# Of a request that follows: shorter than any limit of a proxy.
_WAIT_SECONDS = 20
# Of the ids that an abbreviated one may mean, as many are named.
_NAMED_IDS = 5

Json = dict[str, Any]
Say = Callable[[str], None]
# What commands rely on in an answer; a server of another kind answers with other JSON.
_JOB_SHAPE: Mapping[str, type] = {"job_id": str, "status": str, "run": int}
_PAGE_SHAPE: Mapping[str, type] = {"value": list}
_LIMIT_SHAPE: Mapping[str, type] = {"name": str, "holders": list}
_DELIVERY_SHAPE: Mapping[str, type] = {"id": str, "status": str}
_SCHEDULE_SHAPE: Mapping[str, type] = {"name": str, "cron": str}


@dataclass(frozen=True)
class Server:
    """Where commands go, who said so, and how they prove who they are.

    Args:
        origin: For people, where an address does not answer; None: it was given on the command line.
        remark: For people, where it answers: why this may be another server than they think.
        scope: Of the token that `az login` or another identity of this machine gets.
    """

    url: str
    origin: str | None = None
    key: str | None = None
    role_key: str | None = None
    scope: str | None = None
    remark: str | None = None


def choose_server(given: str | None) -> Server:
    """The one of the option, else of the profile, of COREMACHINE_URL, of this folder's stack, or the default port.

    Raises:
        UsageProblem: An address and a profile are given; there is no such profile, or its key is not found.
    """
    name = chosen_profile()
    if name and given:
        raise UsageProblem(f"expected --url or a profile, found --url {given} and profile {name}; leave one out")
    if name:
        profile = find_profile(name)
        keys = {kind: profile.find_key(kind) for kind in ("key", "role_key")}
        return Server(profile.url, profile.place, scope=profile.fields.get("scope"), **keys)
    server = Server(given) if given else _usual_server()
    key, role_key = os.environ.get("COREMACHINE_FUNCTION_KEY"), os.environ.get("COREMACHINE_KEY")
    return replace(server, key=key, role_key=role_key)


def _usual_server() -> Server:
    if url := os.environ.get("COREMACHINE_URL"):
        return Server(url, "COREMACHINE_URL")
    if stack := find_stack_of(Path.cwd()):
        return Server(stack.url, "the stack of this folder")
    stopped = find_folder_of_stack(Path.cwd())
    # It may be the stack of another project.
    remark = f"The stack of {stopped} does not run; this is from {DEFAULT_URL}." if stopped else None
    return Server(DEFAULT_URL, "the usual port", remark=remark)


def is_terminal(status: str) -> bool:
    """Whether a job stays in this status. An unknown one (of a newer server) does not count."""
    return JobStatus.stored(status).is_terminal


class ApiClient:
    """Calls to one server. Every call raises a `CliError`.

    Args:
        transport: Another way to the server, for tests.
    """

    def __init__(self, server: Server, transport: httpx.BaseTransport | None = None) -> None:
        self._say: Say = say
        self._origin = server.origin
        self._remark = server.remark
        with self._errors_for_people():
            self._client = Client(
                _checked(server),
                transport=transport,
                key=_checked_key(server, "COREMACHINE_FUNCTION_KEY", server.key),
                role_key=_checked_key(server, "COREMACHINE_KEY", server.role_key),
                credential=_credential() if server.scope else None,
                scope=server.scope,
                retry_seconds=_OUTAGE_SECONDS,
                on_outage=self._tell,
            )
        self.url = self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the server sees this machine's files."""
        return is_on_this_machine(self.url)

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
        priority: str | None = None,
    ) -> Json:
        """The job that the submission made or found.

        It is submitted again where the server is away for a moment, and a repetition finds the same job.

        Args:
            force: A new job, even if one of the same parameters is there.
            idempotency_key: The same key again gives the same job.
            if_ended: return, rerun, force or fail, where the job is there and does not run with these parameters.
            tags: `name=value` each.
            start_at: RFC 3339.
            priority: high, normal or low.
        """
        with self._errors_for_people():
            if idempotency_key is not None:
                header_of("--idempotency-key", idempotency_key)
            call = operations.submit_job(
                job_type,
                parameters,
                force=force,
                idempotency_key=idempotency_key,
                if_ended=if_ended,
                tag=tags,
                start_at=start_at,
                priority=priority,
            )
        return self._ask(call, _JOB_SHAPE)

    def draft(self, job_type: str, parameters: Mapping[str, Any]) -> Json:
        """What a submission would write; nothing is."""
        return self._ask(self._call(operations.draft_job, job_type, parameters), {"first_stage": dict})

    def submit_batch(self, jobs: Sequence[Json]) -> Json:
        """Up to 1,000 submissions: an outcome for each, in their order."""
        return self._ask(operations.submit_batch(jobs), _PAGE_SHAPE)

    def get_job(self, job_id: str) -> Json:
        return self._ask(self._call(operations.get_job, job_id), _JOB_SHAPE)

    def list_jobs(self, *, limit: int = 20, **query: Any) -> list[Json]:
        """`query`: what `operations.list_jobs` takes."""
        return self._collect(limit, operations.list_jobs, **query)

    def list_tasks(self, job_id: str, *, limit: int, **query: Any) -> list[Json]:
        """`query`: status, stage, run."""
        return self._collect(limit, operations.list_tasks, job_id, **query)

    def get_task(self, job_id: str, task_id: str, *, run: int | None = None) -> Json:
        return self._ask(self._call(operations.get_task, job_id, task_id, run=run))

    def list_events(self, job_id: str, *, limit: int) -> list[Json]:
        return self._collect(limit, operations.list_events, job_id)

    def follow_events(self, job_id: str) -> Iterator[Json]:
        """The timeline, from its beginning, as it comes, until the job has ended."""
        cursor: str | None = None
        has_ended = False
        while not has_ended:
            asked_at = time.monotonic()
            call = self._call(operations.list_events, job_id, cursor=cursor, wait=_WAIT_SECONDS)
            page = self._ask(call, _PAGE_SHAPE)
            for event in page["value"]:
                has_ended = _has_ended_after(event, has_ended=has_ended)
                yield event
            cursor = page["next_cursor"]
            if not page["value"]:
                # A server where too many wait answers at once.
                time.sleep(max(0.0, min(1.0, asked_at + 1.0 - time.monotonic())))

    def list_logs(self, job_id: str, *, limit: int, **query: Any) -> list[Json]:
        """`query`: task_id, run, after."""
        return self._collect(limit, operations.list_logs, job_id, **query)

    def list_job_types(self) -> list[Json]:
        return list(self._ask(operations.list_job_types(), _PAGE_SHAPE)["value"])

    def list_runs(self, job_id: str) -> list[Json]:
        return list(self._ask(self._call(operations.list_runs, job_id), _PAGE_SHAPE)["value"])

    def get_run(self, job_id: str, run: int) -> Json:
        return self._ask(self._call(operations.get_run, job_id, run))

    def act(self, job_id: str, action: str, body: Mapping[str, Any]) -> Json:
        """Cancel, pause, resume, rerun, hold or release; what is None in the body is not sent."""
        build: Callable[..., Call[Any]] = getattr(operations, f"{action}_job")
        return self._ask(self._call(build, job_id, **body), {"status": str})

    def adjust(self, job_id: str, body: Mapping[str, Any]) -> Json:
        """Change its priority, or max_parallel of its stage; what is None in the body is not sent."""
        return self._ask(self._call(operations.adjust_job, job_id, **body), {"status": str, "priority": str})

    def act_on_many(self, body: Mapping[str, Any]) -> Json:
        """An action on all jobs of a filter; without `confirm` only their count."""
        return self._ask(self._call(operations.act_on_jobs, **body), {"matched": int})

    def delete_job(self, job_id: str, reason: str | None) -> Json:
        return self._ask(self._call(operations.delete_job, job_id, reason=reason))

    def list_audit(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect(limit, operations.list_audit, **query)

    def look_at_jobs(self, *, limit: int, timeout_seconds: float) -> list[Json]:
        """The newest jobs, asked for once; empty where the server gives none in time."""
        return self._look_at_page(operations.list_jobs(limit=limit), timeout_seconds)

    def look_at_job_types(self, *, timeout_seconds: float) -> list[Json]:
        """As `look_at_jobs`."""
        return self._look_at_page(operations.list_job_types(), timeout_seconds)

    def _look_at_page(self, call: Call[Any], timeout_seconds: float) -> list[Json]:
        found = self._look(replace(call, timeout_seconds=timeout_seconds), _PAGE_SHAPE)
        return [] if found is None else list(found["value"])

    def look_at_logs(self, job_id: str, **query: Any) -> list[Json]:
        """A page of `list_logs`, asked for once; empty where the server gives none now."""
        found = self._look(self._call(operations.list_logs, job_id, limit=_PAGE, **query), _PAGE_SHAPE)
        return [] if found is None else list(found["value"])

    def look_at_explanation(self, job_id: str) -> Json | None:
        """As `explain`, asked for once; None where the server gives none now."""
        return self._look(self._call(operations.explain_job, job_id), {"findings": list})

    def explain(self, job_id: str) -> Json:
        return self._ask(self._call(operations.explain_job, job_id))

    def group_failures(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect(limit, operations.group_failures, **query)

    def list_failures(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect(limit, operations.list_failures, **query)

    def group_dead_letters(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect(limit, operations.group_dead_letters, **query)

    def list_dead_letters(self, *, limit: int, **query: Any) -> list[Json]:
        return self._collect(limit, operations.list_dead_letters, **query)

    def get_dead_letter(self, dead_letter_id: int) -> Json:
        return self._ask(operations.get_dead_letter(dead_letter_id))

    def redrive(self, request: Mapping[str, Any]) -> Json:
        return self._ask(operations.redrive_dead_letters(**request))

    def list_schedules(self, *, limit: int, **query: Any) -> list[Json]:
        """`query`: job_type, paused."""
        return self._collect(limit, operations.list_schedules, **query)

    def get_schedule(self, name: str) -> Json:
        return self._ask(self._call(operations.get_schedule, name), _SCHEDULE_SHAPE)

    def put_schedule(self, name: str, body: Mapping[str, Any]) -> Json:
        """Written or replaced; what is None in the body is not sent."""
        return self._ask(self._call(operations.put_schedule, name, **body), _SCHEDULE_SHAPE)

    def act_on_schedule(self, name: str, action: str, reason: str | None) -> Json:
        """Pause or resume."""
        build: Callable[..., Call[Any]] = getattr(operations, f"{action}_schedule")
        return self._ask(self._call(build, name, reason=reason), _SCHEDULE_SHAPE)

    def run_schedule(self, name: str) -> Json:
        return self._ask(self._call(operations.run_schedule, name), {"status": str})

    def delete_schedule(self, name: str) -> Json:
        return self._ask(self._call(operations.delete_schedule, name))

    def list_ticks(self, name: str, *, limit: int) -> list[Json]:
        return self._collect(limit, operations.list_ticks, name)

    def list_next_ticks(self, name: str, count: int) -> list[Any]:
        return list(self._ask(self._call(operations.list_next_ticks, name, count=count)).get("value") or [])

    def explain_schedule(self, name: str) -> Json:
        return self._ask(self._call(operations.explain_schedule, name), {"findings": list})

    def list_webhooks(self, *, limit: int) -> list[Json]:
        return self._collect(limit, operations.list_webhooks)

    def get_webhook(self, name: str) -> Json:
        return self._ask(self._call(operations.get_webhook, name), {"name": str})

    def put_webhook(self, name: str, body: Mapping[str, Any]) -> Json:
        """Written or replaced; what is None in the body is not sent."""
        return self._ask(self._call(operations.put_webhook, name, **body), {"name": str})

    def test_webhook(self, name: str) -> Json:
        return self._ask(self._call(operations.test_webhook, name), _DELIVERY_SHAPE)

    def rotate_webhook_secret(self, name: str) -> Json:
        return self._ask(self._call(operations.rotate_webhook_secret, name), {"secret": str})

    def delete_webhook(self, name: str) -> Json:
        return self._ask(self._call(operations.delete_webhook, name))

    def list_deliveries(self, name: str, *, limit: int, **query: Any) -> list[Json]:
        """`query`: delivery_id, status."""
        return self._collect(limit, operations.list_deliveries, name, **query)

    def redeliver(self, name: str, delivery_id: str) -> Json:
        return self._ask(self._call(operations.redeliver, name, delivery_id), _DELIVERY_SHAPE)

    def list_apps(self) -> Json:
        return self._ask(operations.list_apps(), {"value": list, "findings": list})

    def list_limits(self, *, limit: int) -> list[Json]:
        return self._collect(limit, operations.list_limits)

    def put_limit(self, name: str, body: Mapping[str, Any]) -> Json:
        """Numbers for a limit; what is None in the body is not sent."""
        return self._ask(self._call(operations.put_limit, name, **body), _LIMIT_SHAPE)

    def forget_limit(self, name: str) -> Json:
        return self._ask(self._call(operations.forget_limit, name), {"name": str})

    def list_queues(self) -> Json:
        return self._ask(operations.list_queues(), {"value": list, "findings": list})

    def look_whether_ready(self) -> tuple[list[str], str]:
        """What the app reports as missing, and the line about its job types."""
        try:
            checks = self._ask(operations.readyz()).get("checks") or []
        except ApiError as error:
            return [str(error)], ""
        failed = [f"{check['name']}: {check['detail']}" for check in checks if not check.get("ok")]
        names = [check["detail"] for check in checks if check.get("name") == "registry"]
        return failed, names[0] if names and not failed else ""

    def resolve_job_id(self, text: str) -> str:
        """The whole id for the beginning of one.

        Raises:
            ApiError: No job is like that (status 404).
            UsageProblem: Several are; or there is no beginning, as where a script's variable is empty.
        """
        if not text.strip():
            raise UsageProblem(f"expected the id of a job or its beginning, found {text!r}")
        if len(text) >= JOB_ID_LENGTH:
            return text
        is_beginning = re.fullmatch("[0-9A-Fa-f]+", text)
        jobs = self.list_jobs(job_id=text, limit=_NAMED_IDS + 1) if is_beginning else []
        if found := _only_id(text, [str(job["job_id"]) for job in jobs], "job ids"):
            return found
        detail = f"expected the id of a job or its beginning, found none that begins with {text!r:.100}; see `list`"
        raise ApiError(HTTPStatus.NOT_FOUND, {"title": "No such job", "detail": detail})

    def resolve_delivery_id(self, name: str, text: str) -> str:
        """The whole id of a webhook's delivery for the beginning of one. Raises as `resolve_job_id`."""
        if re.fullmatch(_DELIVERY_ID, text):
            return text
        is_beginning = re.fullmatch("[0-9A-Fa-f-]{1,36}", text)
        sent = self.list_deliveries(name, delivery_id=text, limit=_NAMED_IDS + 1) if is_beginning else []
        if found := _only_id(text, [str(each["id"]) for each in sent], "ids of deliveries"):
            return found
        detail = (
            f"expected the id of a delivery or its beginning, found none that begins with {text!r:.100}; see "
            f"`coremachine webhooks deliveries {name}`"
        )
        raise ApiError(HTTPStatus.NOT_FOUND, {"title": "No such delivery", "detail": detail})

    def wait_for_job(self, job_id: str, timeout_seconds: float | None, say: Say) -> Json:
        """Wait until the job has ended, with long polls.

        An outage of the server does not end the wait before its deadline; without one, it may last 10 minutes. `say`
        shows it to people.

        Raises:
            TimeIsUp: It has not in time, or the server stayed away.
        """
        return self._watch(job_id, None, timeout_seconds, say)

    def follow_job(
        self,
        job_id: str,
        on_change: Callable[[Json], None],
        timeout_seconds: float | None,
        say: Say,
        on_look: Callable[[], None] | None = None,
    ) -> Json:
        """As `wait_for_job`, and show each state on the way.

        Args:
            on_look: Called after each look, also where nothing has changed.

        Raises:
            TimeIsUp: It has not ended in time, or the server stayed away.
        """
        return self._watch(job_id, on_change, timeout_seconds, say, on_look)

    def _watch(
        self,
        job_id: str,
        on_change: Callable[[Json], None] | None,
        timeout_seconds: float | None,
        say: Say,
        on_look: Callable[[], None] | None = None,
    ) -> Json:
        def show(reply: Reply) -> None:
            if on_change is not None:
                on_change(_in_shape(reply, _JOB_SHAPE))

        self._say = say
        see = f"see `coremachine watch {job_id[:12]}`"
        try:
            reply = self._client.run(
                watch_job(
                    self._client.session,
                    job_id,
                    timeout_seconds=timeout_seconds,
                    on_change=None if on_change is None else show,
                    on_look=on_look,
                )
            )
        except WaitTimeout as error:
            raise TimeIsUp(f"the job is still {error.status} and goes on; {see}") from error
        except ClientError as error:
            told = error_of(error, self._origin)
            if not (is_outage(error) and self._client.session.was_reached):
                raise told from error
            raise TimeIsUp(f"{told.summary}; the job is written and goes on: {see}") from error
        return _in_shape(reply, _JOB_SHAPE)

    def _tell(self, outage: ClientError | None) -> None:
        """To people, beside the result."""
        self._say(
            "The server answers again." if outage is None else f"{error_of(outage, self._origin).summary}; asking again"
        )

    @contextmanager
    def _says_that_it_waits(self, call: Call[Any]) -> Iterator[None]:
        """To people, where an answer takes longer than usual; not where the server was asked to wait."""
        if call.timeout_seconds > TIMEOUT_SECONDS:
            yield
            return
        text = f"waiting for an answer of {self.url}, at most {call.timeout_seconds:g} s"
        timer = threading.Timer(_PATIENCE_SECONDS, self._say, [text])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def _errors_for_people(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            raise error_of(error, self._origin) from error

    def _call(self, build: Callable[..., Call[Any]], *args: Any, **kwargs: Any) -> Call[Any]:
        with self._errors_for_people():
            return build(*args, **kwargs)

    def _ask(self, call: Call[Any], shape: Mapping[str, type] | None = None) -> Json:
        with self._errors_for_people(), self._says_that_it_waits(call):
            reply = self._client.ask(call)
        if self._remark:
            self._say(self._remark)
            self._remark = None
        return _in_shape(reply, shape or {})

    def _look(self, call: Call[Any], shape: Mapping[str, type]) -> Json | None:
        """For what goes with a wait: the wait itself reports that the server is away, and goes on."""
        try:
            reply = self._client.ask(replace(call, repeats=False))
        except ClientError as error:
            status = error.status if isinstance(error, ApiProblem) else None
            if is_outage(error) or status in {HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR}:
                return None
            raise error_of(error, self._origin) from error
        return _in_shape(reply, shape)

    def _collect(self, limit: int, build: Callable[..., Call[Any]], *args: Any, **query: Any) -> list[Json]:
        pages = self._pages(self._call(build, *args, limit=min(limit, _PAGE), **query))
        return list(islice(pages, min(limit, sys.maxsize)))

    def _pages(self, call: Call[Any]) -> Iterator[Json]:
        while True:
            page = self._ask(call, _PAGE_SHAPE)
            yield from page["value"]
            if not page.get("next_cursor"):
                return
            call = call.after(page["next_cursor"])


def _checked(server: Server) -> str:
    """Raises UsageProblem for what is no address of a server."""
    try:
        return read_url(server.url)
    except WrongArgument as error:
        raise UsageProblem(f"{server.origin or '--url'}: {error}") from error


def _checked_key(server: Server, variable: str, key: str | None) -> str | None:
    """Raises WrongArgument for what no header can hold."""
    place = server.origin or ""
    return header_of(place if place.startswith("profile ") else variable, key) if key else None


def _only_id(text: str, found: Sequence[str], kind: str) -> str | None:
    """The id that was found, None if there is none. Raises UsageProblem for several."""
    if len(found) > 1:
        count = str(len(found)) if len(found) <= _NAMED_IDS else f"more than {_NAMED_IDS}"
        # A few characters more than were given distinguish most; all of them distinguish any.
        named = ", ".join(each[: max(16, len(text) + 4)] for each in found[:_NAMED_IDS])
        raise UsageProblem(f"{text!r} begins {count} {kind}: {named}; give more of it")
    return found[0] if found else None


def _credential() -> Any:
    """What `az login` left here, or the identity of this machine."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - slow, and for few

    return DefaultAzureCredential()


def _in_shape(reply: Reply, shape: Mapping[str, type]) -> Json:
    """The document, if it has what commands rely on. Raises CliError."""
    document: Json = reply.document
    for name, kind in shape.items():
        value: Any = document.get(name)
        is_right = isinstance(value, kind) and all(
            isinstance(row, dict) for row in (value if isinstance(value, list) else ())
        )
        if not is_right:
            expected = "a list of objects" if kind is list else kind.__name__
            found = "nothing" if value is None else brief_text(ascii(value))
            raise CliError(
                f"expected {name} ({expected}) in the answer of {reply.url}, found {found}: is it CoreMachine?"
            )
    return document


def _has_ended_after(event: Json, *, has_ended: bool) -> bool:
    """Whether a job's run is over after this event of its timeline."""
    name = str(event.get("event"))
    if name in {"job_submitted", "job_rerun"}:
        return False
    return has_ended or is_terminal(name.removeprefix("job_"))
