"""How many tasks of a stage are announced at first, and how many a message names: pure decisions."""

from core.models.definition import (
    FIRST_MESSAGES,
    MESSAGE_SECONDS,
    MOST_TASKS_PER_MESSAGE,
    SLICE_SECONDS,
    WHOLE_SECONDS,
    StageDefinition,
)
from core.running.task_slots import DEFAULT_SLOTS

# Nothing is known of the tasks: few of them may be heavy; many are rarely minutes each.
UNKNOWN_FEW, UNKNOWN_MANY = 1, 10

# What is sent at first should be worked off in about this time by the slots of one process.
TARGET_SECONDS = 0.5
FEWEST_MESSAGES, MOST_MESSAGES = 16, 256
# Very short tasks last as long as the database takes for them.
MOST_TASKS = 2500


def first_window(stage: StageDefinition, tasks_per_message: int, mean_seconds: float | None) -> int:
    """The number of tasks; a stage that has more is announced in windows.

    Args:
        mean_seconds: How long tasks of this stage lasted in the last job of the type; None if there was none.
    """
    messages = FIRST_MESSAGES if mean_seconds is None else _messages(stage, tasks_per_message, mean_seconds)
    return min(messages * tasks_per_message, stage.max_parallel or messages * tasks_per_message)


def fewest_in_first_window(stage: StageDefinition, tasks_per_message: int) -> int:
    """Whatever is known of its tasks, a stage of no more than this fits into its first window."""
    return min(FEWEST_MESSAGES * tasks_per_message, stage.max_parallel or FEWEST_MESSAGES * tasks_per_message)


def _messages(stage: StageDefinition, tasks_per_message: int, mean_seconds: float) -> int:
    seconds = max(mean_seconds, 0.001) * tasks_per_message
    if tasks_per_message == 1 and stage.goes_on and mean_seconds <= SLICE_SECONDS / 2:
        seconds = SLICE_SECONDS
    messages = min(int(TARGET_SECONDS * DEFAULT_SLOTS / seconds), MOST_MESSAGES, MOST_TASKS // tasks_per_message)
    return max(messages, FEWEST_MESSAGES)


def tasks_per_message(mean_seconds: float | None, *, is_many: bool, declared: int | None = None) -> int:
    """The size of the first messages of a stage; that of later ones is measured in the database.

    Args:
        mean_seconds: How long tasks of this stage lasted in the last job of the type; None if there was none.
        is_many: The stage has more than a hundred tasks.
        declared: What its author declares, and the most: first messages of a large stage show how long its tasks last.

    Returns:
        1 to 100.
    """
    if mean_seconds is None:
        return min(declared or MOST_TASKS_PER_MESSAGE, UNKNOWN_MANY) if is_many else declared or UNKNOWN_FEW
    most = declared or MOST_TASKS_PER_MESSAGE
    if mean_seconds * most <= WHOLE_SECONDS:
        return most
    return max(1, min(most, int(MESSAGE_SECONDS / mean_seconds)))
