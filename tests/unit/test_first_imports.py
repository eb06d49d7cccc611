import gc
import io
import sys
import threading
from types import SimpleNamespace

import pytest

from core.basics.first_imports import IMPORTS, keep_imported
from jobs.views import load_view
from triggers.app_shape import read_shape
from triggers.functions import create_app


def test_the_collector_does_not_look_at_what_is_imported():
    gc.unfreeze()
    held = [{} for _ in range(10)]

    keep_imported()

    try:
        assert not any(each is held for each in gc.get_objects())
        assert gc.get_freeze_count() > len(held)
    finally:
        gc.unfreeze()


def test_nothing_is_collected_while_modules_are_imported():
    with IMPORTS, IMPORTS:
        assert not gc.isenabled()

    assert gc.isenabled()


def test_an_import_that_fails_leaves_the_collector_at_work():
    with pytest.raises(ImportError), IMPORTS:
        raise ImportError("no such module")

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with IMPORTS:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_only_what_is_new_is_kept(monkeypatch):
    """A worker grew by 12 KB with each job: what was alive when it sent a message was never collected."""
    freezes = []
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append(1))
    for _ in range(3):
        with IMPORTS, IMPORTS:
            import json  # noqa: F401
    assert freezes == []
    monkeypatch.delitem(sys.modules, "this", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    for _ in range(3):
        with IMPORTS, IMPORTS.first("this"):
            import this  # noqa: F401
    assert freezes == [1]


@pytest.fixture
def busy_imports():
    """Another thread imports what takes long."""
    is_in, may_end = threading.Event(), threading.Event()

    def import_much():
        with IMPORTS:
            is_in.set()
            may_end.wait(60)

    thread = threading.Thread(target=import_much)

    def begin():
        thread.start()
        assert is_in.wait(60)

    yield begin
    may_end.set()
    thread.join(60)


def goes_on(function):
    """Whether it ends though another thread imports."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(0.5)
    return not thread.is_alive()


def enter(name):
    with IMPORTS.first(name):
        pass


def test_what_is_there_is_not_waited_for(busy_imports):
    enter("there")
    with pytest.raises(ImportError), IMPORTS.first("broken"):
        raise ImportError("no such module")
    busy_imports()
    assert goes_on(lambda: enter("there"))
    assert not goes_on(lambda: enter("broken"))
    assert not goes_on(lambda: enter("another"))


@pytest.mark.parametrize("name", ["process_jobs", "process_tasks_tasks", "dead_letters_tasks", "janitor_sweep"])
def test_messages_and_sweeps_go_on_while_the_first_request_imports_its_library(name, busy_imports, monkeypatch):
    """All messages of a process waited while FastAPI was imported: a replaced worker's first request took seconds."""
    calls = []
    for module, receive in (("queues", "receive_job_message"), ("queues", "receive_task_message")):
        monkeypatch.setattr(f"triggers.{module}.{receive}", lambda *_, **__: calls.append(1))
    monkeypatch.setattr("triggers.dead_letters.receive_dead_letter", lambda *_: calls.append(1))
    monkeypatch.setattr("triggers.timers.sweep", lambda **_: calls.append(1))
    functions = create_app(read_shape({})).get_functions()
    (function,) = [each.get_user_function() for each in functions if each.get_function_name() == name]
    function(SimpleNamespace(past_due=False))
    busy_imports()
    assert goes_on(lambda: function(SimpleNamespace(past_due=False)))
    assert len(calls) == 2


def test_a_view_that_takes_long_to_import_keeps_nothing_else_waiting(tmp_path, monkeypatch):
    """The first messages of its process waited for it: a module that asks the network while it is imported may hang."""
    began, may_end = threading.Event(), threading.Event()
    monkeypatch.setitem(sys.modules, "events_of_a_test", SimpleNamespace(began=began, may_end=may_end))
    (tmp_path / "slow_view.py").write_text(
        "import events_of_a_test as events\nevents.began.set()\nevents.may_end.wait(60)\ndef show(asked): return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    view = threading.Thread(target=load_view, args=["slow_view:show"])
    view.start()
    assert began.wait(30)
    entered = threading.Event()

    def first_message():
        with IMPORTS:
            entered.set()

    message = threading.Thread(target=first_message, daemon=True)
    message.start()
    try:
        assert entered.wait(5)
    finally:
        may_end.set()
        view.join(30)
        message.join(30)
    assert load_view("slow_view:show")(None) is None
