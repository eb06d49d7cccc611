"""What can go wrong, and whether trying again helps. Decided by type, never by text.

Exception
+-- ContractViolationError       a bug in the caller: a wrong message type, a handler that returned nonsense
+-- InvalidParameters            parameters that their sender must change: raised by validators
+-- CoreMachineError
    +-- AuthorError              whatever an author's code raised, as it is stored
    +-- TaskError                raised by handlers
    |   +-- RetryableTaskError   try again, perhaps after `retry_after_seconds`
    |   +-- PermanentTaskError   never try again
    +-- TaskCancelled            raised by a handler that noticed that nobody wants its work any more
    |   +-- TaskTimedOut         its attempt has run out of time: a failed attempt, retried as a RetryableTaskError
    +-- WorkWaits                this process cannot do the work now; it waits, and spends no attempt
    |   +-- UnknownWork          this release does not know something that the work needs; it waits for one that does
    |   +-- JobTypeBusy          too many submissions of the job type hang in this process
    +-- IdempotencyKeyReused     a submission's key came before with another payload
    +-- MessageRefused           a message that its sender must change: no delivery more helps
    +-- AttemptsExhausted        no attempt is left
    +-- DeliveryError            a message was not confirmed; its rows stay unannounced, and the janitor sends it later
    |   +-- QueueNotFound        no such queue: somebody must create it or fix the setting
    |   +-- MessageTooLarge      beyond what the queue takes
    +-- Draining                 this process is about to end: the message must stay with the broker, for others
    +-- StoreUnavailable         the database cannot be reached: the message that led here must stay with the broker
    |   +-- StoreBusy            the connections of this process to the database are all in use
    |   +-- StoreCancelled       the database stopped the statement, and may do so each time
    |   +-- StoreReadOnly        the database takes no writes
    |   +-- StoreShort           the database answers, and lacks room, memory or a lock for the statement
    +-- DataRefused              the database will never take these values: what they belong to has failed
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from core.safety.credentials import redact
from core.safety.safe_text import (
    MOST_TEXT_BYTES,
    ancestry_of,
    bounded_text,
    brief_text,
    repr_of,
    storable_text,
    text_of,
    trace_of,
    type_name,
)

# Nobody is asked to wait longer than this.
MOST_RETRY_AFTER_SECONDS = 86_400.0
_MOST_LOGGED = 2000
# Of what an attempt logged and printed.
MOST_LOG_BYTES = 8 * 1024
_LONGEST_TYPE = 200
_LONGEST_REFUSAL = 8000


class ContractViolationError(TypeError):
    """A bug, not bad luck: it always bubbles up."""


class InvalidParameters(ValueError):
    """Parameters that their sender must change; `jobs.parameters.ParameterErrors` is one."""

    def in_plain_text(self) -> "InvalidParameters":
        """The same, of bounded plain text: an author's own may raise when it is read, or be 20 MB long."""
        return InvalidParameters(bounded_text(text_of(self), _LONGEST_REFUSAL) or type_name(self))


class CoreMachineError(Exception):
    """Base of the engine's own errors."""


class TaskError(CoreMachineError):
    """An attempt failed."""


class RetryableTaskError(TaskError):
    """An attempt failed and another may succeed.

    Args:
        message: What a person should read.
        retry_after_seconds: When the other side said so; a longer back-off wins.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class PermanentTaskError(TaskError):
    """An attempt failed and so would every other."""


class TaskCancelled(CoreMachineError):
    """The handler stopped because its job was cancelled or its lease is gone."""


class TaskTimedOut(TaskCancelled, RetryableTaskError):
    """The handler stopped because its attempt ran longer than the stage's `task_timeout_seconds`."""


class WorkWaits(CoreMachineError):
    """This process cannot do the work now; it waits, and spends no attempt.

    Attributes:
        checkpoint: What the log calls it.
        reason: Of the dead letter that a message becomes after the patience.
        advice: For a person who finds that it waits.
    """

    checkpoint: ClassVar[str]
    reason: ClassVar[str]
    advice: ClassVar[str]


class UnknownWork(WorkWaits):
    """This release does not know something that the work needs; another one may. It waits, and spends no attempt.

    Args:
        kind: What it is: job type, task type, definition, stage, message.
        name: Which one.
    """

    checkpoint, reason = "UNKNOWN_WORK", "UnknownWork"
    advice = (
        "deploy the release that knows it; if the sender wrote a wrong name, send the message again with the right one"
    )

    def __init__(self, kind: str, name: str, message: str | None = None) -> None:
        self.kind, self.name = kind, storable_text(name)
        super().__init__(message or f"this app does not know the {kind} {name}; deploy the release that does")


