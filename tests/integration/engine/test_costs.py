"""What a job costs in statements, transactions and connections: counted, not timed."""

import logging
import math
import re
import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from core.advancing import stage_planner
from core.models import TaskQueueMessage
from core.running import job_cache, step_leases
from infrastructure.postgresql import create_pool
from infrastructure.verify import verify
from tests.databases import Engine

from .machine_suite import Rig, ShapesJob

ROOT = Path(__file__).resolve().parents[3]
OURS = (f"{ROOT}/core/", f"{ROOT}/infrastructure/")
# What every part of the engine uses is on no path of its own.
OF_ALL = (f"{ROOT}/core/basics/", f"{ROOT}/core/safety/")
TASKS_PER_MESSAGE = ShapesJob.stages[1]["tasks_per_message"]


@pytest.fixture
def statements(monkeypatch):
    """How often each statement was sent, by the function or table that it is about."""
    counts: Counter[str] = Counter()
    execute, copy = psycopg.Cursor.execute, psycopg.Cursor.copy

    def name_of(query):
        text = query if isinstance(query, str) else query.as_string(None)
        return text.split("(")[0].removeprefix("select * from ").removeprefix("select ").replace('"', "").strip()

    def counted_execute(self, query, *arguments, **options):
        counts[name_of(query)] += 1
        return execute(self, query, *arguments, **options)

    def counted_copy(self, statement, *arguments, **options):
        counts["copy"] += 1
        return copy(self, statement, *arguments, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted_execute)
    monkeypatch.setattr(psycopg.Cursor, "copy", counted_copy)
    return counts


@pytest.fixture
def connections(monkeypatch):
    """One entry for each connection that is opened, by the pool or past it."""
    opened = []
    connect = psycopg.Connection.connect.__func__

    def counted_connect(cls, *arguments, **options):
        opened.append(cls)
        return connect(cls, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "connect", classmethod(counted_connect))
    monkeypatch.setattr(psycopg, "connect", psycopg.Connection.connect)
    return opened


def run_job(database_url, statements, tasks):
    """The statements of one job of so many tasks."""
    with create_pool(database_url, max_size=4) as pool:
        rig = Rig(Engine(pool), on_the_spot=True)
        statements.clear()
        job_id = rig.submit(n=tasks)
        rig.queues.run(rig.machine, threads=4)
        counted = Counter(statements)
        assert rig.job(job_id).result["total"] == sum(n * n for n in range(tasks))
        return counted


