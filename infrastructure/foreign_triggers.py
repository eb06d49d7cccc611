"""Finds the triggers and rules on the engine's tables that are not its own."""

from typing import Any

from psycopg import Cursor

from core.models.foreign import ForeignTrigger
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
_TABLES = [table.name for table in TABLES]


def find_foreign_triggers(cursor: Cursor[Any], schema: str) -> tuple[ForeignTrigger, ...]:
    """Those that are enabled and may leave out or replace a change; from the catalog alone."""
    rows = cursor.execute(_FOREIGN, {"schema": schema, "tables": _TABLES}).fetchall()
    return tuple(ForeignTrigger(schema, **row) for row in rows)
