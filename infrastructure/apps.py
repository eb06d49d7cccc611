"""The processes of all apps, the work that waits for one, and the queues as the rows show them."""

from collections.abc import Iterable

from psycopg.sql import SQL

from core.app_queues import JOBS_QUEUE
from core.models.app import AppInstanceRecord, AppProfile, FleetFacts, QueueLoad, WaitingWork
from core.schema.statuses import STATUS_SETS
from infrastructure.connections import snapshot
from infrastructure.postgresql import PostgreSQLRepository, columns_of

# The largest numbers that an operator's question reads.
_STAGES, _TASKS_PER_STAGE, _INSTANCES = 200, 20, 1000
# Open tasks of a stage that are looked through for those: behind as many that run or are not due, others are alike.
_LOOKED_AT = 1000

# In the order of the index `tasks_open`, since a plan would read the whole table for some rows in any order.
# Stages are few. Of each, a few of its waiting tasks show the types that wait: all of a stage are read by no sweep.
_WAITING = SQL(
    "select w.queue, w.task_type, min(w.since) as since"
    " from (select s.job_id, s.run, s.stage from {stages} s join {jobs} j on j.job_id = s.job_id and j.run = s.run"
    "   where s.status in ({open_stages}) and j.paused_at is null and j.status in ({open_jobs})"
    "     and (%(job_id)s::text is null or s.job_id = %(job_id)s) limit %(stages)s) o"
    " cross join lateral (select t.queue, t.task_type,"
    "     coalesce((t.waiting_for ->> 'since')::timestamptz, t.announced_at, t.created_at) as since"
    "   from (select x.queue, x.task_type, x.status, x.due_at, x.parked_at, x.waiting_for, x.announced_at, x.created_at"
    "     from {tasks} x where x.job_id = o.job_id and x.run = o.run and x.stage = o.stage"
    "     and x.status in ({open_tasks}) order by x.job_id, x.run, x.stage, x.task_id limit %(looked_at)s) t"
    "   where t.status in ({waiting_tasks}) and t.parked_at is null"
    "     and (t.due_at is null or t.due_at <= {clock}() or t.waiting_for is not null)"
    "   limit %(tasks)s) w"
    " group by w.queue, w.task_type order by since"
)
# Of many, as apps that scale leave within a day, those that run first: the others explain what nobody reads.
_INSTANCES_OF = SQL(
    "select {columns} from (select * from {instances} order by ended_at is not null, seen_at desc limit %s) a"
    " order by app_name, started_at, instance"
)
_TASK_LOADS = SQL(
    "select queue, count(*) filter (where lease_id is null)::integer as waiting,"
    " count(*) filter (where lease_id is not null)::integer as running,"
    " min(announced_at) filter (where lease_id is null) as oldest_at"
    " from {tasks} where status in ({open_tasks}) and (lease_id is not null or announced_at is not null) group by queue"
)
# What has no message yet, of at most that many open tasks: a look costs no more, whatever waits in line.
_MOST_OPEN = 200_000
_OPEN_LOADS = SQL(
    "select queue, count(*) filter (where status = 'pending_retry')::integer as retrying,"
    " count(*) filter (where status = 'pending' and announced_at is null)::integer as unannounced"
    " from (select queue, status, announced_at from {tasks} where status in ({open_tasks}) limit {rows}) t"
    " group by queue"
)
_JOB_LOAD = SQL(
    "select count(*)::integer as waiting, 0 as running, min(announced_at) as oldest_at"
    " from {jobs} where status in ({waiting_jobs}) and announced_at is not null"
)
_DEAD = SQL("select queue, count(*)::integer as dead from {letters} where resolved_at is null group by queue")


class AppRepository(PostgreSQLRepository):
    """`sql/functions/apps.sql`, and what people ask of queues."""

    def record_app_instance(self, profile: AppProfile) -> None:
        """The process is here."""
        self._call(
            "record_app_instance",
            (
                profile.instance,
                profile.app_name,
                profile.mode,
                profile.version,
                profile.release,
                list(profile.queues),
                list(profile.task_types),
                list(profile.job_types),
                profile.slots,
            ),
        )

    def end_app_instance(self, instance: str) -> None:
        """The process ends, in order."""
        self._call("end_app_instance", (instance,))

    def prune_app_instances(self, older_than_seconds: float, *, most: int) -> int:
        """Delete the rows of processes that are long gone: how many."""
        (row,) = self._call("prune_app_instances", (older_than_seconds, most))
        return int(row["prune_app_instances"])

    def read_fleet(self, job_id: str | None = None) -> FleetFacts:
        """All processes, and the work that waits: of one job, or of all."""
        with self._get_cursor("read_fleet") as cursor, snapshot(cursor.connection):
            now = cursor.execute(SQL("select {}() as now").format(self._table("clock"))).fetchone()
            instances = cursor.execute(
                _INSTANCES_OF.format(columns=columns_of(AppInstanceRecord), instances=self._table("app_instances")),
                (_INSTANCES,),
            ).fetchall()
            waiting = cursor.execute(
                _WAITING.format(**self._names()),
                {"job_id": job_id, "stages": _STAGES, "tasks": _TASKS_PER_STAGE, "looked_at": _LOOKED_AT},
            ).fetchall()
        assert now is not None  # noqa: S101 - a select without a table has one row
        return FleetFacts(
            now=now["now"],
            instances=tuple(AppInstanceRecord.model_validate(row) for row in instances),
            waiting=tuple(WaitingWork(**row) for row in waiting),
        )

    def read_queue_loads(self, queues: Iterable[str]) -> list[QueueLoad]:
        """These queues (logical names, the jobs queue among them), then others that rows name."""
        with self._get_cursor("read_queue_loads") as cursor, snapshot(cursor.connection):
            tasks = cursor.execute(_TASK_LOADS.format(**self._names())).fetchall()
            rows = SQL("{}").format(_MOST_OPEN)
            lines = cursor.execute(_OPEN_LOADS.format(**self._names(), rows=rows)).fetchall()
            (jobs,) = cursor.execute(_JOB_LOAD.format(**self._names())).fetchall()
            dead = cursor.execute(_DEAD.format(letters=self._table("dead_letters"))).fetchall()
        loads = {row["queue"]: row for row in tasks} | {JOBS_QUEUE: {**jobs, "queue": JOBS_QUEUE}}
        in_line = {row["queue"]: row for row in lines}
        died = {row["queue"]: row["dead"] for row in dead}
        names = dict.fromkeys([*queues, *sorted(loads), *sorted(in_line), *sorted(died)])
        empty = {"waiting": 0, "running": 0, "oldest_at": None}
        return [
            QueueLoad(**{**in_line.get(name, {}), **loads.get(name, empty), "queue": name, "dead": died.get(name, 0)})
            for name in names
        ]

    def _names(self) -> dict[str, object]:
        tables = {name: self._table(name) for name in ("jobs", "stages", "tasks", "clock")}
        return {**tables, **STATUS_SETS}
