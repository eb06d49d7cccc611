"""What can go wrong, and whether trying again helps. Decided by type, never by text.

Exception
+-- ContractViolationError       a bug in the caller: a wrong message type, a handler that returned nonsense
+-- CoreMachineError
    +-- TaskError                raised by handlers
    |   +-- RetryableTaskError   try again, perhaps after `retry_after_seconds`
    |   +-- PermanentTaskError   never try again
    +-- TaskCancelled            raised by a handler that noticed that nobody wants its work any more
    |   +-- TaskTimedOut         its attempt has run out of time: a failed attempt, tried again as a RetryableTaskError
    +-- IdempotencyKeyReused     a submission's key came before with another payload
    +-- AttemptsExhausted        no attempt is left
    +-- DeliveryError            a message was not confirmed; its rows stay unannounced, and the janitor sends it later
    |   +-- QueueNotFound        no such queue: somebody must create it or mend the setting
    |   +-- MessageTooLarge      beyond what the queue takes
    +-- Draining                 this process is about to end: the message must stay with the broker, for others
    +-- StoreUnavailable         the database cannot be reached: the message that led here must stay with the broker
"""

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# The end of a traceback says what happened.
TRACEBACK_CHARACTERS = 4000


class ContractViolationError(TypeError):
    """A bug, not bad luck: it always bubbles up."""


class CoreMachineError(Exception):
    """Base of the engine's own errors."""


class TaskError(CoreMachineError):
    """An attempt failed."""


class RetryableTaskError(TaskError):
    """An attempt failed and another may succeed.

    Args:
        message: What a person should read.
        retry_after_seconds: When the other side said so; it overrides the back-off.
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
            f"if_ended: expected a job that is new or runs with these parameters, found {job_id} ({status}). {reason}"
        )


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


# The order matters: the first match decides. FileNotFoundError and its like are OSErrors that no retry mends.
PERMANENT_EXCEPTIONS: tuple[type[BaseException], ...] = (
    PermanentTaskError,
    TaskCancelled,
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
)
RETRYABLE_EXCEPTIONS: tuple[type[BaseException], ...] = (RetryableTaskError, OSError, TimeoutError, ConnectionError)


def storable_text(text: str) -> str:
    """The text without what PostgreSQL's jsonb refuses: NUL and lone surrogates."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Failure:
    """What is stored of a failed attempt."""

    error_type: str
    message: str
    retryable: bool
    retry_after_seconds: float | None = None
    traceback: str | None = None

    def to_json(self, attempt: int) -> dict[str, Any]:
        """As it is stored: type, message, retryable, attempt, traceback, and `at`."""
        return {
            "type": self.error_type,
            "message": self.message,
            "retryable": self.retryable,
            "attempt": attempt,
            "traceback": self.traceback,
            "at": datetime.now(UTC).isoformat(),
        }


def classify(error: BaseException) -> Failure:
    """Say whether trying again may help. An unknown type may: handlers meet the outside world."""
    retryable = isinstance(error, RetryableTaskError) or not isinstance(error, PERMANENT_EXCEPTIONS)
    frames = "".join(traceback.format_exception(error)) if error.__traceback__ else None
    return Failure(
        error_type=type(error).__name__,
        message=storable_text(str(error) or type(error).__name__),
        retryable=retryable,
        retry_after_seconds=error.retry_after_seconds if isinstance(error, RetryableTaskError) else None,
        traceback=storable_text(frames[-TRACEBACK_CHARACTERS:]) if frames else None,
    )
