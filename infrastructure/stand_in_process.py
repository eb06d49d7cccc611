"""`python -m infrastructure.stand_in_process`: renews its parent's leases while the parent's interpreter is blocked.

Started by `infrastructure.stand_in`. On stdin comes a line of JSON, then a byte four times a second. When none comes
for a while though the parent lives, whatever is leased under its name is renewed, and the steps that it takes
(`infrastructure.step_sheet`), over a connection of its own, until bytes come again. A parent that somebody stopped
(SIGSTOP, a debugger) does not work: its leases run out. When stdin closes, this process ends at once.

Nothing is imported before it is needed, so one that was never needed is small. But an exclamation mark among the bytes
means that a lease may be as short as five seconds: then there is no time to import it when the silence begins.
"""

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from core.safety.safe_log import safe_logger
from infrastructure.step_sheet import read_steps

if TYPE_CHECKING:
    from core.models.lease import RenewedLease
    from infrastructure.factory import RepositoryFactory

log = safe_logger("infrastructure.stand_in_process")  # __name__ is __main__ here

SILENCE_SECONDS, SHORT_SILENCE_SECONDS = 3.0, 1.0
# The shortest lease is five seconds.
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 20.0
RENEWALS_PER_LEASE = 3
APPLICATION_NAME = "coremachine-lease-stand-in"
_STDIN = 0
_BE_QUICK = b"!"
_NAMED_IN_LOG = 10

Renewal = Callable[[], "list[RenewedLease]"]


