"""Which tasks a stage has, which queue each goes to, who may run it, and the messages that say so between apps."""

import hashlib
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from core.app_queues import JOBS_QUEUE
from core.authors.author_code import author_items, call_author, describe_returned, read_once, refusal
from core.authors.elements import tasks_over
from core.basics.canonical import MOST_VALUE_BYTES, copied, describe, encode_storable
from core.basics.faults import fault_point
from core.basics.strict_json import EncodedJson
from core.errors import AuthorError, DeliveryError, PermanentTaskError, QueueNotFound, UnknownWork
from core.models import (
    JobQueueMessage,
    JobRecord,
    JobStatus,
    Parallelism,
    StageCompleteMessage,
    StageDefinition,
    TaskDefinition,
    TaskQueueMessage,
)
from core.models.announcement import UnannouncedTask
from core.models.context import CompletedTask
from core.models.message import KeptMessage
from core.models.transition import PlannedTask
from core.ports import AnnouncedJob, JobCatalog, JobType, MessageSender
from core.safety.safe_log import safe_logger
from core.safety.safe_text import storable_text

log = safe_logger(__name__)

_T = TypeVar("_T")
# Id, name, task type and parameters of a task.
AskedTask = tuple[str, str | None, str | None, EncodedJson]

FAN_IN_NAME = "fan_in"
MESSAGES_PER_SEND = 200
MOST_NAME_CHARACTERS = 500
_ID_CHARACTERS = 60
_queue_of = attrgetter("queue")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class DuplicateTaskName(PermanentTaskError):
    """Two tasks of a stage have the same name, and so would have the same id."""

    def __init__(self, stage: int, name: str) -> None:
        super().__init__(f"stage {stage}: expected each task to have its own name, found {name!r} twice")


class NoQueueForTask(UnknownWork):
    """Neither a handler of this app nor the stage names the queue of a task."""

    def __init__(self, stage: int, task_type: str) -> None:
        super().__init__(
            "task type",
            task_type,
            f"stage {stage}: expected a handler for task type {task_type!r}, or `queue` in the stage, found neither; "
            "register the handler or name the queue of the app that has it",
        )


@dataclass(frozen=True)
class AppRole:
    """What this app does.

    Args:
        app_name: Its name in leases and signals.
        advances_jobs: Whether it plans stages and finalizes jobs; a worker app signals the platform app instead.
        served_queues: Logical names of the task queues whose tasks it runs.
        routes: Logical queues by task type, as the deployment has them; they win over stages and handlers.
        most_bytes: How large one result, one set of parameters and one summary may be, as JSON.
    """

    app_name: str = "local"
    advances_jobs: bool = True
    served_queues: frozenset[str] = frozenset()
    routes: Mapping[str, str] = field(default_factory=dict)
    most_bytes: int = MOST_VALUE_BYTES


