"""One place for handling errors: uniform logs, contract violations always bubble up, clean-up never hides a cause."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.basics.outage import outage
from core.errors import ContractViolationError, MessageRefused, StoreUnavailable
from core.safety.safe_log import SafeLogger
from core.safety.safe_text import text_of, type_name


class CoreMachineErrorHandler:
    """Wraps the engine's operations."""

    def __init__(self, logger: SafeLogger) -> None:
        self._logger = logger

    def report(
        self,
        operation: str,
        error: Exception,
        *,
        job_id: str | None = None,
        stage: int | None = None,
        task_id: str | None = None,
    ) -> None:
        """Log an error with its operation and ids; for an `except` that raises it again.

        An outage of the database is left to `core.basics.outage`, which logs it once a minute; a message that its
        sender must change is no failure, and is logged where it is written down.
        """
        if isinstance(error, StoreUnavailable):
            outage.note(str(error))
        elif not isinstance(error, MessageRefused):
            self._logger.error(
                "operation_failed",
                exc_info=error,
                extra={
                    "operation": operation,
                    "job_id": job_id,
                    "stage": stage,
                    "task_id": task_id,
                    "error_type": type(error).__name__,
                    "contract_violation": isinstance(error, ContractViolationError),
                },
            )

    @contextmanager
    def handle_operation(
        self,
        operation: str,
        *,
        job_id: str | None = None,
        stage: int | None = None,
        task_id: str | None = None,
        on_error: Callable[[Exception], None] | None = None,
        raise_on_error: bool = True,
    ) -> Iterator[None]:
        """Report an error; let `on_error` clean up; raise it again if asked.

        Raises:
            ContractViolationError: Always passed on, whatever `raise_on_error` is: it is a bug.
        """
        try:
            yield
        except MessageRefused:
            raise
        except Exception as error:
            self.report(operation, error, job_id=job_id, stage=stage, task_id=task_id)
            if on_error is not None:
                self._clean_up(operation, error, on_error)
            if raise_on_error or isinstance(error, ContractViolationError):
                raise

    def _clean_up(self, operation: str, error: Exception, on_error: Callable[[Exception], None]) -> None:
        try:
            on_error(error)
        except Exception as cleanup_error:  # noqa: BLE001 - logged with its cause, which is then raised
            log_nested_error(self._logger, error, cleanup_error, operation)


def log_nested_error(
    logger: SafeLogger,
    primary_error: BaseException,
    cleanup_error: BaseException,
    operation: str,
    *,
    job_id: str | None = None,
    stage: int | None = None,
    task_id: str | None = None,
) -> None:
    """Log an error together with the one that its clean-up met, so that neither hides the other."""
    logger.error(
        "nested_error",
        exc_info=primary_error,
        extra={
            "nested_error": True,
            "operation": operation,
            "primary_error": text_of(primary_error),
            "primary_error_type": type_name(primary_error),
            "cleanup_error": text_of(cleanup_error),
            "cleanup_error_type": type_name(cleanup_error),
            "job_id": job_id,
            "stage": stage,
            "task_id": task_id,
        },
    )