class StandIn:
    """Renews from a thread of its own, so that the pipe is read whatever the database does.

    Args:
        renew: Renews all and returns one row per lease.
        longest_seconds: After this time without a sign of life the leases may run out.
        rest: Called when the parent is at work again.
    """

    def __init__(
        self, renew: Renewal, parent: int, longest_seconds: float, rest: Callable[[], object] = lambda: None
    ) -> None:
        self._renew = renew
        self._rest = rest
        self._parent = parent
        self._longest_seconds = longest_seconds
        self._changed = threading.Condition()
        self._since: float | None = None
        self._noted: set[tuple[str, str, str]] = set()

    def begin(self) -> None:
        """The parent is silent."""
        with self._changed:
            if self._since is None:
                self._since = time.monotonic()
                self._changed.notify()

    def end(self) -> None:
        """The parent is at work again."""
        with self._changed:
            since, self._since = self._since, None
            if since is not None:
                self._changed.notify()
        if since is not None and self._noted:
            self._noted = set()
            log.warning("lease_stand_in_over pid=%d seconds=%.1f", self._parent, time.monotonic() - since)

    def run(self) -> NoReturn:
        """Renew as long as the parent is silent, whenever it is."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._since is not None)
                since = self._since or 0.0
            pause = self._stand_in(time.monotonic() - since)
            with self._changed:
                is_over = self._changed.wait_for(lambda: self._since is None, timeout=pause)
            if is_over:
                self._rest()

    def _stand_in(self, seconds: float) -> float | None:
        """Renew once; how long to wait for the next time."""
        if seconds > self._longest_seconds:
            log.error(
                "lease_stand_in_gives_up pid=%d seconds=%.0f; COREMACHINE_LEASE_STAND_IN_SECONDS allows %.0f: "
                "its leases run out, and its tasks begin anew elsewhere",
                self._parent,
                seconds,
                self._longest_seconds,
            )
            return None
        try:
            rows = self._renew()
        except Exception as error:  # noqa: BLE001 - the database may be away as well
            log.warning("lease_stand_in_failed pid=%d error=%r", self._parent, error)
            return SHORTEST_PAUSE_SECONDS
        self._tell(rows)
        left = [row.seconds_left for row in rows if row.outcome != "timed_out"]
        return min(LONGEST_PAUSE_SECONDS, max(SHORTEST_PAUSE_SECONDS, min(left, default=0.0) / RENEWALS_PER_LEASE))

    def _tell(self, rows: "list[RenewedLease]") -> None:
        """Each outcome of a task once; all in a line."""
        found = {(row.outcome.value, row.job_id, row.task_id) for row in rows}
        for outcome in sorted({outcome for outcome, _, _ in found - self._noted}):
            new = sorted(found - self._noted)
            tasks = [f"{job_id}/{task_id}" for told, job_id, task_id in new if told == outcome]
            more = f" and {len(tasks) - _NAMED_IN_LOG} more" if len(tasks) > _NAMED_IN_LOG else ""
            log.warning(
                "lease_stand_in pid=%d outcome=%s tasks=%s%s; its interpreter is blocked: a handler holds it",
                self._parent,
                outcome,
                ",".join(tasks[:_NAMED_IN_LOG]),
                more,
            )
        self._noted |= found


class Connection:
    """What renews, as the app would connect: at the first renewal, imported then or before."""

    def __init__(self, environment: Mapping[str, str], owner: str) -> None:
        self._environment = environment
        self._owner = owner
        self._lock = threading.Lock()
        self._factory: RepositoryFactory | None = None

    def prepare(self) -> "RepositoryFactory":
        """All that takes time but the connection itself."""
        with self._lock:
            if self._factory is None:
                self._factory = self._make()
            return self._factory

    def renew(self, find_steps: Callable[[], Iterable[tuple[Any, ...]]]) -> "list[RenewedLease]":
        """The leases of tasks first: whatever is wrong with the steps costs these nothing."""
        # Slow, as all that is not needed as long as the parent is well.
        from core.models.lease import STEP_LEASE_SECONDS, LeaseOutcome, RenewedLease  # noqa: PLC0415
        from core.models.refs import StepRef  # noqa: PLC0415

        tasks = self.prepare().create_repositories().tasks
        renewed = tasks.renew_leases_of_owner(self._owner)
        for step in (StepRef(*each) for each in find_steps()):
            is_renewed = tasks.renew_step_lease(step, self._owner)
            outcome = LeaseOutcome.RENEWED if is_renewed else LeaseOutcome.LOST
            renewed.append(RenewedLease(step.job_id, f"{step.status}:{step.stage}", outcome, STEP_LEASE_SECONDS))
        return renewed

    def close(self) -> None:
        """Until the next renewal."""
        self.prepare().close()

    def _make(self) -> "RepositoryFactory":
        # Slow, and not needed as long as the parent is well.
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415
        from pydantic import SecretStr  # noqa: PLC0415

        from infrastructure.factory import RepositoryFactory  # noqa: PLC0415
        from infrastructure.settings import load_settings  # noqa: PLC0415

        settings = load_settings(self._environment)
        url = make_conninfo(settings.database_url.get_secret_value(), application_name=APPLICATION_NAME)
        return RepositoryFactory(settings.model_copy(update={"database_url": SecretStr(url), "pool_size": 1}))


def watch(stand_in: StandIn, parent: int, on_short_lease: Callable[[], object]) -> None:
    """Until the parent has ended."""
    poll, silence = select.poll(), SILENCE_SECONDS
    poll.register(_STDIN, select.POLLIN)
    while os.getppid() == parent:  # a child that it forked may hold the pipe open
        if poll.poll(silence * 1000):
            data = os.read(_STDIN, 65536)
            if not data:
                return
            stand_in.end()
            if _BE_QUICK in data and silence > SHORT_SILENCE_SECONDS:
                silence = SHORT_SILENCE_SECONDS
                threading.Thread(target=on_short_lease, name="preparation", daemon=True).start()
        elif is_stopped(parent):
            stand_in.end()
        else:
            stand_in.begin()


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger holds the process, where the system shows it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in {"T", "t"}


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    brief = _read_brief()
    logging.basicConfig(
        level="WARNING", stream=sys.stderr, format="%(asctime)s %(levelname)-7s [stand-in] %(name)s: %(message)s"
    )
    connection = Connection(brief["environment"], brief["owner"])
    stand_in = StandIn(
        lambda: connection.renew(lambda: read_steps(brief["steps"])),
        brief["parent"],
        brief["longest_seconds"],
        connection.close,
    )
    threading.Thread(target=stand_in.run, name="renewal", daemon=True).start()
    watch(stand_in, brief["parent"], connection.prepare)


def _read_brief() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):  # byte by byte: the rest is for the poll
        byte = os.read(_STDIN, 1)
        if not byte:
            os._exit(0)
        line += byte
    brief: dict[str, Any] = loads(line)
    return brief


if __name__ == "__main__":
    main()
    os._exit(0)  # whatever the other thread waits for
