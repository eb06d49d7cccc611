"""A job's timeline as it comes: parts of it, each answered when there is something new.

The host of Azure Functions hands an answer over when it is whole, so no answer here stays open. A stream of server-sent
events is a row of answers that end: browsers ask for the next one by themselves, with the id that came last.
"""

from json import dumps

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from core.models.status import JobStatus
from core.models.view import NewEvents
from triggers import problems
from triggers.job_answers import wait_for_events
from triggers.ports import ApiServices

EVENT_STREAM = "text/event-stream"
STREAM_SECONDS = 20.0
# Before a browser asks again.
_PAUSE_MILLISECONDS = 1000


async def follow(
    request: Request, services: ApiServices, job_id: str, *, seconds: float, limit: int, cursor: str | None
) -> NewEvents:
    """What came after the cursor; where there is nothing yet, what comes within that time.

    Raises:
        InvalidCursor: The cursor is of another list.
        ProblemError: There is no such job.
    """

    def read(after: str | None) -> NewEvents:
        return services.queries.follow_events(job_id, limit=limit, cursor=after)

    new = await run_in_threadpool(read, cursor)
    if new.items:
        return new
    if await run_in_threadpool(services.find_job_status, job_id) is None:
        raise problems.unknown_job(job_id)
    if seconds and await wait_for_events(request, new.position, seconds):
        new = await run_in_threadpool(read, new.cursor)
    return new


async def answer_stream(services: ApiServices, job_id: str, new: NewEvents) -> Response:
    """A part of a stream. Its last event has the id: where a part breaks off, it is sent again."""
    if not new.items:
        status = await run_in_threadpool(services.find_job_status, job_id)
        if status is None or JobStatus.stored(status).is_terminal:
            return Response(status_code=204)
    lines = [f"retry: {_PAUSE_MILLISECONDS}", ""]
    for event in new.items:
        is_last = event is new.items[-1]
        lines += [f"id: {new.cursor}"] if is_last else []
        lines += [f"event: {event.event}", f"data: {dumps(event.model_dump(mode='json'), ensure_ascii=False)}", ""]
    return Response("\n".join([*lines, ""]), media_type=EVENT_STREAM)