def test_a_thousand_tasks_cost_a_claim_a_message_and_no_more_than_a_completion_a_task(
    database_url, statements, connections, monkeypatch
):
    """The reference needed 9.4 queries and 14.5 connections a task (lessons D1, D2)."""
    monkeypatch.setattr(job_cache, "FRESH_SECONDS", float("inf"))  # however slow the machine is
    few = run_job(database_url, statements, 101)
    connections.clear()
    many = run_job(database_url, statements, 999)

    messages = -(-999 // TASKS_PER_MESSAGE)
    # The two single tasks, of stages 1 and 3, are born claimed. Messages that meet share their calls.
    assert 1 <= many["app.claim_tasks"] <= messages
    completions = {"app.complete_task_and_check_stage", "app.complete_tasks_and_check_stage"}
    assert 1 + 2 <= sum(many[name] for name in completions) <= 999 + 2
    per_task = {"app.claim_tasks", *completions}
    # A connection's look at its session, and what it sets there, come once for each, of which there are at most four.
    apart = per_task | {
        "pg_catalog.pg_backend_pid",
        "pg_catalog.set_config",
        "app.take_next_tasks",
        "app.mark_taken_tasks_announced",
        "1 from unnest",  # a look for jobs that are being cancelled, every two seconds
    }
    # The pool may open one more that then has nothing to do.
    assert 1 <= many["pg_catalog.pg_backend_pid"] <= len(connections)
    fixed = {name: count for name, count in many.items() if name not in apart}
    # The stage's tasks are taken into its window by many messages' worth, and each take is marked when it is sent.
    assert many["app.mark_taken_tasks_announced"] <= many["app.take_next_tasks"] <= messages / 8
    # Whatever the number of tasks, the rest is the same, statement by statement.
    assert fixed == {name: count for name, count in few.items() if name not in apart}
    assert sum(fixed.values()) == 17, fixed
    assert 1 <= len(connections) <= 4


def test_completion_reads_as_many_rows_whatever_the_size_of_its_stage(engine):
    """Each completion listed the stage's open tasks, so a stage of n cost n squared (lesson D2)."""
    read = "select sum(seq_tup_read + idx_tup_fetch) as n from pg_stat_xact_user_tables where relname = 'tasks'"
    found = []
    for tasks in (200, 5_000):
        job_id = engine.submit()
        engine.plan(job_id, 1, tasks)
        lease = engine.claim(job_id, 1, "s1-00100")
        with engine.pool.connection() as connection, connection.transaction():
            # A table without statistics might be read as a whole for want of knowing better.
            connection.execute("set local enable_seqscan = off")
            before = connection.execute(read).fetchone()["n"]
            connection.execute(
                "select app.complete_task_and_check_stage(%s, 1, 1, %s, array['s1-00100'], array['{}'::jsonb])",
                (job_id, lease),
            )
            found.append(connection.execute(read).fetchone()["n"] - before)
        assert engine.task(job_id, "s1-00100")["status"] == "completed"
    assert 0 < found[1] <= found[0] + 5, found


def test_planning_costs_the_same_statements_whatever_the_number(engine, statements, monkeypatch):
    """A thousand tasks were inserted and sent one by one (lesson D3)."""
    monkeypatch.setattr(step_leases, "QUICK_SECONDS", float("inf"))  # however slow the machine is
    fixed = []
    for tasks in (1_000, 10_000):
        rig = Rig(engine)
        rig.submit(n=tasks)
        assert rig.queues.deliver(rig.machine)  # plans and announces stage 1
        statements.clear()
        assert rig.queues.deliver(rig.machine)  # its task, and with it the planning of stage 2
        counted = Counter(statements)
        assert counted["copy"] == counted["app.take_next_tasks"] == counted["app.mark_taken_tasks_announced"] == 1
        fixed.append(counted)
    assert fixed[0] == fixed[1]
    assert sum(fixed[0].values()) <= 10, fixed


def blocks(connection, call, *values):
    """Blocks that a call of a function reads, whichever plans its statements have."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        query = f"explain (analyze, buffers, timing off, format json) select * from {call}"  # noqa: S608 - of this test
        [[found]] = cursor.execute(query, values)
    return found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]


def hot_path_blocks(engine, tasks):
    """Of ten claims and ten completions of ten tasks each."""
    job_id = engine.submit()
    engine.plan(job_id, 1, tasks)
    counts = Counter()
    with engine.pool.connection() as connection:
        for place in range(0, min(tasks, 100), 10):
            ids, lease = [f"s1-{place + at:05d}" for at in range(10)], uuid4()
            counts["claim"] += blocks(connection, "app.claim_tasks(%s, 1, 1, %s, %s, 'w')", job_id, ids, lease)
            results = [Jsonb({})] * len(ids)
            counts["complete"] += blocks(
                connection, "app.complete_task_and_check_stage(%s, 1, 1, %s, %s, %s)", job_id, lease, ids, results
            )
    return counts


@pytest.mark.parametrize("has_statistics", [False, True])
def test_claims_and_completions_read_no_more_of_a_large_stage_than_of_a_small_one(engine, has_statistics):
    """Plans are checked by what they read: an index names the rows, with statistics or without (lesson D2)."""
    small = hot_path_blocks(engine, 110)
    if has_statistics:
        engine.execute("analyze app.tasks")
    large = hot_path_blocks(engine, 20_000)
    assert large["claim"] < 2 * small["claim"]
    assert large["complete"] < 2 * small["complete"]


def test_message_of_a_cancelled_job_reads_no_more_of_a_large_stage_than_of_a_small_one(engine):
    """Each message that was left read the whole stage under its lock, and the next job waited behind them."""
    found = []
    for tasks in (110, 20_000):
        job_id = engine.submit()
        engine.plan(job_id, 1, tasks)
        engine.jobs.cancel_job(job_id, None)
        ids = [f"s1-{place:05d}" for place in range(10)]
        with engine.pool.connection() as connection:
            found.append(blocks(connection, "app.claim_tasks(%s, 1, 1, %s, %s, 'w')", job_id, ids, uuid4()))
    assert found[1] < 2 * found[0]


def test_messages_of_small_cancelled_jobs_are_dropped_without_claims(engine, statements):
    """Each of them had a claim; a cancelled job has no task that one could find or end."""
    rig = Rig(engine)
    job_ids = [rig.submit(n=2) for _ in range(10)]
    for _ in range(2 * len(job_ids)):  # plans stage 1, and runs its task, which plans stage 2
        rig.queues.deliver(rig.machine)
    assert {rig.machine.cancel_job(job_id, None) for job_id in job_ids} == {"cancelled"}
    statements.clear()
    calls = rig.behave.calls.total()
    other = Rig(engine, rig.queues, behave=rig.behave)  # a process that has seen none of them
    other.queues.run(other.machine, threads=4)
    assert rig.behave.calls.total() == calls
    assert statements["app.claim_tasks"] == 0
    assert verify(engine.pool) == []


def entered_by(rig, message):
    """Functions of ours that a message enters, as (file, name), with their number of lines."""
    lines = {}

    def note(frame, event, _):
        code = frame.f_code
        path, name = code.co_filename, code.co_qualname
        if event == "call" and path.startswith(OURS) and not path.startswith(OF_ALL) and not name.endswith(">"):
            last = max(line for *_, line in code.co_lines() if line is not None)
            lines[path.removeprefix(f"{ROOT}/"), name] = last - code.co_firstlineno + 1

    sys.setprofile(note)
    try:
        rig.machine.process_task_message(message)
    finally:
        sys.setprofile(None)
    return lines


def described(entered):
    """One line per function, for those who want to read the way of a message: `pytest -s`."""
    files = {path for path, _ in entered}
    total = f"{len(entered)} functions in {len(files)} files, {sum(entered.values())} lines"
    return "\n".join([total, *(f"{path} {name}: {size}" for (path, name), size in sorted(entered.items()))])


def documented():
    """What the page on the architecture has.

    Functions and files of both messages, files and functions of each row of its table, and the functions of its story.
    """
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    (most,) = re.findall(r"enters (\d+) functions in (\d+) files .*?announces it, (\d+) in (\d+)\.", text, re.DOTALL)
    table = re.findall(r"\n\| [^|`]+ \| ([^|]+) \| (\d+) \|", text)
    (story,) = re.findall(r"are the story\. In their order: (.*?)\.", text, re.DOTALL)
    rows = [(re.findall("`(.*?)`", files), int(count)) for files, count in table]
    return [int(number) for number in most], rows, re.findall("`(.*?)`", story)


def test_message_of_one_task_enters_few_functions_before_it_is_committed(engine, caplog, monkeypatch):
    """Each of them is one more to read and to pay for: the path had grown to 93 functions in 32 files."""
    most, table, story = documented()
    # A machine that stands still for seconds makes nothing old here.
    monkeypatch.setattr(job_cache, "FRESH_SECONDS", math.inf)
    monkeypatch.setattr(stage_planner, "UNKNOWN_LIFE_SECONDS", math.inf)
    caplog.set_level(logging.WARNING)
    rig = Rig(engine)
    job_id = rig.submit(n=3)
    rig.queues.deliver(rig.machine)
    rig.queues.deliver(rig.machine)
    first, second, last = (
        TaskQueueMessage(job_id=job_id, job_type="shapes", stage=2, task_ids=(task["task_id"],))
        for task in rig.tasks(job_id, 2)
    )
    # What is made once for a process is made.
    rig.machine.process_task_message(first)
    for message, most_functions, most_files in ((second, *most[:2]), (last, *most[2:])):
        entered = entered_by(rig, message)
        assert rig.engine.task(job_id, *message.task_ids)["status"] == "completed"
        print(described(entered))  # noqa: T201 - for `pytest -s`
        assert 30 <= len(entered) <= most_functions, described(entered)
        assert len({path for path, _ in entered}) <= most_files, described(entered)
        if message is second:
            values = sum(path.startswith("core/models/") for path, _ in entered)
            rows = [(sum(path in files for path, _ in entered) or values, count) for files, count in table]
            assert rows == [(count, count) for _, count in table], described(entered)
            assert sum(count for _, count in table) == len(entered) == most_functions
            names = dict.fromkeys(name.rpartition(".")[2] for _, name in entered)
            assert [name for name in names if name in story] == story
