"""A result by what authors look at."""

from typing import Any

from coremachine.testing.results import JobResult


def described(result: JobResult) -> dict[str, Any]:
    """What authors look at, without times and ids."""
    return {
        "status": result.status,
        "summary": result.summary,
        "error": None if result.error is None else result.error["message"],
        "stages": [
            (stage.number, stage.name, stage.status, [task.name for task in stage.tasks], stage.results)
            for stage in result.stages
        ],
        "failures": [(task.name, task.error["type"], task.error["message"]) for task in result.failures],
    }
