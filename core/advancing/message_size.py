"""How many tasks of a stage one message names: a pure decision."""

# A message's work should last about this long: long enough to pay for itself, short enough to be shared out.
TARGET_SECONDS = 1.5
MOST_TASKS = 100
# Nothing is known of the tasks: few of them may be heavy; many are rarely minutes each.
UNKNOWN_FEW, UNKNOWN_MANY = 1, 10


def tasks_per_message(declared: int | None, mean_seconds: float | None, *, is_many: bool) -> int:
    """The size of a stage's messages, 1 to 100.

    Args:
        declared: The stage's own number, if it has one; it is used as it is.
        mean_seconds: How long tasks of this stage lasted in the last job of the type; None if there was none.
        is_many: The stage has more than a hundred tasks.
    """
    if declared is not None:
        return declared
    if mean_seconds is None:
        return UNKNOWN_MANY if is_many else UNKNOWN_FEW
    return max(1, min(MOST_TASKS, int(TARGET_SECONDS / max(mean_seconds, 0.001))))
