"""What names and texts of jobs and handlers may be, seen before anything runs: they stand in URLs, rows and logs."""

import re
from collections.abc import Callable

from core.basics.canonical import shown
from core.models.fields import check_storable
from core.safety.safe_text import type_name

MOST_CHARACTERS = 100
_SHOWN = 120
_JOB_TYPE = re.compile(rf"[A-Za-z0-9_.-]{{1,{MOST_CHARACTERS}}}")


def job_type_problems(what: str, name: object) -> list[str]:
    """What is wrong with a job type, which is a part of URLs."""
    marks = "digits, '_', '-' and '.', at least one of them no '.'"
    expected = f"a name of 1 to {MOST_CHARACTERS} letters (a to z, A to Z), {marks}"
    return _problems(what, expected, name, lambda text: bool(_JOB_TYPE.fullmatch(text) and text.strip(".")))


def name_problems(what: str, name: object) -> list[str]:
    """What is wrong with the name of a stage, a task type or a queue."""
    expected = f"a name of 1 to {MOST_CHARACTERS} characters on one line, none of which is a control character"
    return _problems(
        what, expected, name, lambda text: len(text) <= MOST_CHARACTERS and text.isprintable() and not text.isspace()
    )


def text_problems(what: str, text: object) -> list[str]:
    """What is wrong with a text for people; it may be empty."""
    return _problems(what, "str without NUL and lone surrogates", text, _is_storable, may_be_empty=True)


def _problems(
    what: str, expected: str, value: object, is_good: Callable[[str], bool], *, may_be_empty: bool = False
) -> list[str]:
    if type(value) is str and (is_good(value) if value else may_be_empty):
        return []
    if isinstance(value, str) and type(value) is not str:
        hint = f"a {type_name(value)}, which is a kind of str of its own; write the text itself"
        return [f"{what}: expected {expected}, found {hint}"]
    more = f" ({len(value)} characters)" if type(value) is str and len(value) > _SHOWN else ""
    return [f"{what}: expected {expected}, found {shown(value, _SHOWN)}{more}"]


def _is_storable(text: str) -> bool:
    try:
        return check_storable(text) == text
    except ValueError:
        return False