class JobTypeBusy(WorkWaits):
    """A submission waits, because too many others of its job type hang, or because it hangs after it began to write."""

    checkpoint, reason = "SUBMISSION_HANGS", "JobTypeBusy"
    advice = "deploy job code whose validation ends: the restart frees the threads, and the message is submitted then"


class IdempotencyKeyReused(CoreMachineError):
    """The key belongs to another submission; nothing was written."""

    def __init__(self, key: str, job_id: str) -> None:
        self.key, self.job_id = key, job_id
        super().__init__(
            f"idempotency key: expected a new key for a new request, found that {key!r} came before with another job "
            f"type, other parameters, another force or if_ended (job {job_id}); use a key of its own for each request"
        )


class SubmissionRefused(CoreMachineError):
    """The job was there and does not run with these parameters, and the submission said `fail`; nothing was written."""

    def __init__(self, job_id: str, status: str, reason: str) -> None:
        self.job_id, self.status = job_id, status
        super().__init__(
            f"Nothing was submitted: the job of these parameters is there already ({job_id}, {status}), "
            f"and the submission asked for a new one or one that runs (if_ended=fail). {reason}"
        )


class OtherParameters(CoreMachineError):
    """The job was there, and its present run is of other parameters than those submitted; nothing was written.

    Args:
        run: The present one, whose parameters are read as that run's.
        reason: What was found, and what to do.
    """

    def __init__(self, job_id: str, status: str, run: int, reason: str) -> None:
        self.job_id, self.status, self.run = job_id, status, run
        super().__init__(
            f"Nothing was submitted: the job of these parameters is there already ({job_id}), "
            f"but it was run again with other ones. {reason}"
        )


class MessageRefused(CoreMachineError):
    """A message that its sender must change: it belongs among the dead letters at once.

    Args:
        reason: The type of what is wrong.
        text: What a person should read; credentials are blanked.
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(redact(text))


class AttemptsExhausted(CoreMachineError):
    """No attempt is left."""

    def __init__(self, attempt: int, max_attempts: int) -> None:
        self.attempt, self.max_attempts = attempt, max_attempts
        super().__init__(f"attempt {attempt} of {max_attempts} failed; none is left")


class DeliveryError(CoreMachineError):
    """Messages for a queue were not confirmed; the adapter's own error is the cause."""

    def __init__(self, queue: str, reason: str) -> None:
        self.queue, self.reason = queue, reason
        super().__init__(f"queue {queue!r}: {reason}")


class QueueNotFound(DeliveryError):
    """The namespace has no such queue."""


class MessageTooLarge(DeliveryError):
    """One message alone is larger than the queue takes."""


class Draining(CoreMachineError):
    """This process takes no messages any more."""

    def __init__(self) -> None:
        super().__init__("this process is about to end and takes no work; another one will")


class StoreUnavailable(CoreMachineError):
    """The database cannot be reached now."""

    # `core.basics.outage` logs it, once a minute for all: no host needs to, for each message.
    is_reported = True


class StoreBusy(StoreUnavailable):
    """The connections of this process to the database, `connections` in number, are all in use.

    `held_up_by`: which session has locked what they wait for, and what to do, if that was looked for and found.
    """

    connections: int
    held_up_by: str | None = None


class StoreCancelled(StoreUnavailable):
    """The database stopped the statement: it took longer than a limit of the operator's, or a person cancelled it."""


class StoreReadOnly(StoreUnavailable):
    """The database takes no writes: it is a standby by now, or somebody made its transactions read-only."""


class StoreShort(StoreUnavailable):
    """The database answers, and has not what a statement needs now: room, memory or a lock. `condition` names it."""

    condition: str


class DataRefused(CoreMachineError):
    """The database cannot hold the values: too large, too deep, or no text."""


# The order matters: the first match decides. FileNotFoundError and its like are OSErrors that no retry fixes.
PERMANENT_EXCEPTIONS: tuple[type[BaseException], ...] = (
    PermanentTaskError,
    TaskCancelled,
    DataRefused,
    ContractViolationError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
    SystemExit,
)
RETRYABLE_EXCEPTIONS: tuple[type[BaseException], ...] = (RetryableTaskError, OSError, TimeoutError, ConnectionError)


