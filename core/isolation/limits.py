"""What a handler declares about its processes."""

from dataclasses import dataclass

# What libraries leak in many tasks is not for ever.
TASKS_PER_PROCESS = 200


@dataclass(frozen=True)
class Limits:
    """The bounds of a handler's processes.

    Args:
        memory_limit_mb: An attempt that takes more is ended.
        tasks_per_process: A process that has run this number of attempts is not used again.
    """

    memory_limit_mb: int | None = None
    tasks_per_process: int = TASKS_PER_PROCESS
