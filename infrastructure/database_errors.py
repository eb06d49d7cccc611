"""What a refusal of the database means: sorted by SQLSTATE and by what broke, the connection or the statement."""

from enum import StrEnum

import psycopg

READ_ONLY = "25006"
# The statement's preparation is not what this connection believes: a pooler gave it another server connection
# (no such statement, or it is there already), or a migration changed what the function returns.
STALE_PREPARATION = frozenset({"26000", "42P05", "0A000"})
# Of those, what only a pooler does.
POOLED = frozenset({"26000", "42P05"})
# Raised by lock_stage and share_stage: a decision was about to be made on an old snapshot.
NOT_READ_COMMITTED = "CM005"
# By a person, a statement_timeout, or a transaction_timeout.
CANCELLED = frozenset({"57014", "25P04"})
# Raised by a trigger; by us, since one left out a row; for a statement that a table with rules does not take.
REFUSED_BY_OTHERS = frozenset({"P0001", "CM006", "0A000"})
NOT_GRANTED = "42501"
# Of disk, memory, connections, a limit of the server's; and a lock_timeout.
SHORTAGES = "53"
LOCK_NOT_GIVEN = "55P03"
PROTOCOL_VIOLATION = "08P01"


class Fault(StrEnum):
    """Whose fault a refusal is, and so what helps."""

    OUTAGE = "outage"  # the database's: later, the same will do
    CHANGED = "changed"  # nobody's, all was rolled back: the same again, at once
    NOT_AS_EXPECTED = "not_as_expected"  # nobody's: the caller does something else
    DATA = "data"  # the values': the same never will do
    UNSUITABLE = "unsuitable"  # the schema's or the role's: when a person has changed that, the same will do
    OTHER = "other"  # ours: a person must look


_BY_SQLSTATE = {
    "CM001": Fault.CHANGED,
    "CM004": Fault.NOT_AS_EXPECTED,
    "40P01": Fault.CHANGED,
    "40001": Fault.CHANGED,
    # The schema is another release's, or not there: a function, a column, a table, the schema, a type, one of two.
    "42883": Fault.UNSUITABLE,
    "42703": Fault.UNSUITABLE,
    "42P01": Fault.UNSUITABLE,
    "3F000": Fault.UNSUITABLE,
    "42704": Fault.UNSUITABLE,
    "42725": Fault.UNSUITABLE,
    NOT_GRANTED: Fault.UNSUITABLE,
    # The server is a standby by now, or its disk is so full that it takes no writes.
    READ_ONLY: Fault.OUTAGE,
    # Limits of the operator: on waiting for a lock, on idling in a transaction, on a transaction's duration.
    LOCK_NOT_GIVEN: Fault.OUTAGE,
    "25P03": Fault.OUTAGE,
    "25P04": Fault.OUTAGE,
}
_BY_CLASS = {
    "08": Fault.OUTAGE,  # connection exception; PgBouncer's word for all that goes wrong behind it
    "53": Fault.OUTAGE,  # connections, memory, disk
    "57": Fault.OUTAGE,  # shut down, starting, terminated, idle_session_timeout, statement_timeout
    "58": Fault.OUTAGE,  # the server's own files
    "F0": Fault.OUTAGE,
    "XX": Fault.OUTAGE,  # broken data or index: a person must look, and no job is to fail for it
    "22": Fault.DATA,
    "23": Fault.DATA,
    "54": Fault.DATA,  # too large, too deep, too many
}


def fault_of(error: Exception, *, is_broken: bool) -> Fault:
    """Sort an error that a statement met.

    Args:
        is_broken: Whether the connection does not work any more: that alone makes it an outage.
    """
    if is_broken:
        return Fault.OUTAGE
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return Fault.DATA  # no text for a UTF-8 database; a number beyond what is sent
    if not isinstance(error, psycopg.Error):
        return Fault.OTHER
    if error.sqlstate is not None:
        return _BY_SQLSTATE.get(error.sqlstate) or _BY_CLASS.get(error.sqlstate[:2], Fault.OTHER)
    # Refused before it was sent, over a connection that works: NUL in a text, or more than libpq can hold.
    is_data = isinstance(error, psycopg.DataError | psycopg.OperationalError)
    return Fault.DATA if is_data else Fault.OTHER


def shortage_of(error: BaseException | None) -> str | None:
    """What the server lacks for a statement, with its SQLSTATE; None where that is not why it was refused."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    if sqlstate is None or not (sqlstate.startswith(SHORTAGES) or sqlstate == LOCK_NOT_GIVEN):
        return None
    return f"{sqlstate} {type(error).__name__}"


def reason_of(error: BaseException | None) -> str:
    """What a person reads of it; where the database does not suit, the first line, and what to do."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    if sqlstate is None or _BY_SQLSTATE.get(sqlstate) is not Fault.UNSUITABLE:
        return str(error)
    first = first_line(error)
    if sqlstate == NOT_GRANTED:
        return (
            f"{first}; grant the role of this app what it lacks: usage on the schema, select, insert, update and "
            "delete on its tables, execute on its functions, and no policies of row-level security (bypassrls)"
        )
    return f"{first}; the schema is not the one of this release: run `coremachine db migrate`"


def first_line(error: BaseException | None) -> str:
    """What the server said, without where."""
    return next(iter(str(error).splitlines()), "")
