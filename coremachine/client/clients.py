"""`Client` and `AsyncClient`: the same operations, driven with and without awaiting."""

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import httpx

from core.basics.version import VERSION
from coremachine.client import operations
from coremachine.client.address import is_on_this_machine, read_url
from coremachine.client.call import Call, header_of
from coremachine.client.errors import ClientError, WrongArgument
from coremachine.client.exchange import Limits, Reply, Script, Send, Session, Sleep, exchange, perform
from coremachine.client.waiting import wait_for_job

if TYPE_CHECKING:  # the models are imported for the first answer that becomes one
    from coremachine.client.models import Page

P = ParamSpec("P")
T = TypeVar("T")
RETRY_SECONDS = 30.0
# What httpx raises for a request that has no answer.
_NO_ANSWER = (httpx.RequestError, httpx.InvalidURL)


class Credential(Protocol):
    """Of azure-identity, or alike; for `AsyncClient` its `get_token` may be a coroutine."""

    def get_token(self, *scopes: str) -> Any: ...


class Options(TypedDict, total=False):
    """What both clients take beside the address.

    Args:
        key: The function key, where the Functions host asks for one (`x-functions-key`).
        role_key: The key that carries a role, where the app has such (`x-coremachine-key`).
        credential: Of azure-identity; its tokens are sent where App Service asks for them. Needs `scope`.
        scope: What the tokens are for, such as api://client-id/.default.
        retry_seconds: How long an outage of the server may last in which reads and submissions are sent again (30);
            other requests are sent once, since nobody knows whether the first did its work. 0: never again.
        on_outage: Called with the error when such an outage begins, and with None when the server answers again.
    """

    key: str | None
    role_key: str | None
    credential: Credential | None
    scope: str | None
    retry_seconds: float
    on_outage: Callable[[ClientError | None], None] | None


