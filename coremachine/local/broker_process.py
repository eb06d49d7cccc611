"""The broker as a process of its own, which ends when its starter ends or dies."""

import os
import selectors
import subprocess
import sys
from pathlib import Path

from coremachine.local.own_path import path_setting
from coremachine.local.stack_file import StackError

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


class BrokerProcess:
    """`python -m coremachine.local.broker`.

    Args:
        amqp_port: 0 takes a free one; a restart takes the same again.
        admin_port: As above.
        log_file: Receives the broker's stderr.
        config: Another `Config.json` than the project's.
    """

    def __init__(self, *, amqp_port: int, admin_port: int, log_file: Path, config: Path | None = None) -> None:
        self.amqp_port, self.admin_port = amqp_port, admin_port
        self.connection_string = self.admin_url = ""
        self._log_file = log_file
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """Start it and return its connection string.

        Raises:
            StackError: It ends, or does not report its ports in time; with the last lines of its log.
        """
        self.stop()
        command = [sys.executable, "-m", "coremachine.local.broker", "--exit-with-parent"]
        command += ["--amqp-port", str(self.amqp_port), "--admin-port", str(self.admin_port)]
        if self._config is not None:
            command += ["--config", str(self._config)]
        with self._log_file.open("ab") as log_output:
            self._process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_output,
                env={**os.environ, **path_setting(os.environ)},
                # Ctrl-C is for the stack alone, which ends its parts in order.
                start_new_session=True,
            )
        lines = self._read_lines(self._process, 2)
        if len(lines) < 2:  # noqa: PLR2004
            self.stop()
            last = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            raise StackError(f"the broker did not start; {self._log_file} ends with:\n" + "\n".join(last))
        self.connection_string, self.admin_url = lines
        self.amqp_port = int(self.connection_string.split("localhost:", 1)[1].split(";", 1)[0])
        self.admin_port = int(self.admin_url.rsplit(":", 1)[1])
        return self.connection_string

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None  # noqa: S101 - both were made as pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def wait(self) -> int | None:
        """Wait until it has ended for any reason; its exit status, None if it does not run."""
        process = self._process
        return None if process is None else process.wait()

    @staticmethod
    def _read_lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
        """The first lines of its output; fewer when it ends or the time is up."""
        assert process.stdout is not None  # noqa: S101 - it was made as a pipe
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while data.count(b"\n") < count and selector.select(_START_SECONDS):
                chunk = os.read(process.stdout.fileno(), 4096)
                if not chunk:
                    break
                data += chunk
        return data.decode().splitlines()
