"""How many tasks of a job's stages are in which status, at a cost that does not grow with them.

A completed stage has its numbers in its row. Tasks of a small stage are counted at each look. Those of a large one are
counted once, and from then on in the background, so seldom that counting takes a small share of the time; a look gets
the latest count with its time.
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
TIMES_ITS_COST = 25.0
# Where nobody looked for longer, the first who does waits for a new count.
OLD_SECONDS = 30.0

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
        self._counting: set[StageRef] = set()

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
        if known is None or known.statuses != statuses:
            return self._count(cursor, ref, statuses)
        if known.is_final or now < known.until:
            return known
        if now - known.at > OLD_SECONDS:
            return self._count(cursor, ref, statuses)
        self._refresh(ref, statuses)
        return known

    def _count(self, cursor: Cursor[DictRow], ref: StageRef, statuses: _Statuses) -> _Counted:
        began = self._clock()
        row = cursor.execute(self._count_text, ref).fetchone()
        assert row is not None  # noqa: S101 - an aggregate without groups
        ended = self._clock()
        fresh = max(FRESH_SECONDS, (ended - began) * TIMES_ITS_COST)
        counts = {status: row[f"count_{status.value}"] for status in TaskStatus}
        counted = _Counted(counts, statuses, row["counted_at"], ended, ended + fresh)
        self._known.put(ref, counted)
        return counted

    def _refresh(self, ref: StageRef, statuses: _Statuses) -> None:
        """Count in the background, once at a time."""
        with self._lock:
            if ref in self._counting:
                return
            self._counting.add(ref)
        try:
            threading.Thread(target=self._count_again, args=(ref, statuses), name="stage-counts", daemon=True).start()
        except RuntimeError:  # the system gives no thread: the next look tries again
            self._counting.discard(ref)
            log.exception("stage_not_counted", extra=ref.log_fields)

    def _count_again(self, ref: StageRef, statuses: _Statuses) -> None:
        try:
            with self._get_cursor("count_stage") as cursor, own_transaction(cursor.connection):
                self._count(cursor, ref, statuses)
        except StoreUnavailable as error:
            outage.note(str(error))
        except Exception:
            log.exception("stage_not_counted", extra=ref.log_fields)
        finally:
            with self._lock:
                self._counting.discard(ref)

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
            "select {counts}, now() as counted_at from {tasks} t where t.job_id = %s and t.run = %s and t.stage = %s"
        ).format(counts=_COUNTED, tasks=self._table("tasks"))
        return query.as_string()


def _counts(row: DictRow) -> Counts:
    counts = {status: row[f"count_{status.value}"] or 0 for status in TaskStatus}
    if row["status"] in {StageStatus.COMPLETED, StageStatus.COMPLETED_WITH_ERRORS}:
        counts[TaskStatus.FAILED] = row["failed_count"]
        counts[TaskStatus.COMPLETED] = row["expected_count"] - row["failed_count"]
    return counts
