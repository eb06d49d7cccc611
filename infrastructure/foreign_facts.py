"""Finds what others did to the engine's tables: triggers and rules, own triggers disabled, locks left behind."""

from typing import Any

from psycopg import Cursor

from core.models.foreign import DisabledTrigger, ForeignFacts, ForeignTrigger, PreparedTransaction
from core.schema.tables import TABLES

# The engine's own triggers call functions of its schema, and it has no rules. A trigger after a row, or for a whole
# statement, leaves nothing out without an error. `R` would fire on a replica alone, which no session of ours is.
_FOREIGN = """
select c.relname::text as "table", t.tgname::text as name, pn.nspname || '.' || p.proname as function
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid join pg_namespace pn on pn.oid = p.pronamespace
where n.nspname = %(schema)s and c.relname = any(%(tables)s) and not t.tgisinternal and t.tgenabled in ('O', 'A')
  and t.tgtype & 3 = 3 and pn.oid <> n.oid
union all
select c.relname::text, r.rulename::text, null
from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = any(%(tables)s) and r.ev_enabled in ('O', 'A')
order by 1, 2
"""
# Triggers that PostgreSQL made for foreign keys have names that mean nothing.
_DISABLED = """
select distinct c.relname::text as "table", case when not t.tgisinternal then t.tgname::text end as name
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid
where n.nspname = %(schema)s and c.relname = any(%(tables)s) and t.tgenabled in ('D', 'R')
  and (t.tgisinternal or p.pronamespace = n.oid)
order by 1, 2
"""
# Its locks have no process. What they have in common is the place that the transaction had before, and after a restart
# of the server another; one of them is on the transaction itself.
_PREPARED = """
select p.gid, p.owner::text as owner, p.prepared as prepared_at,
  array_agg(distinct c.relname::text order by c.relname::text) as tables
from pg_prepared_xacts p
  join pg_locks x on x.pid is null and x.locktype = 'transactionid' and x.transactionid = p.transaction
  join pg_locks l on l.pid is null and l.virtualtransaction = x.virtualtransaction
  join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
where p.database = current_database() and l.locktype = 'relation' and l.mode <> 'AccessShareLock'
  and l.database = (select oid from pg_database where datname = current_database())
  and n.nspname = %(schema)s and c.relname = any(%(tables)s)
  and p.prepared <= clock_timestamp() - %(seconds)s * interval '1 second'
group by p.gid, p.owner, p.prepared order by p.prepared, p.gid
"""
# Of a transaction that has something of the engine locked: beyond it somebody's work waits, or soon will.
HELD_SECONDS = 30.0
_TABLES = [table.name for table in TABLES]


def find_foreign_facts(cursor: Cursor[Any], schema: str) -> ForeignFacts:
    """Triggers and rules that may leave out or replace a change, and the rest; no table of the engine is read."""
    wanted = {"schema": schema, "tables": _TABLES, "seconds": HELD_SECONDS}
    foreign, disabled, prepared = [
        cursor.execute(query, wanted).fetchall() for query in (_FOREIGN, _DISABLED, _PREPARED)
    ]
    return ForeignFacts(
        tuple(ForeignTrigger(schema, **row) for row in foreign),
        tuple(DisabledTrigger(schema, **row) for row in disabled),
        tuple(PreparedTransaction(**row | {"tables": tuple(row["tables"])}) for row in prepared),
    )