class OrchestrationManager:
    """Decides and sends; rows are none of its business. Messages that are not confirmed are the janitor's to send."""

    def __init__(self, catalog: JobCatalog, sender: MessageSender, role: AppRole) -> None:
        self._catalog = catalog
        self._sender = sender
        self.role = role
        # How many stages the class of a job type has.
        self._stage_counts: dict[str, tuple[JobType, int]] = {}

    def tasks_of_stage(
        self, job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask], *, previous_count: int
    ) -> Iterator[PlannedTask]:
        """The rows of a stage, one by one. A fan_in stage has the one that the machine makes itself.

        Raises:
            AuthorError: The author's planner raised, or asked for what cannot be. Nothing of the stage is kept then.
            DuplicateTaskName, NoQueueForTask: Nothing of the stage is kept then.
        """
        self.expect_stages(job, stage.number)
        taken: dict[str, str | None] = {}
        for index, (plain_id, name, task_type, parameters) in enumerate(
            self._asked_for(job, stage, previous, previous_count)
        ):
            task_id = _free_id(stage.number, plain_id, name, taken)
            taken[task_id] = name
            fault_point("job.planning")
            yield PlannedTask(
                job_id=job.job_id,
                run=job.run,
                task_id=task_id,
                stage=stage.number,
                task_index=index,
                task_type=task_type or stage.task_type,
                queue=self.queue_for(stage, task_type or stage.task_type),
                name=name,
                parameters=parameters,
            )

    def _asked_for(
        self, job: JobRecord, stage: StageDefinition, previous: Iterable[CompletedTask], previous_count: int
    ) -> Iterator[AskedTask]:
        """Name, task type and parameters of each task that the stage is to have."""
        if stage.parallelism is Parallelism.FAN_IN:
            plain_id = task_id_for(stage.number, 0, FAN_IN_NAME)
            ref = job.ref.at_stage(stage.number - 1)
            source = {"fan_in_source": {**ref._asdict(), "expected_count": previous_count}}
            yield plain_id, FAN_IN_NAME, None, encode_storable(source)
            return
        if stage.over is not None:
            what = f"over {stage.over!r} of {job.job_type!r}, stage {stage.number}"
            for index, task in enumerate(tasks_over(job, stage, previous)):
                yield self._read_definition(what, stage, index, task)
            return
        what = f"create_tasks_for_stage of {job.job_type!r}, stage {stage.number}"
        job_class = self._catalog.get_job(job.job_type)

        def plan(*args: Any) -> Iterable[TaskDefinition]:
            # Looked up inside of the boundary: an author's metaclass may do anything then.
            return job_class.create_tasks_for_stage(*args)

        read = partial(self._read_definition, what, stage)
        yield from author_items(what, read, plan, stage.number, copied(job.parameters), job.job_id, read_once(previous))

    def _read_definition(self, what: str, stage: StageDefinition, index: int, item: object) -> AskedTask:
        """What an author's item asks for; its parameters as they will be stored."""
        if not isinstance(item, TaskDefinition):
            raise AuthorError(
                refusal(f"{what}, task {index}: expected a TaskDefinition, found {describe_returned(item)}")
            )
        # Looked at once, and again although it was validated: `model_construct` does not.
        name, task_type = item.name, item.task_type
        parameters: object = item.parameters
        if not isinstance(parameters, Mapping):
            found = describe_returned(parameters)
            raise AuthorError(refusal(f"{what}, task {index}: parameters: expected a mapping, found {found}"))
        if name is not None:
            name = _plain_text(what, index, "name", name)
            if not 0 < len(name) <= MOST_NAME_CHARACTERS:
                found = f"one of {len(name)}"
                raise AuthorError(
                    refusal(
                        f"{what}, task {index}: name: expected 1 to {MOST_NAME_CHARACTERS} characters, found {found}"
                    )
                )
        if task_type is not None:
            task_type = _plain_text(what, index, "task_type", task_type)
        unknown = self._catalog.find_unknown_name(task_type or stage.task_type, parameters)
        if unknown is not None:
            raise AuthorError(refusal(f"{what}, task {index}: {unknown}"))
        task_id = task_id_for(stage.number, index, name)
        encoded = encode_storable(parameters, f"task {task_id}: parameters", most_bytes=self.role.most_bytes)
        return task_id, name, task_type, encoded

    def expect_stages(self, job: JobRecord, count: int) -> None:
        """Keep a job from code that has fewer stages than it: its planner would take one of them for another.

        Raises:
            UnknownWork: Another release declares that stage, or the job's type.
        """
        job_class = self._catalog.get_job(job.job_type)
        counted, known = self._stage_counts.get(job.job_type, (None, 0))
        if counted is not job_class:
            known = call_author(_count_stages, job_class)
            self._stage_counts[job.job_type] = job_class, known
        if count > known:
            raise UnknownWork("stage", f"{count} of {job.job_type!r}, of which it has {known}")

    def queue_for(self, stage: StageDefinition, task_type: str) -> str:
        """The logical queue of a task: the deployment's for its type, else the stage's own, else its handler's."""
        handler = self._catalog.find_handler(task_type)
        queue = self.role.routes.get(task_type) or stage.queue or (handler.queue if handler else None)
        if queue is None:
            raise NoQueueForTask(stage.number, task_type)
        return queue

    def knows(self, kind: str, name: str) -> bool:
        """Whether this app has what work waits for (`UnknownWork`). Of a definition only trying can tell: no."""
        if kind == "task type":
            return self._catalog.find_handler(name) is not None
        try:
            return kind == "job type" and self._catalog.get_job(name) is not None
        except UnknownWork:
            return False

    def may_run_here(self, tasks: Sequence[PlannedTask], tasks_per_message: int) -> bool:
        """Whether the process that planned these tasks may run them without a message: one message's worth, ours."""
        if not 0 < len(tasks) <= tasks_per_message:
            return False
        handlers = map(self._catalog.find_handler, {task.task_type for task in tasks})
        return self.role.served_queues.issuperset([task.queue for task in tasks]) and None not in handlers

    def announce_job(self, message: JobQueueMessage, *, delay_seconds: float = 0.0) -> bool:
        """Tell the jobs queue that a job waits for a step; False when that was not confirmed."""
        try:
            if delay_seconds > 0:
                self._sender.send_message_with_delay(JOBS_QUEUE, message, delay_seconds)
            else:
                self._sender.send_messages(JOBS_QUEUE, [message])
        except DeliveryError as error:
            _tell_undelivered(error, message.job_id)
            return False
        return True

    def announce_jobs(self, messages: Sequence[JobQueueMessage]) -> bool:
        """Tell the jobs queue that jobs wait for a step, in as few sends as it takes; False when not all is confirmed.

        What was sent before a failure is sent again by the janitor, which does no harm.
        """
        try:
            self._sender.send_messages(JOBS_QUEUE, messages)
        except DeliveryError as error:
            _tell_undelivered(error, messages[0].job_id)
            return False
        return True

    def announce_tasks(
        self,
        job: AnnouncedJob,
        stage: int,
        tasks_per_message: int,
        tasks: Iterable[UnannouncedTask],
        *,
        on_sent: Callable[[list[str]], object],
        cause: str | None = None,
        mark_each: int | None = None,
    ) -> int:
        """Send messages for tasks, grouped by queue; `on_sent` gets the ids of each confirmed group.

        Args:
            mark_each: The stage is announced in windows: one message of this number, and the last, takes the next
                tasks. None: it is not, or nobody knows; what is sent again takes the next then.

        Returns:
            How many tasks were announced. Those of a queue that does not take messages stay unannounced.
        """
        count = 0
        for queue, group in itertools.groupby(sorted(tasks, key=_queue_of), key=_queue_of):
            messages = _task_messages(job, stage, tasks_per_message, group, cause, mark_each)
            for chunk in _chunks(messages, MESSAGES_PER_SEND):
                try:
                    self._sender.send_messages(queue, chunk)
                except DeliveryError as error:
                    _tell_undelivered(error, job.job_id)
                    break
                ids = [task_id for message in chunk for task_id in message.task_ids]
                fault_point("tasks.sent")
                on_sent(ids)
                fault_point("tasks.marked")
                count += len(ids)
        return count

    def announce_retry(self, message: TaskQueueMessage, queue: str, delay_seconds: float) -> bool:
        """Send a task's message for later; False when that was not confirmed."""
        try:
            self._sender.send_message_with_delay(queue, message, delay_seconds)
        except DeliveryError as error:
            _tell_undelivered(error, message.job_id)
            return False
        return True

    def send_back(self, queue: str, message: KeptMessage, delay_seconds: float) -> None:
        """Put a message back into its queue, for later. Raises DeliveryError: nothing else remembers it."""
        self._sender.send_message_with_delay(queue, message, delay_seconds)

    def signal_stage_complete(self, job: JobRecord) -> None:
        """Report to the platform app that a job advanced. The janitor makes good for lost signals."""
        signal = StageCompleteMessage(
            job_id=job.job_id,
            job_type=job.job_type,
            run=job.run,
            completed_stage=job.stage - 1 if job.status is JobStatus.QUEUED else job.stage,
            completed_by_app=self.role.app_name,
            correlation_id=job.correlation_id,
        )
        fault_point("job.before_signal")
        try:
            self._sender.send_messages(JOBS_QUEUE, [signal])
        except DeliveryError as error:
            _tell_undelivered(error, job.job_id)


