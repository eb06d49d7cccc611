"""A submission that something of the user's own in the database refuses or leaves out: its caller reads which table."""

import pytest
from psycopg.conninfo import make_conninfo

from core.errors import StoreCancelled, StoreReadOnly
from core.models.submission import SubmitRequest
from infrastructure.base import ChangeRefused
from infrastructure.postgresql import create_pool
from tests.databases import Engine

from .machine_suite import Rig

ACTIONS = {
    "leaves out": ("return null", "trigger or a rule of the table jobs keeps rows out; drop it"),
    "refuses": ("raise exception 'not on a Monday'", "not on a Monday"),
}


def submit(rig, *, many):
    if many:
        return rig.machine.submit_jobs([SubmitRequest("shapes", {"label": name}) for name in "ab"])
    return rig.machine.submit_job(SubmitRequest("shapes", {}))


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("action", "table"), [("leaves out", "jobs"), ("refuses", "jobs"), ("refuses", "job_events")])
def test_trigger_at_insert_is_named(engine, action, table, many):
    """One that left the job out answered that the job was there already."""
    body, told = ACTIONS[action]
    engine.execute(f"create function public.act() returns trigger language plpgsql as $$ begin {body}; end $$")
    engine.execute(f"create trigger theirs before insert on app.{table} for each row execute function public.act()")
    with pytest.raises(ChangeRefused, match=told):
        submit(Rig(engine), many=many)
    assert engine.query("select from app.jobs") == []
    engine.execute(f"drop trigger theirs on app.{table}")
    submit(Rig(engine), many=many)
    assert engine.query("select from app.jobs") != []


@pytest.mark.parametrize("rule", ["on insert to app.jobs do instead nothing", "on update to app.jobs do also select 1"])
def test_rule_is_named(engine, rule):
    """With some rules, a table takes no `on conflict` at all."""
    engine.execute(f"create rule theirs as {rule}")
    with pytest.raises(ChangeRefused, match="rule"):
        submit(Rig(engine), many=False)


@pytest.mark.parametrize(
    ("option", "kind"),
    [("default_transaction_read_only=on", StoreReadOnly), ("statement_timeout=100ms", StoreCancelled)],
)
def test_limit_of_a_role_is_named(engine, database_url, option, kind):
    """It was told as a database that cannot be reached."""
    engine.execute(
        "create function public.act() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(2); return new; end $$"
    )
    engine.execute("create trigger theirs before insert on app.jobs for each row execute function public.act()")
    with create_pool(make_conninfo(database_url, options=f"-c {option}")) as pool, pytest.raises(kind):
        submit(Rig(Engine(pool)), many=False)
