"""A real PgBouncer in front of a test's server, where it is installed."""

import getpass
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")
REASON = "PgBouncer is not installed (Debian: apt-get install pgbouncer)"


@contextmanager
def pgbouncer(server_url: str, folder: Path, mode: str = "transaction") -> Iterator[str]:
    """Yields how to reach it, as `host=... port=...`. Every database of the server is behind it."""
    assert PROGRAM is not None
    given = conninfo_to_dict(server_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text('"postgres" ""\n')
    config.write_text(
        f"[databases]\n* = host={given['host']} port={given.get('port', 5432)} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {users}\npool_mode = {mode}\nmax_client_conn = 500\ndefault_pool_size = 3\n"
        # So that two transactions of one client hardly ever meet the same server connection.
        "server_round_robin = 1\nserver_idle_timeout = 5\n"
    )
    command = [PROGRAM, str(config)]
    if os.geteuid() == 0:
        # It refuses to run as root: so as the server does, whose socket it must reach.
        sockets = Path(str(given["host"]))
        for path in (folder, users, config, sockets.parent):
            path.chmod(0o755)
        command = [PROGRAM, "-u", pwd.getpwuid(sockets.stat().st_uid).pw_name, str(config)]
    with (folder / "pgbouncer.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            address = f"host=127.0.0.1 port={port}"
            _wait_ready(make_conninfo(server_url, **conninfo_to_dict(address)), process, folder / "pgbouncer.log")
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if "refused" not in str(error):
                raise
        else:
            return
    raise AssertionError(f"PgBouncer ended at once as {getpass.getuser()}: {log.read_text()}")
