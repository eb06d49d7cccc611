"""Starts worker processes, and keeps spare ones that have imported what workers import late."""

from __future__ import annotations

import importlib
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from coremachine.local.host.protocol import Channel
from coremachine.local.host.worker_slot import end_process
from coremachine.local.own_path import path_setting

log = logging.getLogger(__name__)

# The process's own: sys.stderr may be replaced by something without a file descriptor.
_STDERR = 2
_SPARE_END_SECONDS = 2.0

Started = tuple[subprocess.Popen[bytes], Channel]


class WorkerStarter:
    """Makes processes that wait for their options. Not safe for threads: its caller holds a lock.

    A spare one waits too, and loads the app only when it becomes a worker: a worker of CoreMachine imports 1.9 s of
    modules that no edit of the app changes.

    Args:
        listener: The socket that all workers share.
        work_dir: The processes' own folder.
        output: Receives what they write; None for this process's stderr.
    """

    def __init__(
        self, listener: socket.socket, environment: Mapping[str, str], work_dir: Path, output: IO[bytes] | None
    ) -> None:
        self._listener = listener
        self._environment = environment
        self._work_dir = work_dir
        self._output = output
        self._spares: list[Started] = []
        self._makes_spares = True

    def start(self) -> Started:
        """A spare process that lives, else a new one."""
        while self._spares:
            process, channel = self._spares.pop(0)
            status = process.poll()
            if status is None:
                return process, channel
            channel.close()
            self._makes_spares = False
            log.info("spare_worker_ended exit_status=%d; no more are made, so that reloads take longer", status)
        return self._launch()

    def fill_spares(self, number: int, modules: Sequence[str]) -> None:
        """Start the spare processes that are missing.

        Args:
            modules: They import these, as far as there is time.
        """
        while self._makes_spares and len(self._spares) < number:
            self._spares.append(self._launch(*modules))

    def close(self) -> None:
        """End the spare processes."""
        for _, channel in self._spares:
            channel.close()
        for process, _ in self._spares:
            process.terminate()
            end_process(process, _SPARE_END_SECONDS)
        self._spares.clear()

    def _launch(self, *modules: str) -> Started:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
                [sys.executable, "-m", "coremachine.local.host.worker_process", str(theirs.fileno()), *modules],
                cwd=self._work_dir,
                env={**self._environment, **path_setting(self._environment)},
                pass_fds=(theirs.fileno(), self._listener.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=self._output or _STDERR,
                stderr=self._output or _STDERR,
                # A handler that signals its process group, such as by killpg for a program that it started there, means
                # no other worker, and not the host.
                start_new_session=True,
            )
        return process, Channel(ours)


def import_ahead(modules: Sequence[str], is_wanted: Callable[[], bool], own_folder: Path) -> list[str]:
    """Import modules one after another until the process is wanted; which modules of `own_folder` came with them.

    Those may be edited, and a process that has them already would run what they were before.
    """
    for module in modules:
        if is_wanted():
            break
        importlib.import_module(module)
    files = {name: getattr(found, "__file__", None) for name, found in sys.modules.items()}
    return sorted(name for name, file in files.items() if is_own_file(file, own_folder))


def is_own_file(filename: str | None, folder: Path) -> bool:
    """Whether it is a file of the folder, and not of a package that is installed there."""
    if filename is None:
        return False
    path = Path(filename)
    return path.is_relative_to(folder) and "site-packages" not in path.parts
