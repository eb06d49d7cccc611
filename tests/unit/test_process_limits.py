"""Limits of the process that a handler lowered, and left so."""

import threading

import pytest

from core.basics import process_limits
from core.basics.process_limits import expect_begin, restore_limits, start_thread
from infrastructure.postgresql import create_pool

resource = pytest.importorskip("resource")


@pytest.fixture
def lower():
    """Lower the number of files by one: nobody notices, but it is not as it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_limit_that_was_lowered_is_as_at_the_start_again(lower, caplog):
    before = files()
    assert not restore_limits()
    lower()
    assert restore_limits()
    assert files() == before
    (record,) = caplog.records
    assert (record.message, record.found) == ("limits_restored", f"RLIMIT_NOFILE {before - 1}")


def test_limit_that_was_raised_stays(monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(process_limits, "_AT_START", {**process_limits._AT_START, "RLIMIT_NOFILE": (soft - 1, hard)})
    assert not restore_limits()
    assert files() == soft


@pytest.mark.parametrize(("one", "other", "smaller"), [(-1, 5, 5), (5, -1, 5), (-1, -1, -1), (4, 5, 4)])
def test_no_limit_is_the_largest(one, other, smaller):
    assert process_limits._smaller(one, other) == smaller


class Refused(threading.Thread):
    def __init__(self):
        super().__init__()
        self.asked = 0

    def start(self):
        self.asked += 1
        if files() != process_limits._AT_START["RLIMIT_NOFILE"][0]:
            raise RuntimeError("can't start new thread")


def test_thread_starts_once_the_limit_is_back(lower):
    """No heartbeat could be started until the process ended, and all leases of it were lost."""
    lower()
    thread = Refused()
    start_thread(thread)
    assert thread.asked == 2


def test_thread_that_the_system_refuses_is_refused():
    thread = Refused()
    thread.start = lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread"))
    with pytest.raises(RuntimeError, match="can't start"):
        start_thread(thread)


@pytest.fixture
def unborn(monkeypatch):
    """Threads that the system makes, and that never begin."""
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    monkeypatch.setattr(threading, name, lambda *_arguments, **_more: 0)
    monkeypatch.setattr(process_limits, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(process_limits, "BEGIN_LOOKS", 3)
    yield
    threading._limbo.clear()


@pytest.mark.usefixtures("unborn")
@pytest.mark.parametrize("start", [start_thread, lambda thread: (expect_begin(thread), thread.start())])
def test_thread_that_never_begins_is_refused(start):
    """The message's thread waited for it without end; its tasks were leased as long as the process lived."""
    with pytest.raises(RuntimeError, match="did not begin"):
        start(threading.Thread(target=print))


def test_connection_is_made_once_the_limit_is_back(lower, monkeypatch):
    """A worker made no connection any more, until it was restarted."""
    before, seen = files(), []

    def connect(*_arguments):
        seen.append(files())
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("infrastructure.postgresql.connect_with", connect)
    with create_pool("host=127.0.0.1", max_size=1) as pool:
        pool.close()
        seen.clear()
        lower()
        with pytest.raises(OSError, match="Too many open files"):
            pool.connection_class.connect("host=127.0.0.1")
    assert seen == [before - 1, before]
