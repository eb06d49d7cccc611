"""How many tasks of a stage one message names: a pure decision."""

from core.models.definition import MESSAGE_SECONDS, MOST_TASKS_PER_MESSAGE

# Nothing is known of the tasks: few of them may be heavy; many are rarely minutes each.
UNKNOWN_FEW, UNKNOWN_MANY = 1, 10


def tasks_per_message(declared: int | None, mean_seconds: float | None, *, is_many: bool) -> int:
    """The size of a stage's first messages, 1 to 100; that of later ones is measured (sql/functions/windows.sql).

    Args:
        declared: The stage's own number, if it has one; it is used as it is.
        mean_seconds: How long tasks of this stage lasted in the last job of the type; None if there was none.
        is_many: The stage has more than a hundred tasks.
    """
    if declared is not None:
        return declared
    if mean_seconds is None:
        return UNKNOWN_MANY if is_many else UNKNOWN_FEW
    return max(1, min(MOST_TASKS_PER_MESSAGE, int(MESSAGE_SECONDS / max(mean_seconds, 0.001))))
