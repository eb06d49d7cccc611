"""The transition table as Mermaid diagrams, for docs/reference/states.md."""

import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from core.models.status import (
    JOB_RERUN_TRANSITIONS,
    JOB_TRANSITIONS,
    STAGE_TRANSITIONS,
    TASK_TRANSITIONS,
    JobStatus,
    StageStatus,
    TaskStatus,
)

_INTRODUCTION = (
    "# States\n\nDrawn from the transition table in `core/models/status.py`, which the database enforces too: a trigger"
    "\non each table refuses any other change of status. Terminal states are closed: only a rerun leads out of a job's,"
    "\nand it raises the job's run. Pausing is no status: a job that is paused keeps its own, and has `paused_at`.\n"
)


def render_states() -> str:
    """The whole document."""
    parts = [_INTRODUCTION]
    tables: list[tuple[str, type[StrEnum], Mapping[Any, Iterable[StrEnum]]]] = [
        ("Job", JobStatus, JOB_TRANSITIONS),
        ("Stage", StageStatus, STAGE_TRANSITIONS),
        ("Task", TaskStatus, TASK_TRANSITIONS),
    ]
    for title, statuses, transitions in tables:
        explanation = "\n".join(line.strip() for line in (statuses.__doc__ or "").strip().splitlines())
        lines = [f"    [*] --> {next(iter(statuses)).value}"]
        for start in statuses:
            ends = sorted(transitions[start])
            lines += [f"    {start} --> {end}" for end in ends] or [f"    {start} --> [*]"]
        if statuses is JobStatus:
            for start, following in JOB_RERUN_TRANSITIONS.items():
                lines += [f"    {start} --> {end}: rerun" for end in sorted(following)]
        parts.append(f"## {title}\n\n{explanation}\n\n```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render_states())
