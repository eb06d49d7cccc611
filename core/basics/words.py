"""Numbers as people read them in messages."""


def in_times(count: int) -> str:
    """How often: `once`, `2 times`. `times_in_words` in SQL is the same."""
    return "once" if count == 1 else f"{count} times"
