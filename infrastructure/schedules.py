"""Schedules and their ticks."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from json import dumps
from typing import Any, Literal

from psycopg.sql import SQL, Composable
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from core.models.schedule import (
    DueTick,
    PlannedTick,
    ScheduleFacts,
    ScheduleRecord,
    TickAnswer,
    TickPlan,
    TickRecord,
    TickStatus,
)
from core.models.view import Page
from core.schema.statuses import STATUS_SETS
from infrastructure.adapters import as_jsonb
from infrastructure.postgresql import PostgreSQLRepository, columns_of, where_all
from infrastructure.queries import check_limit, make_page, read_cursor

_SCHEDULES = TypeAdapter(tuple[Literal["schedules"], str])
_TICKS = TypeAdapter(tuple[Literal["schedule_ticks"], str, datetime])
_LATEST = 20


class ScheduleRepository(PostgreSQLRepository):
    """`sql/functions/schedules.sql`, and what people read of the tables."""

    def put_schedule(
        self,
        schedule: ScheduleRecord,
        skipped: Sequence[PlannedTick],
        *,
        seen: ScheduleRecord | None,
        actor: str | None,
    ) -> str:
        """created, replaced, or changed: it is not as it was seen, and nothing was written."""
        parameters = (
            schedule.name,
            schedule.job_type,
            as_jsonb(schedule.parameters),
            schedule.cron,
            schedule.time_zone,
            schedule.catch_up,
            schedule.overlap,
            schedule.starts_at,
            schedule.ends_at,
            schedule.description,
            schedule.next_tick_at,
            0 if seen is None else seen.revision,
            None if seen is None else seen.next_tick_at,
            _ticks(skipped),
            actor,
        )
        (row,) = self._call("put_schedule", parameters)
        outcome: str = row["put_schedule"]
        return outcome

    def pause_schedule(self, name: str, *, reason: str | None, actor: str | None) -> bool | None:
        """Whether this call paused it; None for an unknown one."""
        rows = self._call("pause_schedule", (name, reason, actor))
        return bool(rows[0]["has_changed"]) if rows else None

    def resume_schedule(self, seen: ScheduleRecord, plan: TickPlan, *, reason: str | None, actor: str | None) -> bool:
        """False: it is not as it was seen, and nothing was written."""
        parameters = (seen.name, seen.revision, seen.next_tick_at, _ticks(plan.ticks), plan.next_tick_at, reason, actor)
        (row,) = self._call("resume_schedule", parameters)
        return bool(row["resume_schedule"])

    def plan_ticks(self, seen: ScheduleRecord, plan: TickPlan) -> bool:
        """False: it is not as it was seen, and nothing was written."""
        parameters = (seen.name, seen.revision, seen.next_tick_at, _ticks(plan.ticks), plan.next_tick_at)
        (row,) = self._call("plan_ticks", parameters)
        return bool(row["plan_ticks"])

    def find_due_schedules(self, limit: int) -> list[str]:
        """Names of those that have a due tick which nothing was decided about."""
        return [row["name"] for row in self._call("find_due_schedules", (limit,))]

    def admit_waiting_ticks(self, limit: int) -> int:
        """How many ticks need not wait any more."""
        (row,) = self._call("admit_waiting_ticks", (limit,))
        return int(row["admit_waiting_ticks"])

    def claim_due_ticks(self, limit: int, hold_seconds: float) -> list[DueTick]:
        """Ticks whose jobs the caller is to submit, the oldest first."""
        found = [DueTick(**row) for row in self._call("claim_due_ticks", (limit, hold_seconds))]
        return sorted(found, key=lambda tick: tick.tick_at)

    def add_manual_tick(
        self, name: str, tick: PlannedTick, *, actor: str | None, hold_seconds: float
    ) -> DueTick | None:
        """A tick that the caller is to submit; None for an unknown schedule."""
        parameters = (name, tick.tick_at, as_jsonb(tick.parameters), tick.submission_key, actor, hold_seconds)
        rows = self._call("add_manual_tick", parameters)
        return DueTick(**rows[0]) if rows else None

    def settle_tick(self, tick: DueTick, answer: TickAnswer) -> bool:
        """False: the tick was settled already, or another attempt has it."""
        parameters = (
            tick.schedule,
            tick.tick_at,
            tick.submission_key,
            tick.attempt,
            answer.status,
            answer.job_id,
            answer.reason,
            answer.detail,
            answer.delay_seconds,
        )
        (row,) = self._call("settle_tick", parameters)
        return bool(row["settle_tick"])

    def delete_schedule(self, name: str, *, actor: str | None) -> bool:
        """Whether it was there."""
        (row,) = self._call("delete_schedule", (name, actor))
        return bool(row["delete_schedule"])

    def read_clock(self) -> datetime:
        """The database's time."""
        (row,) = self._call("clock", ())
        moment: datetime = row["clock"]
        return moment

    def find_schedule(self, name: str) -> ScheduleRecord | None:
        query = SQL("select {} from {} where name = %s").format(columns_of(ScheduleRecord), self._table("schedules"))
        rows = self._execute_query("find_schedule", query, (name,))
        return ScheduleRecord.model_validate(rows[0]) if rows else None

    def list_schedules(
        self, *, job_type: str | None = None, paused: bool | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[ScheduleRecord]:
        """Schedules by name.

        Raises:
            InvalidCursor, ValueError: As for `JobQueries.find_jobs`.
        """
        conditions: list[Composable] = []
        parameters: list[Any] = []
        if job_type is not None:
            conditions.append(SQL("job_type = %s"))
            parameters.append(job_type)
        if paused is not None:
            conditions.append(SQL("paused_at is not null" if paused else "paused_at is null"))
        if cursor is not None:
            conditions.append(SQL("name > %s"))
            parameters.append(read_cursor(_SCHEDULES, cursor)[1])
        check_limit(limit)
        query = SQL("select {} from {}{} order by name limit %s").format(
            columns_of(ScheduleRecord), self._table("schedules"), where_all(conditions)
        )
        rows = self._execute_query("list_schedules", query, [*parameters, limit + 1])
        return make_page(rows, ScheduleRecord, limit, lambda row: _SCHEDULES.dump_json(("schedules", row["name"])))

    def list_ticks(
        self, name: str, *, statuses: Iterable[TickStatus] = (), limit: int = 50, cursor: str | None = None
    ) -> Page[TickRecord]:
        """Ticks of a schedule, the newest first. Raises as `list_schedules`."""
        conditions: list[Composable] = [SQL("schedule = %s")]
        parameters: list[Any] = [name]
        wanted = [str(status) for status in statuses]
        if wanted:
            conditions.append(SQL("status = any(%s)"))
            parameters.append(wanted)
        if cursor is not None:
            conditions.append(SQL("tick_at < %s"))
            parameters.append(read_cursor(_TICKS, cursor)[2])
        check_limit(limit)
        query = SQL("select {} from {}{} order by tick_at desc limit %s").format(
            columns_of(TickRecord), self._table("schedule_ticks"), where_all(conditions)
        )
        rows = self._execute_query("list_ticks", query, [*parameters, limit + 1])
        return make_page(
            rows, TickRecord, limit, lambda row: _TICKS.dump_json(("schedule_ticks", name, row["tick_at"]))
        )

    def find_tick(self, name: str, tick_at: datetime) -> TickRecord | None:
        query = SQL("select {} from {} where schedule = %s and tick_at = %s").format(
            columns_of(TickRecord), self._table("schedule_ticks")
        )
        rows = self._execute_query("find_tick", query, (name, tick_at))
        return TickRecord.model_validate(rows[0]) if rows else None

    def find_facts(self, name: str) -> ScheduleFacts | None:
        """What `explain` looks at; None for an unknown schedule."""
        schedule = self.find_schedule(name)
        if schedule is None:
            return None
        query = SQL(
            "select {clock}() as now, {open_job}(%s) as open_job_id,"
            " count(*) filter (where status = 'waiting')::integer as waiting,"
            " count(*) filter (where status = 'due')::integer as due,"
            " min(created_at) filter (where status = 'due') as oldest_due_at"
            " from {ticks} where schedule = %s and status in ({open_ticks})"
        ).format(
            clock=self._table("clock"),
            open_job=self._table("find_open_job"),
            ticks=self._table("schedule_ticks"),
            open_ticks=STATUS_SETS["open_ticks"],
        )
        (row,) = self._execute_query("find_facts", query, (name, name))
        return ScheduleFacts(schedule=schedule, latest=self.list_ticks(name, limit=_LATEST).items, **row)


def _ticks(planned: Sequence[PlannedTick]) -> Jsonb:
    """As `write_ticks` reads them."""
    rows = [
        {
            **asdict(tick),
            "parameters": dict(tick.parameters),
            "tick_at": tick.tick_at.isoformat(),
            "until_at": None if tick.until_at is None else tick.until_at.isoformat(),
        }
        for tick in planned
    ]
    return Jsonb(rows, dumps=dumps)