@dataclass(frozen=True)
class Failure:
    """What is stored of a failed attempt. Every text is made storable, bounded and free of credentials here.

    Args:
        error_type: The name of what went wrong.
        message: What a person reads; 64 KB of it are kept, and as much of the traceback.
        retry_after_seconds: What an author gave, of any type: a number, its text or a timedelta is taken, at most a
            day. The message names what could not be used.
        log: The last lines that the attempt logged and printed; 8 KB of them are kept.
        ancestry: For each class of what was raised, from its own to its most general, its names without and with
            their module. It is not stored.
    """

    error_type: str
    message: str
    retryable: bool
    retry_after_seconds: float | None = None
    traceback: str | None = None
    log: str | None = None
    ancestry: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        seconds, note = _usable_seconds(self.retry_after_seconds)
        stored = {
            "error_type": bounded_text(self.error_type, _LONGEST_TYPE),
            "message": bounded_text(self.message, MOST_TEXT_BYTES - len(note.encode())) + note,
            "retry_after_seconds": seconds,
            "traceback": None if self.traceback is None else bounded_text(self.traceback, keep_end=True),
            "log": None if self.log is None else bounded_text(self.log, MOST_LOG_BYTES, keep_end=True),
        }
        for name, value in stored.items():
            object.__setattr__(self, name, value)

    def to_json(self, attempt: int | None = None) -> dict[str, Any]:
        """As it is stored: type, message, retryable, attempt, traceback, `at`, and `log` where there is one.

        Args:
            attempt: Of a job's step. The database writes that of a task, as its row counts.
        """
        return {
            "type": self.error_type,
            "message": self.message,
            "retryable": self.retryable,
            "attempt": attempt,
            "traceback": self.traceback,
            "at": datetime.now(UTC).isoformat(),
            **({} if self.log is None else {"log": self.log}),
        }


class AuthorError(CoreMachineError):
    """Raised in place of whatever an author's code raised; nothing of that is kept but its `failure`."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        # What a log shows of it: one line, however long the message is; `failure` has all of it.
        told = brief_text(" ".join(f"{failure.error_type}: {failure.message}".split()), _MOST_LOGGED)
        super().__init__(f"{told}\n{failure.traceback}" if failure.traceback else told)


HANGING_REMEDY = "validate_job_parameters, or another method of the job class, takes long or hangs: fix it"


class SubmissionHangs(AuthorError):
    """A submission was given up before it wrote anything, and will write nothing."""

    def __init__(self, expected: str) -> None:
        message = f"expected {expected}; nothing was written. {HANGING_REMEDY}"
        super().__init__(Failure("SubmissionHangs", message, retryable=True))


def classify(error: BaseException) -> Failure:
    """Say whether trying again may help. An unknown type may: handlers meet the outside world.

    Whatever the error does when it is asked, this raises nothing.
    """
    # The type alone: an author's object may claim any class.
    kind = type(error)
    if issubclass(kind, AuthorError):
        return error.failure  # type: ignore[attr-defined, no-any-return]
    return Failure(
        error_type=type_name(error),
        message=_message_of(error),
        retryable=issubclass(kind, RetryableTaskError) or not issubclass(kind, PERMANENT_EXCEPTIONS),
        retry_after_seconds=_retry_after_of(error) if issubclass(kind, RetryableTaskError) else None,
        traceback=trace_of(error),
        ancestry=ancestry_of(kind),
    )


def _message_of(error: BaseException) -> str:
    text = text_of(error)
    if not issubclass(type(error), SystemExit):
        return text or type_name(error)
    code = f"sys.exit({text})" if text else "sys.exit()"
    return f"expected an exception that names the problem, found {code}; raise PermanentTaskError; the process goes on"


def _retry_after_of(error: Any) -> Any:
    try:
        return error.retry_after_seconds
    except BaseException:  # noqa: BLE001 - an author's subclass may not have called ours, or may compute it
        return None


def _usable_seconds(value: Any) -> tuple[float | None, str]:
    """The seconds that an author meant, and what a person must know of them."""
    if value is None:
        return None, ""
    try:
        seconds = _seconds_of(value)
    except BaseException:  # noqa: BLE001 - an author's number converts itself
        seconds = -1.0
    if not seconds >= 0:  # NaN too
        expected = f"expected seconds from 0 to {MOST_RETRY_AFTER_SECONDS:.0f}"
        found = bounded_text(repr_of(value))
        return None, f" (retry_after_seconds: {expected}, found {found}; the stage's own delay is used)"
    if seconds > MOST_RETRY_AFTER_SECONDS:
        return MOST_RETRY_AFTER_SECONDS, f" (retry_after_seconds: cut to a day, found {seconds:g})"
    return seconds, ""


def _seconds_of(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a truth value is no number of seconds")
    return float(value.total_seconds() if isinstance(value, timedelta) else value)
