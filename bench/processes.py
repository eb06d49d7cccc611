"""A function in each of some worker processes, called by messages over a pipe."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

_SPAWN = multiprocessing.get_context("spawn")


class Workers:
    """Processes that each run `make(*args)` once and then call what it returned for every message.

    Args:
        make: A function at the top of a module; returns what answers a message.
    """

    def __init__(self, count: int, make: Callable[..., Callable[[Any], Any]], *args: Any) -> None:
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = _SPAWN.Pipe()
            process = _SPAWN.Process(target=_serve, args=(theirs, make, args), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def call(self, messages: Sequence[Any]) -> list[Any]:
        """A message for each worker, side by side; their answers."""
        for pipe, message in zip(self._pipes, messages, strict=True):
            pipe.send(message)
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()


def _serve(pipe: Connection, make: Callable[..., Callable[[Any], Any]], args: tuple[Any, ...]) -> None:
    call = make(*args)
    pipe.send("ready")
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(call(message))
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            pipe.send(error)
