"""Messages that their queue gave up: what they were about, and sending them again.

A message is never the truth: the rows that a dead one names are announced again by the janitor whatever happens here.
Only a submission that a producer put on the jobs queue has its truth in the message, which is why bodies are kept.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json import loads
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from core.app_queues import JOBS_QUEUE
from core.errors import DeliveryError
from core.models import JobQueueMessage, StageCompleteMessage, StageRef, TaskQueueMessage
from core.models.dead_letter import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterKind,
    DeadLetterResolution,
    MessageReference,
    RecordedLetter,
    Selection,
    WaitingRows,
)
from core.models.message import ReadMessage, UnknownMessage, read_job_message, read_task_message
from core.ports import DeadLetterStore, MessageSender
from core.safety.safe_log import safe_logger
from core.safety.safe_text import storable_text
from core.state_manager import StateManager

log = safe_logger(__name__)

# The smallest limit of Service Bus; ours are far below it. What is larger is kept in part, and cannot be sent again.
KEPT_BODY_BYTES = 256 * 1024
_KEPT_TEXT = 4000
_MAX_IDS = 100
_MAX_ID_CHARACTERS = 100
_MAX_NUMBER = 2**31 - 1
_JOB_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RedriveItem:
    """What became of one: sent, to_be_sent (a dry run), obsolete, unreadable, incomplete, resolved, not_sent."""

    letter: DeadLetterDetail
    outcome: str
    detail: str


@dataclass(frozen=True)
class RedriveReport:
    """`remaining`: unresolved ones that the selection has beyond those looked at."""

    items: tuple[RedriveItem, ...]
    remaining: int

    def count(self, outcome: str) -> int:
        return sum(item.outcome == outcome for item in self.items)


def read_reference(queue: str, body: bytes, properties: Mapping[str, Any]) -> MessageReference:
    """What a dead message was about, from its body, else from its properties, however broken the rest is.

    Args:
        queue: Logical name.
    """
    try:
        document = loads(body)
    except (ValueError, RecursionError):
        document = None
    fields = document if isinstance(document, Mapping) else {}
    told = {name: fields.get(name, properties.get(name)) for name in ("job_id", "run", "stage")}
    if "completed_stage" in fields:
        told["stage"] = fields["completed_stage"]
    job_id = told["job_id"] if isinstance(told["job_id"], str) and _JOB_ID.fullmatch(told["job_id"]) else None
    stage = _number(told["stage"])
    task_ids = _task_ids(fields.get("task_ids"))
    return MessageReference(
        kind=_kind(queue, fields, job_id, has_tasks=stage is not None and bool(task_ids)),
        job_id=job_id,
        run=_number(told["run"]) or (1 if job_id else None),
        stage=stage,
        task_ids=task_ids,
    )


def read_message(queue: str, body: bytes | str) -> ReadMessage | None:
    """The message as this release reads it; None when it cannot."""
    try:
        message = read_job_message(queue, body) if queue == JOBS_QUEUE else read_task_message(queue, body)
    except ValidationError:
        return None
    return None if isinstance(message, UnknownMessage) else message


def keep_text(text: str | None) -> str | None:
    """At most 4,000 characters, without what PostgreSQL cannot store."""
    return None if text is None else storable_text(text[:_KEPT_TEXT])


def keep_body(body: bytes) -> str:
    """As text, cut off at KEPT_BODY_BYTES."""
    return storable_text(body[:KEPT_BODY_BYTES].decode("utf-8", errors="replace"))


class DeadLetters:
    """Stores dead messages and sends them again. Nothing here changes a job or a task, only when it is announced.

    Args:
        queues: Logical names of the queues that messages can be sent to.
    """

    def __init__(
        self, store: DeadLetterStore, state: StateManager, sender: MessageSender, queues: Iterable[str]
    ) -> None:
        self._store = store
        self._state = state
        self._sender = sender
        self._queues = frozenset(queues)

    def record(self, letter: DeadLetter) -> RecordedLetter:
        """Write it down, once however often it comes, and let the rows that it names be announced again.

        Raises:
            StoreUnavailable: It must stay in the dead-letter queue.
        """
        return self._state.record_dead_letter(letter)

    def redrive(
        self, selection: Selection, *, dry_run: bool = False, limit: int = 1000, actor: str | None = None
    ) -> RedriveReport:
        """Send the selected messages again, oldest first, each as a new message; resolved ones are left alone.

        What waits for no message any more is resolved as obsolete and not sent. A crash between sending and writing
        that down sends twice the next time, which no row minds.
        """
        letters, remaining = self._store.select_dead_letters(selection, limit)
        waiting = self._store.find_waiting_rows(letters)
        items = [self._judge(letter, waiting[letter.dead_letter_id]) for letter in letters]
        if dry_run:
            return RedriveReport(tuple(items), remaining)
        obsolete = [item.letter.dead_letter_id for item in items if item.outcome == "obsolete"]
        if obsolete:
            self._store.resolve_dead_letters(obsolete, DeadLetterResolution.OBSOLETE, actor=actor)
        items = [self._send(item, waiting[item.letter.dead_letter_id], actor) for item in items]
        report = RedriveReport(tuple(items), remaining)
        log.info(
            "dead_letters_redriven",
            extra={
                "checkpoint": "REDRIVE",
                "sent": report.count("sent"),
                "not_sent": report.count("not_sent"),
                "actor": actor,
            },
        )
        return report

    def _judge(self, letter: DeadLetterDetail, waiting: WaitingRows) -> RedriveItem:
        hindrance = self._find_hindrance(letter) or _find_obsolete(letter, waiting)
        return RedriveItem(letter, *(hindrance or ("to_be_sent", "")))

    def _find_hindrance(self, letter: DeadLetterDetail) -> tuple[str, str] | None:
        """Outcome and detail of one that cannot be sent."""
        if letter.resolved_at is not None:
            return "resolved", f"it was {letter.resolution} already"
        if letter.queue not in self._queues:
            return "not_sent", f"this app has no queue {letter.queue!r} in its settings"
        if letter.body_size > KEPT_BODY_BYTES:
            return "incomplete", f"only {KEPT_BODY_BYTES} of its {letter.body_size} bytes are kept"
        if read_message(letter.queue, letter.body) is None:
            return "unreadable", "this release cannot read it either; it would die again"
        return None

    def _send(self, item: RedriveItem, waiting: WaitingRows, actor: str | None) -> RedriveItem:
        letter = item.letter
        message = read_message(letter.queue, letter.body)
        if item.outcome != "to_be_sent" or message is None:
            return item
        # Not the ids of earlier messages: a broker that drops doubles would drop these.
        again = _told_again(message, waiting.task_ids, f"redrive-{uuid4().hex[:8]}")
        try:
            self._sender.send_messages(letter.queue, [again])
        except DeliveryError as error:
            return RedriveItem(letter, "not_sent", str(error))
        if isinstance(again, TaskQueueMessage):
            self._state.mark_tasks_announced(again.stage_ref.job_ref, again.task_ids)
        elif isinstance(again, JobQueueMessage) and again.job_id is not None:
            self._state.mark_job_announced(StageRef(again.job_id, again.run, again.stage))
        self._store.resolve_dead_letters([letter.dead_letter_id], DeadLetterResolution.REDRIVEN, actor=actor)
        return RedriveItem(letter, "sent", f"as message {again.message_id}")


def _find_obsolete(letter: DeadLetterDetail, waiting: WaitingRows) -> tuple[str, str] | None:
    """Outcome and detail of one whose rows have changed."""
    if letter.kind is DeadLetterKind.TASK and not waiting.task_ids:
        return "obsolete", "none of its tasks waits for a message"
    if letter.kind in {DeadLetterKind.JOB, DeadLetterKind.STAGE_COMPLETE} and not waiting.job_waits:
        return "obsolete", "its job waits for no message"
    return None


def _told_again(message: ReadMessage, task_ids: tuple[str, ...], cause: str) -> ReadMessage:
    """The same message under another id; a task message names the tasks that still wait."""
    if isinstance(message, TaskQueueMessage):
        return message.model_copy(update={"task_ids": task_ids, "cause": cause})
    if isinstance(message, StageCompleteMessage):
        return JobQueueMessage(
            job_id=message.job_id,
            job_type=message.job_type,
            run=message.run,
            stage=message.completed_stage + 1,
            cause=cause,
            correlation_id=message.correlation_id,
        )
    return message.model_copy(update={"cause": cause})


def _kind(queue: str, fields: Mapping[str, Any], job_id: str | None, *, has_tasks: bool) -> DeadLetterKind:
    """By the fields that are there, not by whether all are right: rows that can be named are announced again."""
    if queue != JOBS_QUEUE:
        return DeadLetterKind.TASK if job_id and has_tasks else DeadLetterKind.UNREADABLE
    if job_id is not None:
        return DeadLetterKind.STAGE_COMPLETE if "completed_stage" in fields else DeadLetterKind.JOB
    is_submission = isinstance(fields.get("parameters"), Mapping) and isinstance(fields.get("job_type"), str)
    return DeadLetterKind.SUBMISSION if is_submission else DeadLetterKind.UNREADABLE


def _number(value: object) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= _MAX_NUMBER else None  # type: ignore[operator,return-value]


def _task_ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    texts = [item for item in value if isinstance(item, str) and len(item) <= _MAX_ID_CHARACTERS]
    return tuple(storable_text(text) for text in texts[:_MAX_IDS])
