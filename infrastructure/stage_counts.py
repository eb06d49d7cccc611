"""How many tasks of a job's stages are in which status, at a cost that does not grow with them.

A completed stage has its numbers in its row. Tasks of a small stage are counted at each look. Those of a large one are
counted once, and in the background for as long as somebody looks again and again, so seldom that counting takes a small
share of the time. A look gets the latest count with its time, and that is never older than twice the time between two
counts.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from psycopg import Cursor
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as SqlLiteral

from core.basics.cache import LatestCache
from core.basics.outage import outage
from core.errors import StoreUnavailable
from core.models import JobRef, StageRef
from core.models.status import StageStatus, TaskStatus
from core.models.view import StageDetail
from core.safety.safe_log import safe_logger
from core.schema.statuses import STATUS_SETS
from infrastructure.connections import own_transaction
from infrastructure.postgresql import Pool, PostgreSQLRepository

log = safe_logger(__name__)

# Tasks of a stage that are counted at each look.
FEW_TASKS = 1_000
# A count is used at least this long, and for this many times what it took: counting has at most that share of the time.
FRESH_SECONDS = 1.0
TIMES_ITS_COST = 10.0
# Two looks within this time begin the counting in the background; without a look for as long it ends, and the first who
# looks after that waits for a new count.
WATCHED_SECONDS = 15.0

_KEPT_STAGES = 1_000
_OPEN = tuple(status for status in TaskStatus if not status.is_terminal)
_COLUMNS = (
    *("stage", "status", "expected_count", "failed_count", "created_at", "planned_at", "finished_at"),
    *("deadline_at", "queue_deadline_at", "from_run"),
)
_COUNTED = SQL(", ").join(
    SQL("count(*) filter (where t.status = {})::integer as {}").format(
        SqlLiteral(status.value), Identifier(f"count_{status.value}")
    )
    for status in TaskStatus
)
Counts = Mapping[TaskStatus, int]


@dataclass(frozen=True)
class _Statuses:
    """Those of the job and the stage: once one of them changes, the tasks may have changed together."""

    job: str
    stage: str


@dataclass(frozen=True)
class _Counted:
    """A count of a large stage: at `at`, fresh until `until`, both of the clock."""

    counts: Counts
    statuses: _Statuses
    counted_at: datetime
    at: float
    until: float

    def is_fresh(self, now: float) -> bool:
        return self.is_final or now < self.until

    def is_overdue(self, now: float) -> bool:
        """The thread should have counted again by now, and has other stages to count or waits for the database."""
        return now >= self.until + (self.until - self.at)

    @property
    def is_final(self) -> bool:
        """The stage has ended, and no task is open: nothing changes any more."""
        is_over = StageStatus.stored(self.statuses.stage).is_terminal
        return is_over and not any(self.counts[status] for status in _OPEN)


class StageCounts(PostgreSQLRepository):
    """One per process: it keeps the latest counts of large stages."""

    def __init__(self, pool: Pool, schema: str = "app", *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(pool, schema)
        self._clock = clock
        self._known: LatestCache[StageRef, _Counted] = LatestCache(_KEPT_STAGES)
        self._lock = threading.Lock()
        self._looked_at: LatestCache[StageRef, float] = LatestCache(_KEPT_STAGES)
        # What the thread counts. There is a thread as long as there is such a stage.
        self._watched: set[StageRef] = set()
        self._is_counting = False
        self._wake = threading.Event()

    def read_stages(self, cursor: Cursor[DictRow], ref: JobRef, job_status: str) -> tuple[StageDetail, ...]:
        """The stages that the job's run has come to, in order, with tasks counted by status."""
        rows = cursor.execute(self._stages_text, ref * 3).fetchall()
        return tuple(self._detail(cursor, ref, row, job_status) for row in rows)

    def _detail(self, cursor: Cursor[DictRow], ref: JobRef, row: DictRow, job_status: str) -> StageDetail:
        counted = None
        if row["is_large"]:
            counted = self._find(cursor, ref.at_stage(row["stage"]), _Statuses(job_status, row["status"]))
        settings = row["settings"]
        return StageDetail.model_validate(
            {name: settings[name] for name in ("name", "task_type", "parallelism")}
            | {name: row[name] for name in _COLUMNS}
            | {"counts": counted.counts if counted else _counts(row)}
            | {"counted_at": counted.counted_at if counted else None, "max_parallel": settings.get("max_parallel")}
        )

    def _find(self, cursor: Cursor[DictRow], ref: StageRef, statuses: _Statuses) -> _Counted:
        known, now = self._known.get(ref), self._clock()
        looked_at = self._looked_at.get(ref)
        self._looked_at.put(ref, now)
        if known is None or known.statuses != statuses:
            return self._count(cursor, ref, statuses)
        if known.is_final:
            return known
        if not known.is_fresh(now) and (ref not in self._watched or known.is_overdue(now)):
            known = self._count(cursor, ref, statuses)
        if looked_at is not None and now - looked_at <= WATCHED_SECONDS:
            self._watch(ref)
        return known

    def _count(self, cursor: Cursor[DictRow], ref: StageRef, statuses: _Statuses) -> _Counted:
        began = self._clock()
        row = cursor.execute(self._count_text, ref).fetchone()
        assert row is not None  # noqa: S101 - an aggregate without groups
        ended = self._clock()
        fresh = max(FRESH_SECONDS, (ended - began) * TIMES_ITS_COST)
        counts = {status: row[f"count_{status.value}"] for status in TaskStatus}
        counted = _Counted(counts, statuses, row["counted_at"], ended, ended + fresh)
        with self._lock:
            # Two count at the same time where a look and the thread do: the later one stays.
            known = self._known.get(ref)
            if known is not None and known.statuses == statuses and known.counted_at > counted.counted_at:
                return known
            self._known.put(ref, counted)
        return counted

    def _watch(self, ref: StageRef) -> None:
        """Let it be counted in the background."""
        with self._lock:
            if ref in self._watched:
                return
            self._watched.add(ref)
            self._wake.set()
            if self._is_counting:
                return
            self._is_counting = True
        try:
            self._start()
        except RuntimeError:  # the system gives no thread: the next look tries again
            with self._lock:
                self._is_counting = False
                self._watched.clear()
            log.exception("stage_not_counted", extra=ref.log_fields)

    def _start(self) -> None:
        threading.Thread(target=self._keep_counting, name="stage-counts", daemon=True).start()

    def _keep_counting(self) -> None:
        while (seconds := self._count_due()) is not None:
            self._wake.wait(seconds)

    def _count_due(self) -> float | None:
        """Count those that are due. Seconds until the next one is; None: nobody looks any more, and the thread ends."""
        self._wake.clear()
        with self._lock:
            watched = list(self._watched)
        waits = [seconds for ref in watched if (seconds := self._count_if_due(ref)) is not None]
        with self._lock:
            # One that a look has added meanwhile has a count: it is due in `FRESH_SECONDS` or later.
            self._is_counting = bool(self._watched)
            return min(waits, default=FRESH_SECONDS) if self._is_counting else None

    def _count_if_due(self, ref: StageRef) -> float | None:
        """Seconds until it is due; None: it is not counted here any more."""
        known, looked_at, now = self._known.get(ref), self._looked_at.get(ref), self._clock()
        if known is None or looked_at is None or known.is_final or now - looked_at > WATCHED_SECONDS:
            self._forget(ref)
            return None
        if not known.is_fresh(now):
            try:
                with self._get_cursor("count_stage") as cursor, own_transaction(cursor.connection):
                    known = self._count(cursor, ref, known.statuses)
            except StoreUnavailable as error:
                outage.note(str(error))
                self._forget(ref)
                return None
            except Exception:
                log.exception("stage_not_counted", extra=ref.log_fields)
                self._forget(ref)
                return None
        return max(0.0, known.until - self._clock())

    def _forget(self, ref: StageRef) -> None:
        """The next look counts anew."""
        with self._lock:
            self._watched.discard(ref)

    @cached_property
    def _stages_text(self) -> str:
        """Tasks are counted where a small stage is open or was stopped; a completed one has their numbers."""
        query = SQL(
            "select s.stage, s.settings, s.status, s.expected_count, s.failed_count, s.created_at, s.planned_at, "
            "s.finished_at, s.deadline_at, s.queue_deadline_at, s.from_run, "
            "s.status not in ({completed_stages}) and coalesce(s.expected_count, 0) > {few} as is_large, c.* "
            "from {stages} s left join (select t.stage as of_stage, {counts} "
            "from {tasks} t where t.job_id = %s and t.run = %s and t.stage in (select o.stage from {stages} o "
            "where o.job_id = %s and o.run = %s and o.status not in ({completed_stages}) "
            "and coalesce(o.expected_count, 0) <= {few}) "
            "group by t.stage) c on c.of_stage = s.stage where s.job_id = %s and s.run = %s order by s.stage"
        ).format(
            stages=self._table("stages"),
            counts=_COUNTED,
            tasks=self._table("tasks"),
            few=SqlLiteral(FEW_TASKS),
            **STATUS_SETS,
        )
        return query.as_string()

    @cached_property
    def _count_text(self) -> str:
        query = SQL(
            "select {counts}, statement_timestamp() as counted_at from {tasks} t"
            " where t.job_id = %s and t.run = %s and t.stage = %s"
        ).format(counts=_COUNTED, tasks=self._table("tasks"))
        return query.as_string()


def _counts(row: DictRow) -> Counts:
    counts = {status: row[f"count_{status.value}"] or 0 for status in TaskStatus}
    if row["status"] in {StageStatus.COMPLETED, StageStatus.COMPLETED_WITH_ERRORS}:
        counts[TaskStatus.FAILED] = row["failed_count"]
        counts[TaskStatus.COMPLETED] = row["expected_count"] - row["failed_count"]
    return counts