def _count_stages(job_class: JobType) -> int:
    return len(job_class.stages)


def task_id_for(stage: int, index: int, name: str | None) -> str:
    """The id of a task, at most 100 characters: readable, and the same for the same name in every run."""
    if name is None:
        return f"s{stage}-{index:06d}"
    safe = _UNSAFE.sub("_", name)[:_ID_CHARACTERS]
    if safe == name:
        return f"s{stage}-{name}"
    # What was cut or replaced comes back as a digest, so that two names never share an id.
    return f"s{stage}-{safe}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _free_id(stage: int, task_id: str, name: str | None, taken: dict[str, str | None]) -> str:
    """A task's id, another one if it has no name and a task that is named by a number has its id already.

    Raises:
        DuplicateTaskName: A task of this name is there.
    """
    if task_id not in taken:
        return task_id
    if name is None:
        # No name gives such an id: a tilde in a name is replaced.
        return f"{task_id}~"
    if taken[task_id] is None:
        task_id = f"{task_id}-{hashlib.sha256((name or '').encode()).hexdigest()[:16]}"
    if task_id in taken:
        raise DuplicateTaskName(stage, name or task_id)
    return task_id


def _plain_text(what: str, index: int, field: str, text: object) -> str:
    """The text as a str of Python's own: the methods of a subclass are an author's."""
    own = str.__str__(text) if isinstance(text, str) else None
    if own is None or storable_text(own) != own:
        expected = "text without NUL and lone surrogates"
        raise AuthorError(refusal(f"{what}, task {index}: {field}: expected {expected}, found {describe(text)}"))
    return own


