"""A contender in a process of its own, asked over its stdin and stdout: a JSON line each way."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from bench.peers import CONTENDERS, INSTRUMENTS
from bench.servers import DATA, ROOT
from bench.workload import WARM_CHAINS, WARM_FAN, Peer


class ContenderFailed(RuntimeError):
    """A contender could not do what it was asked for."""


class ContenderProcess:
    """Calls the methods of a peer in another process.

    Args:
        root: The checkout whose code it runs, with that checkout's own environment.
    """

    def __init__(self, name: str, database_url: str, environment: dict[str, str], root: Path = ROOT) -> None:
        self.name = name
        DATA.mkdir(parents=True, exist_ok=True)
        self.log_file = DATA / f"{name}.log"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [python_of(root), "-m", "bench.contender", name, database_url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=root,
                env={**os.environ, **environment},
            )
        self.versions: dict[str, str] = self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> Any:
        """The method's return value.

        Raises:
            ContenderFailed: It raised; says what.
        """
        assert self._process.stdin is not None  # noqa: S101 - made with a pipe
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - made with a pipe
        line = self._process.stdout.readline()
        if not line:
            raise ContenderFailed(f"{self.name} ended; {self.log_file} ends with: {self._last_words()}")
        kind, value = json.loads(line)
        if kind == "error":
            raise ContenderFailed(f"{self.name}: {value}; see {self.log_file}")
        return value

    def _last_words(self) -> str:
        return " | ".join(self.log_file.read_text(errors="replace").splitlines()[-3:])


def python_of(root: Path) -> str:
    """The interpreter of a checkout: this one for our own, that of its environment for another."""
    candidates = [root / folder / "bin" / "python" for folder in (".bench-venv", ".venv")]
    return sys.executable if root == ROOT else next(str(path) for path in candidates if path.exists())


@contextlib.contextmanager
def running(name: str, database_url: str, environment: dict[str, str], root: Path = ROOT) -> Iterator[ContenderProcess]:
    """The contender, prepared and warm."""
    process = ContenderProcess(name, database_url, environment, root)
    try:
        yield process
    finally:
        process.close()


def make_peer(name: str) -> Peer:
    module, _, factory = (CONTENDERS | INSTRUMENTS)[name].source.partition(":")
    return cast("Peer", getattr(importlib.import_module(f"bench.peers.{module}"), factory)())


def serve(name: str, database_url: str) -> None:
    """The process's side. What peers print goes to stderr, so that stdout carries answers alone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(kind: str, value: Any) -> None:
        answers.write(json.dumps([kind, value]) + "\n")
        answers.flush()

    peer = make_peer(name)
    try:
        peer.prepare(database_url)
        peer.run_many(WARM_CHAINS)
        peer.run_fan(WARM_FAN)
        answer("value", peer.versions())
        for line in sys.stdin:
            method, arguments = json.loads(line)
            try:
                answer("value", getattr(peer, method)(*arguments))
            except Exception as error:  # noqa: BLE001 - told to the runner
                import traceback  # noqa: PLC0415 - only now

                traceback.print_exc()
                answer("error", f"{type(error).__name__}: {error}")
    finally:
        peer.close()


if __name__ == "__main__":
    serve(*sys.argv[1:])
