"""A cloud's latency on this machine: proxies that hold back what passes them, and slow commits.

The database answers after 2 ms and a commit takes 3 ms more, as with a PostgreSQL in the same region whose log is on a
network disk; the broker (Service Bus, Redis), or the server that a contender has instead, answers after 5 ms. What such
a server writes to its own disk is not slower.
"""

import asyncio
import contextlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg

from bench.servers import free_port

DATABASE_SECONDS, COMMIT_SECONDS, BROKER_SECONDS = 0.002, 0.003, 0.005
# What a Unix socket of PostgreSQL is called in its folder.
SOCKET = ".s.PGSQL.5432"
_CHUNK = 1 << 16
_SPAWN = multiprocessing.get_context("spawn")

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


@contextlib.contextmanager
def cloud_database(url: str) -> Iterator[str]:
    """The server of this URL, behind a proxy and with slow commits; its URL through the proxy."""
    folder = url.partition("host=")[2].partition("&")[0]
    with psycopg.connect(url, autocommit=True) as connection:
        # With no siblings asked for, each flush of the log waits for this time first.
        connection.execute(f"alter system set commit_delay = {round(COMMIT_SECONDS * 1e6)}")
        connection.execute("alter system set commit_siblings = 0")
        connection.execute("select pg_reload_conf()")
    with tempfile.TemporaryDirectory(prefix="cloud") as place:
        Path(place).chmod(0o755)
        with _proxy(Path(place) / SOCKET, Path(folder) / SOCKET, DATABASE_SECONDS):
            yield url.replace(f"host={folder}", f"host={place}")


@contextlib.contextmanager
def cloud_broker(port: int) -> Iterator[int]:
    """A port of loopback behind which that port's server is, as far away as a broker in a cloud."""
    with _proxy(None, port, BROKER_SECONDS) as answer:
        yield answer


@contextlib.contextmanager
def far_service(port: int) -> Iterator[int]:
    """The port that leads to a service of the contender itself: as far away as a broker, if the run says so."""
    if "BENCH_CLOUD" not in os.environ:
        yield port
        return
    with cloud_broker(port) as near:
        yield near


@contextlib.contextmanager
def far_stack(*, is_cloud: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """For a local stack: the AMQP port that its broker takes (0: any), and settings that lead to it through a proxy."""
    if not is_cloud:
        yield 0, {}
        return
    port = free_port()
    with cloud_broker(port) as near:
        key = "SharedAccessKeyName=local;SharedAccessKey=local;UseDevelopmentEmulator=true;"
        yield port, {"ServiceBusConnection": f"Endpoint=sb://localhost:{near};{key}"}


@contextlib.contextmanager
def _proxy(listen: Path | None, target: Path | int, seconds: float) -> Iterator[int]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_serve, args=(theirs, listen, target, seconds), daemon=True)
    process.start()
    theirs.close()
    try:
        yield int(ours.recv())
    finally:
        process.terminate()
        process.join()
        ours.close()


def _serve(pipe: Connection, listen: Path | None, target: Path | int, seconds: float) -> None:
    # Any user of this machine may open the socket, as PostgreSQL's own.
    os.umask(0)
    asyncio.run(_listen(pipe, listen, target, seconds))


async def _listen(pipe: Connection, listen: Path | None, target: Path | int, seconds: float) -> None:
    join = partial(_join, target, seconds / 2)
    if listen is None:
        server = await asyncio.start_server(join, "127.0.0.1", 0)
        port = int(server.sockets[0].getsockname()[1])
    else:
        server, port = await asyncio.start_unix_server(join, listen), 0
    pipe.send(port)
    async with server:
        await server.serve_forever()


async def _join(target: Path | int, seconds: float, reader: Reader, writer: Writer) -> None:
    """One connection: both ways, each late by half of the latency."""
    opened = asyncio.open_unix_connection(target) if isinstance(target, Path) else _open_port(target)
    try:
        far_reader, far_writer = await opened
    except OSError:
        writer.close()
        return
    await asyncio.gather(_carry(reader, far_writer, seconds), _carry(far_reader, writer, seconds))


async def _open_port(port: int) -> tuple[Reader, Writer]:
    return await asyncio.open_connection("127.0.0.1", port)


async def _carry(reader: Reader, writer: Writer, seconds: float) -> None:
    """What comes is written later, in order; not read before more of it may be written."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            loop.call_at(loop.time() + seconds, _write, writer, data)
            await writer.drain()
    loop.call_at(loop.time() + seconds, writer.close)


def _write(writer: Writer, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
