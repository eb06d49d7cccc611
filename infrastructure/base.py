"""What every repository shares, whatever its store."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from core.errors import DataRefused, StoreBusy, StoreCancelled, StoreReadOnly, StoreShort, StoreUnavailable
from core.safety.safe_log import safe_logger


class RepositoryError(Exception):
    """A store did not do what it was asked to; the adapter's own error is the cause."""

    def __init__(self, operation: str, reason: str) -> None:
        # libpq writes its hints on lines of their own, after a tab.
        self.operation, self.reason = operation, reason.replace("\n\t", " ").expandtabs(2)
        super().__init__(f"{operation}: {self.reason}")


class DatabaseUnavailable(RepositoryError, StoreUnavailable):
    """The database cannot be reached now; the message that led here must stay with the broker."""


class ConnectionsInUse(DatabaseUnavailable, StoreBusy):
    """This process has no connection left for a call; the database may well answer."""

    def __init__(self, operation: str, expected: str, connections: int) -> None:
        self.connections = connections
        found = (
            f"found all {connections} in use; COREMACHINE_POOL_SIZE sets how many there are, and pg_blocking_pids "
            "names the session of a lock that they wait for"
        )
        super().__init__(operation, f"{expected}, {found}")


class DatabaseSilent(DatabaseUnavailable):
    """A server, or a pooler in front of it, took a statement and has not answered for long."""


class DatabaseUnsuitable(DatabaseUnavailable):
    """The engine cannot work on this database as it is set up: somebody must change that."""


class StatementCancelled(DatabaseUnavailable, StoreCancelled):
    """The server cancelled the statement."""


class DatabaseReadOnly(DatabaseUnavailable, StoreReadOnly):
    """The server takes no writes."""


class DatabaseShort(DatabaseUnavailable, StoreShort):
    """The server answers, and a limit of its own keeps it from the statement.

    Args:
        condition: Its SQLSTATE with the name of that.
    """

    def __init__(self, operation: str, reason: str, condition: str) -> None:
        self.condition = condition
        super().__init__(operation, reason)


class ChangeRefused(RepositoryError):
    """Something in the database that is not the engine's, such as a trigger or a rule, refused or left out a change."""


class ValuesRefused(RepositoryError, DataRefused):
    """The database cannot hold the values, now or later."""


class ChangedMeanwhile(RepositoryError):
    """Another transaction came in between, and this one was rolled back: the same call again finds it done."""


class PreconditionFailed(RepositoryError):
    """A call that does all or nothing did nothing: something is not as its caller expects."""


class PlanningCancelled(RepositoryError):
    """The server cancelled the write of a stage's tasks: a failed attempt at planning, since it might do so each time.

    As an outage it would be repeated for ever.
    """

    def __init__(self, stage: int, count: int, reason: str) -> None:
        reason = (
            f"stage {stage}: expected to write its tasks in one transaction, found that the server cancelled it after "
            f"{count}: {reason}; raise statement_timeout for the role of this app, and look for who cancels its queries"
        )
        super().__init__("plan_stage", reason)


class TasksKeptOut(RepositoryError):
    """A stage that counts tasks without rows would end without them; `insert_few_tasks` raises CM006 for the same."""

    def __init__(self, expected: int, found: int) -> None:
        reason = (
            f"expected {expected} tasks to be inserted, found {found}: a trigger or a rule of the table tasks keeps "
            "rows out; drop it"
        )
        super().__init__("plan_stage", reason)


class BaseRepository:
    """Names its operations in errors and logs."""

    def __init__(self) -> None:
        self._log = safe_logger(type(self).__module__)

    @contextmanager
    def _error_context(self, operation: str) -> Iterator[None]:
        """Translate the store's errors once, by type or code, never by text."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again as what it means
            self._raise_translated(operation, error)

    def _raise_translated(self, operation: str, error: Exception) -> NoReturn:
        """Raise what an error is to those who called; for an `except`, where it costs nothing when there is none."""
        translated = self._translate(operation, error)
        if translated is error:
            raise error
        raise translated from error

    def _translate(self, operation: str, error: Exception) -> Exception:
        del operation
        return error
