"""Writes down which callers looked at a job, where a setting asks for it: before anything of the job is answered."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.basics.cache import LatestCache
from core.errors import StoreUnavailable
from triggers.actor import find_actor
from triggers.problems import find_answer

READS_SETTING = "COREMACHINE_AUDIT_READS"
# A caller that polls a job, or a page that follows it, leaves a row this often, in each process.
AGAIN_SECONDS = 600.0
# All that may show parameters, or what was made of them.
_OF_A_JOB = re.compile(r"/api(?:/ui)?(?:/jobs|/operations|/durable/instances)/([0-9a-f]{64})(?:/.*)?")
_OF_MANY = frozenset({"/api/ui", "/api/ui/", "/api/ui/jobs"})
RecordRead = Callable[[str, str | None, str], None]


def wants_reads(environment: Mapping[str, str]) -> bool:
    """Whether the setting asks for it; one that cannot be read does, and the app names it."""
    return environment.get(READS_SETTING, "").strip().lower() not in {"", "0", "false", "no", "off", "f", "n"}


class ReadAudit:
    """ASGI middleware behind the gate: an answer that shows a job leaves once its row is written.

    Args:
        record: Writes a row, of the job's id (empty: a list), the caller's name and the path; called in a thread.
        clock: Seconds, monotonic.
    """

    def __init__(self, app: ASGIApp, record: RecordRead, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._record = record
        self._clock = clock
        self._known: LatestCache[tuple[str, str | None], float] = LatestCache(4096)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job_id = _job_of(scope)
        if job_id is None:
            await self._app(scope, receive, send)
            return
        refused = False

        async def send_noted(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] < 300:  # noqa: PLR2004 - it shows the job
                try:
                    await self._note(Request(scope), job_id)
                except StoreUnavailable as error:
                    refused = True
                    answer = find_answer(Request(scope), error)
                    if answer is None:
                        raise
                    await answer(scope, receive, send)
            if not refused:
                await send(message)

        await self._app(scope, receive, send_noted)

    async def _note(self, request: Request, job_id: str) -> None:
        actor = find_actor(request)
        noted_at = self._known.get((job_id, actor))
        if noted_at is not None and self._clock() - noted_at < AGAIN_SECONDS:
            return
        await run_in_threadpool(self._record, job_id, actor, request.scope["path"])
        self._known.put((job_id, actor), self._clock())


def _job_of(scope: Mapping[str, Any]) -> str | None:
    """The id of the job that the request is about; empty for a list that shows parameters, None for all else."""
    if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
        return None
    path = scope["path"]
    found = _OF_A_JOB.fullmatch(path)
    return found[1] if found else "" if path in _OF_MANY else None
