"""The one PostgreSQL of all contenders, a database for each run, and Redis for the one that wants it."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from coremachine.local.postgres import LocalPostgres, remove_data

ROOT = Path(__file__).resolve().parents[1]
# On the project's own disk: a folder in memory would make fsync free.
DATA = ROOT / ".coremachine" / "bench"
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_connections")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A server with its default settings, made afresh: durable commits, 128 MB of shared buffers."""
    remove_data(DATA / "postgres")
    with LocalPostgres(DATA / "postgres") as url:
        yield url
    remove_data(DATA / "postgres")


def settings_of(url: str) -> dict[str, str]:
    """Version and what decides about durability, as the server tells it."""
    with psycopg.connect(url) as connection:
        found = {
            name: str(connection.execute(SQL("show {}").format(Identifier(name))).fetchone()[0]) for name in DURABILITY
        }  # type: ignore[index]
        return {"version": str(connection.execute("show server_version").fetchone()[0]), **found}  # type: ignore[index]


@contextlib.contextmanager
def database(server_url: str, name: str) -> Iterator[str]:
    """An empty database; a checkpoint first, so that no contender pays for the one before."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("checkpoint")
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))
        connection.execute(SQL("create database {}").format(Identifier(name)))
    try:
        yield server_url.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))


def sqlalchemy_url(url: str, driver: str) -> str:
    """The same database for SQLAlchemy: postgresql+driver://user@/name?host=/folder."""
    parts = conninfo_to_dict(url)
    return f"postgresql+{driver}://{parts['user']}@/{parts['dbname']}?host={parts['host']}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """The port of a Redis that keeps nothing on disk, which is its fastest way.

    Raises:
        FileNotFoundError: It is not installed.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("expected redis-server on PATH, found none; install Debian's redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([program, "--port", str(port), *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for_port(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port}")
        time.sleep(0.02)
