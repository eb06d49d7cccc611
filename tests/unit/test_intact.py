"""A process that an author's code has broken for all others ends, and a sound one does not."""

import builtins
import hashlib
import json
import sys
import threading
import time
from types import ModuleType

import psycopg
import pytest

from core.authors.intact import BROKEN_STATUS, MOST_ERRORS, Intactness
from core.errors import StoreUnavailable

ERROR = TypeError("'NoneType' object is not callable")


@pytest.fixture
def ended():
    return []


@pytest.fixture
def intact(ended):
    made = Intactness(ended.append)
    made.take_picture()
    return made


CHANGES = [
    (threading, "Lock", "threading.Lock"),
    (threading.Thread, "start", "threading.Thread.start"),
    (json, "dumps", "json.dumps"),
    (time, "monotonic", "time.monotonic"),
    (hashlib, "sha256", "hashlib.sha256"),
    (psycopg.Connection, "execute", "psycopg.Connection.execute"),
]


def replace(monkeypatch, owner, name):
    """By another one that does the same: threads of other tests may need it."""
    usual = getattr(owner, name)

    def another(*args, **options):
        return usual(*args, **options)

    monkeypatch.setattr(owner, name, another)


@pytest.mark.parametrize(("owner", "name", "told"), CHANGES, ids=[change[2] for change in CHANGES])
def test_process_whose_parts_were_replaced_ends_at_its_errors(intact, ended, monkeypatch, caplog, owner, name, told):
    replace(monkeypatch, owner, name)
    for _ in range(MOST_ERRORS - 1):
        intact.note(ERROR)
    assert ended == []
    with pytest.raises(TypeError), intact.looking():
        raise ERROR
    monkeypatch.undo()
    assert ended == [BROKEN_STATUS]
    (record,) = [record for record in caplog.records if record.getMessage() == "process_broken"]
    assert any(change.startswith(f"{told} (<function") for change in record.changed)


@pytest.mark.parametrize(
    ("name", "value"), [("len", lambda _value: 0), ("isinstance", None), ("type", None), ("issubclass", None)]
)
def test_process_without_a_builtin_ends_too(intact, ended, name, value):
    """What looks for changes needed what was changed. By hand: pytest itself needs it."""
    usual = getattr(builtins, name)
    setattr(builtins, name, value)
    try:
        for _ in range(MOST_ERRORS):
            intact.note(ERROR)
    finally:
        setattr(builtins, name, usual)
    assert ended == [BROKEN_STATUS]


def test_missing_module_is_a_change(intact, ended, monkeypatch):
    monkeypatch.delitem(sys.modules, "core.errors")
    assert any("core.errors (is not in sys.modules)" in change for change in intact.find_changes())
    for _ in range(MOST_ERRORS):
        intact.note(ERROR)
    assert ended == [BROKEN_STATUS]


def test_errors_of_a_process_that_nobody_changed_end_nothing(intact, ended):
    for _ in range(10):
        intact.note(ERROR)
    assert (intact.find_changes(), ended) == ([], [])


def test_outages_end_nothing(intact, ended, monkeypatch):
    replace(monkeypatch, json, "dumps")
    for _ in range(10):
        intact.note(StoreUnavailable("away"))
    assert ended == []


def test_changes_without_errors_end_nothing(intact, ended, monkeypatch):
    replace(monkeypatch, time, "sleep")
    with intact.looking():
        pass
    assert ended == []


def test_what_the_engine_replaces_itself_is_no_change(intact, monkeypatch):
    """It listens to loggers and threads from the first attempt on, which is after the picture."""

    usual = threading.Thread.start

    def start(self):
        usual(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert intact.find_changes()
    monkeypatch.setitem(start.__globals__, "__name__", "core.authors.attempt_log")
    assert intact.find_changes() == []


def test_what_is_added_is_no_change(intact, monkeypatch):
    monkeypatch.setitem(sys.modules, "core.of_a_test", ModuleType("core.of_a_test"))
    monkeypatch.setattr(json, "of_a_test", lambda: None, raising=False)
    assert intact.find_changes() == []


def test_process_without_a_picture_is_not_ended(ended, monkeypatch):
    replace(monkeypatch, threading, "Lock")
    for _ in range(10):
        Intactness(ended.append).note(ERROR)
    assert ended == []