class _BaseClient:
    """Where a server is, and how its callers prove who they are."""

    def __init__(self, url: str, options: Options) -> None:
        self.url = read_url(url)
        self.session = Session(self.url, options.get("retry_seconds", RETRY_SECONDS), options.get("on_outage"))
        self._credential, self._scope = options.get("credential"), options.get("scope") or ""
        if (self._credential is None) != (not self._scope):
            given = "scope" if self._credential is None else "credential"
            raise WrongArgument(f"expected credential and scope together, found {given} alone")
        keys = {
            "x-functions-key": ("key", options.get("key")),
            "x-coremachine-key": ("role_key", options.get("role_key")),
        }
        self._options: dict[str, Any] = {
            "base_url": f"{self.url}/api/",
            "headers": {
                "User-Agent": f"coremachine/{VERSION}",
                **{header: header_of(name, value) for header, (name, value) in keys.items() if value is not None},
            },
            # A proxy of the environment (HTTP_PROXY) does not reach this machine's own servers.
            "trust_env": not is_on_this_machine(self.url),
            # Without TLS no certificate is looked at: those of all authorities take 25 ms to read.
            "verify": not self.url.startswith("http:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        }


def _request_of(send: Send, token: str | None) -> dict[str, Any]:
    """The arguments of httpx's `request`."""
    call = send.call
    return {
        "method": call.method,
        "url": call.path,
        "params": list(call.query),
        "json": call.body,
        "headers": {**send.headers, **({} if token is None else {"Authorization": f"Bearer {token}"})},
        "timeout": send.timeout_seconds,
    }


class Listing(Generic[T]):
    """The items of a list, page by page as they are come to; each iteration asks anew."""

    def __init__(self, client: "Client", call: "Call[Page[T]]") -> None:
        self._client, self._call = client, call

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.value

    def pages(self) -> "Iterator[Page[T]]":
        """Whole pages; go on elsewhere with the `next_cursor` of one as `cursor`."""
        call = self._call
        while True:
            page = self._client.run(perform(self._client.session, call))
            yield page
            if page.next_cursor is None:
                return
            call = call.after(page.next_cursor)


class AsyncListing(Generic[T]):
    """As `Listing`, for `async for`."""

    def __init__(self, client: "AsyncClient", call: "Call[Page[T]]") -> None:
        self._client, self._call = client, call

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.value:
                yield item

    async def pages(self) -> "AsyncIterator[Page[T]]":
        """Whole pages; go on elsewhere with the `next_cursor` of one as `cursor`."""
        call = self._call
        while True:
            page = await self._client.run(perform(self._client.session, call))
            yield page
            if page.next_cursor is None:
                return
            call = call.after(page.next_cursor)


class Answer(Generic[P, T]):
    """A method of `Client` that sends what an operation makes; on the class, the operation."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, T]: ...
    def __get__(self, client: "Client | None", owner: type) -> Callable[P, Any]:
        if client is None:
            return self._build

        @wraps(self._build)
        def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.run(perform(client.session, self._build(*args, **kwargs)))

        return send


class AsyncAnswer(Generic[P, T]):
    """As `Answer`, of `AsyncClient`."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> Callable[P, Call[T]]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: "AsyncClient | None", owner: type) -> Callable[P, Any]:
        if client is None:
            return self._build

        @wraps(self._build)
        async def send(*args: P.args, **kwargs: P.kwargs) -> T:
            return await client.run(perform(client.session, self._build(*args, **kwargs)))

        return send


class Scripted(Generic[P, T]):
    """A method of `Client` of several requests."""

    def __init__(self, build: Callable[Concatenate[Session, P], Script[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Session, P], Script[T]]: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, T]: ...
    def __get__(self, client: "Client | None", owner: type) -> Callable[..., Any]:
        return (
            self._build
            if client is None
            else lambda *args, **kwargs: client.run(self._build(client.session, *args, **kwargs))
        )


class AsyncScripted(Generic[P, T]):
    """As `Scripted`, of `AsyncClient`."""

    def __init__(self, build: Callable[Concatenate[Session, P], Script[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> Callable[Concatenate[Session, P], Script[T]]: ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: "AsyncClient | None", owner: type) -> Callable[..., Any]:
        return (
            self._build
            if client is None
            else lambda *args, **kwargs: client.run(self._build(client.session, *args, **kwargs))
        )


class Pages(Generic[P, T]):
    """A method of `Client` for a list."""

    def __init__(self, build: "Callable[P, Call[Page[T]]]") -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> "Callable[P, Call[Page[T]]]": ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[P, Listing[T]]: ...
    def __get__(self, client: "Client | None", owner: type) -> Callable[P, Any]:
        if client is None:
            return self._build

        @wraps(self._build)
        def listing(*args: P.args, **kwargs: P.kwargs) -> Listing[T]:
            return Listing(client, self._build(*args, **kwargs))

        return listing


class AsyncPages(Generic[P, T]):
    """As `Pages`, of `AsyncClient`."""

    def __init__(self, build: "Callable[P, Call[Page[T]]]") -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: type) -> "Callable[P, Call[Page[T]]]": ...
    @overload
    def __get__(self, client: "AsyncClient", owner: type) -> Callable[P, AsyncListing[T]]: ...
    def __get__(self, client: "AsyncClient | None", owner: type) -> Callable[P, Any]:
        if client is None:
            return self._build

        @wraps(self._build)
        def listing(*args: P.args, **kwargs: P.kwargs) -> AsyncListing[T]:
            return AsyncListing(client, self._build(*args, **kwargs))

        return listing


class Client(_BaseClient):
    """The API's operations as methods. Close it, or use it in a `with`; one is for any number of threads.

    Args:
        url: The server, such as https://jobs.example.org.
        transport: Another way to the server, such as one that answers in tests.
        options: See `Options`.

    Raises:
        ClientError: Each method, for what is no answer: see `coremachine.client.errors`.
    """

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, options)
        self._http = httpx.Client(transport=transport, **self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def ask(self, call: Call[Any], limits: Limits | None = None) -> Reply:
        """The answer as the server wrote it, without a model; for programs that hand it on."""
        return self.run(exchange(self.session, call, limits))

    def run(self, script: Script[T]) -> T:
        """Do what a script asks for, until its end."""
        try:
            wish = next(script)
            while True:
                try:
                    came = self._do(wish)
                except _NO_ANSWER as error:
                    wish = script.throw(error)
                else:
                    wish = script.send(came)
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _do(self, wish: Send | Sleep) -> httpx.Response | None:
        if isinstance(wish, Sleep):
            time.sleep(wish.seconds)
            return None
        token = None if self._credential is None else self._credential.get_token(self._scope).token
        return self._http.request(**_request_of(wish, token))

    wait_for_job = Scripted(wait_for_job)
    submit_job = Answer(operations.submit_job)
    draft_job = Answer(operations.draft_job)
    submit_batch = Answer(operations.submit_batch)
    get_submission_schema = Answer(operations.get_submission_schema)
    get_job = Answer(operations.get_job)
    list_jobs = Pages(operations.list_jobs)
    list_tasks = Pages(operations.list_tasks)
    get_task = Answer(operations.get_task)
    list_runs = Pages(operations.list_runs)
    get_run = Answer(operations.get_run)
    list_events = Pages(operations.list_events)
    list_logs = Pages(operations.list_logs)
    explain_job = Answer(operations.explain_job)
    list_job_types = Pages(operations.list_job_types)
    cancel_job = Answer(operations.cancel_job)
    pause_job = Answer(operations.pause_job)
    resume_job = Answer(operations.resume_job)
    rerun_job = Answer(operations.rerun_job)
    adjust_job = Answer(operations.adjust_job)
    hold_job = Answer(operations.hold_job)
    release_job = Answer(operations.release_job)
    delete_job = Answer(operations.delete_job)
    act_on_jobs = Answer(operations.act_on_jobs)
    list_audit = Pages(operations.list_audit)
    list_failures = Pages(operations.list_failures)
    group_failures = Pages(operations.group_failures)
    list_dead_letters = Pages(operations.list_dead_letters)
    group_dead_letters = Pages(operations.group_dead_letters)
    get_dead_letter = Answer(operations.get_dead_letter)
    redrive_dead_letters = Answer(operations.redrive_dead_letters)
    list_schedules = Pages(operations.list_schedules)
    get_schedule = Answer(operations.get_schedule)
    put_schedule = Answer(operations.put_schedule)
    delete_schedule = Answer(operations.delete_schedule)
    pause_schedule = Answer(operations.pause_schedule)
    resume_schedule = Answer(operations.resume_schedule)
    run_schedule = Answer(operations.run_schedule)
    list_ticks = Pages(operations.list_ticks)
    list_next_ticks = Pages(operations.list_next_ticks)
    explain_schedule = Answer(operations.explain_schedule)
    list_webhooks = Pages(operations.list_webhooks)
    get_webhook = Answer(operations.get_webhook)
    put_webhook = Answer(operations.put_webhook)
    delete_webhook = Answer(operations.delete_webhook)
    rotate_webhook_secret = Answer(operations.rotate_webhook_secret)
    test_webhook = Answer(operations.test_webhook)
    list_deliveries = Pages(operations.list_deliveries)
    redeliver = Answer(operations.redeliver)
    list_limits = Pages(operations.list_limits)
    get_limit = Answer(operations.get_limit)
    put_limit = Answer(operations.put_limit)
    forget_limit = Answer(operations.forget_limit)
    list_apps = Answer(operations.list_apps)
    list_queues = Answer(operations.list_queues)
    livez = Answer(operations.livez)
    readyz = Answer(operations.readyz)


class AsyncClient(_BaseClient):
    """As `Client`, for asyncio: its methods are awaited, and its lists are for `async for`."""

    def __init__(
        self, url: str, *, transport: httpx.AsyncBaseTransport | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(url, options)
        self._http = httpx.AsyncClient(transport=transport, **self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()

    async def ask(self, call: Call[Any], limits: Limits | None = None) -> Reply:
        """The answer as the server wrote it, without a model; for programs that hand it on."""
        return await self.run(exchange(self.session, call, limits))

    async def run(self, script: Script[T]) -> T:
        """Do what a script asks for, until its end."""
        try:
            wish = next(script)
            while True:
                try:
                    came = await self._do(wish)
                except _NO_ANSWER as error:
                    wish = script.throw(error)
                else:
                    wish = script.send(came)
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _do(self, wish: Send | Sleep) -> httpx.Response | None:
        if isinstance(wish, Sleep):
            await asyncio.sleep(wish.seconds)
            return None
        return await self._http.request(**_request_of(wish, await self._token()))

    async def _token(self) -> str | None:
        if self._credential is None:
            return None
        get_token = self._credential.get_token
        is_async = inspect.iscoroutinefunction(get_token)
        found = await (get_token(self._scope) if is_async else asyncio.to_thread(get_token, self._scope))
        return str(found.token)

    wait_for_job = AsyncScripted(wait_for_job)
    submit_job = AsyncAnswer(operations.submit_job)
    draft_job = AsyncAnswer(operations.draft_job)
    submit_batch = AsyncAnswer(operations.submit_batch)
    get_submission_schema = AsyncAnswer(operations.get_submission_schema)
    get_job = AsyncAnswer(operations.get_job)
    list_jobs = AsyncPages(operations.list_jobs)
    list_tasks = AsyncPages(operations.list_tasks)
    get_task = AsyncAnswer(operations.get_task)
    list_runs = AsyncPages(operations.list_runs)
    get_run = AsyncAnswer(operations.get_run)
    list_events = AsyncPages(operations.list_events)
    list_logs = AsyncPages(operations.list_logs)
    explain_job = AsyncAnswer(operations.explain_job)
    list_job_types = AsyncPages(operations.list_job_types)
    cancel_job = AsyncAnswer(operations.cancel_job)
    pause_job = AsyncAnswer(operations.pause_job)
    resume_job = AsyncAnswer(operations.resume_job)
    rerun_job = AsyncAnswer(operations.rerun_job)
    adjust_job = AsyncAnswer(operations.adjust_job)
    hold_job = AsyncAnswer(operations.hold_job)
    release_job = AsyncAnswer(operations.release_job)
    delete_job = AsyncAnswer(operations.delete_job)
    act_on_jobs = AsyncAnswer(operations.act_on_jobs)
    list_audit = AsyncPages(operations.list_audit)
    list_failures = AsyncPages(operations.list_failures)
    group_failures = AsyncPages(operations.group_failures)
    list_dead_letters = AsyncPages(operations.list_dead_letters)
    group_dead_letters = AsyncPages(operations.group_dead_letters)
    get_dead_letter = AsyncAnswer(operations.get_dead_letter)
    redrive_dead_letters = AsyncAnswer(operations.redrive_dead_letters)
    list_schedules = AsyncPages(operations.list_schedules)
    get_schedule = AsyncAnswer(operations.get_schedule)
    put_schedule = AsyncAnswer(operations.put_schedule)
    delete_schedule = AsyncAnswer(operations.delete_schedule)
    pause_schedule = AsyncAnswer(operations.pause_schedule)
    resume_schedule = AsyncAnswer(operations.resume_schedule)
    run_schedule = AsyncAnswer(operations.run_schedule)
    list_ticks = AsyncPages(operations.list_ticks)
    list_next_ticks = AsyncPages(operations.list_next_ticks)
    explain_schedule = AsyncAnswer(operations.explain_schedule)
    list_webhooks = AsyncPages(operations.list_webhooks)
    get_webhook = AsyncAnswer(operations.get_webhook)
    put_webhook = AsyncAnswer(operations.put_webhook)
    delete_webhook = AsyncAnswer(operations.delete_webhook)
    rotate_webhook_secret = AsyncAnswer(operations.rotate_webhook_secret)
    test_webhook = AsyncAnswer(operations.test_webhook)
    list_deliveries = AsyncPages(operations.list_deliveries)
    redeliver = AsyncAnswer(operations.redeliver)
    list_limits = AsyncPages(operations.list_limits)
    get_limit = AsyncAnswer(operations.get_limit)
    put_limit = AsyncAnswer(operations.put_limit)
    forget_limit = AsyncAnswer(operations.forget_limit)
    list_apps = AsyncAnswer(operations.list_apps)
    list_queues = AsyncAnswer(operations.list_queues)
    livez = AsyncAnswer(operations.livez)
    readyz = AsyncAnswer(operations.readyz)
