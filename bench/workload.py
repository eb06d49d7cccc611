"""What every contender runs: one task, then n tasks with a result of 100 bytes each, then one that reads them all.

And a chain of three stages with one task each. Nothing in here knows a contender.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol

# 100 bytes of JSON.
RESULT: dict[str, str] = {"text": "x" * 88}
assert len(json.dumps(RESULT)) == 100  # noqa: S101 - the workload's definition

CHAIN_STAGES = 3

# How often a client looks whether a job has ended, where its library polls. Equal for all: it is a part of their times.
POLL_SECONDS = 0.005
# Run by every contender before anything is measured, so that nobody is measured cold and nobody warmer than others.
WARM_CHAINS, WARM_FAN = 16, 200


class WrongOutcome(AssertionError):
    """A contender did not do the work, so its time means nothing."""


class Peer(Protocol):
    """One contender, in a process of its own. Times are seconds from the submission to the end being known."""

    def versions(self) -> dict[str, str]:
        """What was measured: distribution name to version."""
        ...

    def prepare(self, database_url: str) -> None:
        """Make tables and start workers."""
        ...

    def run_fan(self, n: int) -> float: ...
    def run_chain(self) -> float: ...
    def run_many(self, count: int) -> float:
        """So many chains at once: seconds until the last has ended."""
        ...

    def close(self) -> None: ...


PeerFactory = Callable[[], Peer]


def check_fan(outcome: Any, n: int) -> None:
    """The fan-in's answer: how many results it read, and their bytes.

    Raises:
        WrongOutcome: It is another.
    """
    expected = {"count": n, "bytes": n * len(RESULT["text"])}
    if outcome != expected:
        raise WrongOutcome(f"expected the fan-in to answer {expected}, found {outcome!r}")


def summarize(results: Iterable[dict[str, str]]) -> dict[str, int]:
    """What each fan-in does with the results."""
    count = size = 0
    for result in results:
        count += 1
        size += len(result["text"])
    return {"count": count, "bytes": size}