def task_message(
    job: AnnouncedJob,
    stage: int,
    task_ids: Sequence[str],
    *,
    attempt: int,
    cause: str | None = None,
    takes_next: bool | None = None,
) -> TaskQueueMessage:
    """A message for tasks of one stage; `TaskQueueMessage` describes the rest."""
    return TaskQueueMessage(
        job_id=job.job_id,
        job_type=job.job_type,
        run=job.run,
        stage=stage,
        task_ids=tuple(task_ids),
        attempt=attempt,
        cause=cause,
        takes_next=takes_next,
        correlation_id=job.correlation_id,
    )


def _task_messages(
    job: AnnouncedJob,
    stage: int,
    tasks_per_message: int,
    tasks: Iterable[UnannouncedTask],
    cause: str | None,
    mark_each: int | None,
) -> Iterator[TaskQueueMessage]:
    """Messages for tasks of one queue; `announce_tasks` has the meaning of `mark_each`."""
    groups = list(_chunks(iter(tasks), tasks_per_message))
    for number, group in enumerate(groups, start=1):
        if mark_each is not None:
            takes_next: bool | None = number % mark_each == 0 or number == len(groups)
        else:
            takes_next = None if cause is None else True
        yield task_message(
            job,
            stage,
            [task.task_id for task in group],
            attempt=max([task.attempt for task in group]) + 1,
            cause=cause,
            takes_next=takes_next,
        )


def _chunks(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _tell_undelivered(error: DeliveryError, job_id: str | None) -> None:
    # A queue that this app does not have is no accident: an app of another release may have it, at its next sweep.
    is_missing = isinstance(error, QueueNotFound)
    log.log(
        logging.WARNING if is_missing else logging.ERROR,
        "message_not_confirmed",
        exc_info=None if is_missing else error,
        extra={"checkpoint": "MESSAGE_NOT_CONFIRMED", "job_id": job_id, "queue": error.queue, "reason": error.reason},
    )
