"""Texts about values of which nothing is known: made without trusting them, and such that PostgreSQL can store them.

An author's exception may raise in `__str__`, return no text, or be 20 MB long; what is said of it must still be said.
"""

import reprlib
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from core.safety.credentials import redact, redacted_part, redacted_start

# The largest part of one text that is stored.
MOST_TEXT_BYTES = 64 * 1024
# The part of one text that is shown where it is one of several things.
MOST_SHOWN = 500
# A line of a traceback holds the exception's message, which is stored in full beside it.
_LONGEST_LINE = 4000
# Of those that led to an error, or are in a group. Python's own text of them visits each once for each way to it.
MOST_ERRORS = 50


class _Short(reprlib.Repr):
    """Keeps the beginning and the end of a text; of a credential neither."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(redacted_start(x, _LONGEST_LINE), level)


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxother = 3, 300
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20
_NAME_OF = vars(type)["__name__"].__get__
_QUALIFIED_NAME_OF = vars(type)["__qualname__"].__get__
_ANCESTORS_OF = vars(type)["__mro__"].__get__
_MODULE_OF = vars(type)["__module__"].__get__


def storable_text(text: str) -> str:
    """The text without what PostgreSQL's jsonb refuses: NUL and lone surrogates."""
    # `str.` and not the text's own: it may be a subclass.
    return str.replace(text, "\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def bounded_text(text: str, most_bytes: int = MOST_TEXT_BYTES, *, keep_end: bool = False) -> str:
    """The text as it can be stored, without credentials, in at most this number of bytes, with a note of what was cut.

    Args:
        keep_end: What is cut is the beginning.
    """
    start, end = (max(0, len(text) - most_bytes), len(text)) if keep_end else (0, min(len(text), most_bytes))
    encoded = storable_text(redacted_part(text, start, end)).encode()
    if end - start == len(text) and len(encoded) <= most_bytes:
        return encoded.decode()
    note = f"[cut here: {len(text):,} characters in all]"
    room = most_bytes - len(note) - 1
    if keep_end:
        return f"{note}\n{encoded[-room:].decode('utf-8', 'ignore')}"
    return f"{encoded[:room].decode('utf-8', 'ignore')} {note}"


def brief_text(text: str, most_characters: int = MOST_SHOWN, *, see: str | None = None) -> str:
    """The first line of the text as far as there is room; what is left out is said, and where to `see` all of it."""
    whole = text.strip()
    line = whole.splitlines()[0] if whole else ""
    if line == whole and len(line) <= most_characters:
        return line
    size = len(whole.encode("utf-8", "replace"))
    told = f"{round(size / 1024)} KB" if size >= 10 * 1024 else f"{size:,} bytes"
    return f"{line[:most_characters].rstrip()}... ({told} in all{f'; see {see}' if see else ''})"


def type_name(value: object) -> str:
    """The name of the value's type, whatever the type claims."""
    return str(_NAME_OF(type(value)))


def ancestry_of(kind: type) -> tuple[tuple[str, str], ...]:
    """Each class of its ancestors, itself first: the name, and the name with its module; whatever they claim."""
    return tuple(
        (str(_NAME_OF(ancestor)), f"{text_of(_MODULE_OF(ancestor))}.{_QUALIFIED_NAME_OF(ancestor)}")
        for ancestor in _ANCESTORS_OF(kind)
    )


def text_of(value: object) -> str:
    """`str(value)`, or what kept it from being read."""
    try:
        return str.__str__(str(value))
    except BaseException as error:  # noqa: BLE001 - `__str__` is an author's code
        return f"<{type_name(value)} whose text cannot be read: {type_name(error)}>"


def repr_of(value: object, most_characters: int = 80) -> str:
    """`repr(value)` without credentials as far as there is room, or what kept it from being read."""
    try:
        # A list of a million is not written in full to show its beginning.
        if isinstance(value, str):
            text = ascii(redacted_start(value, most_characters))
        else:
            text = redact(str.__str__(_SHORT.repr(value)))
    except BaseException as error:  # noqa: BLE001 - `__repr__` is an author's code
        return f"<{type_name(value)} that cannot be shown: {type_name(error)}>"
    return text if len(text) <= most_characters else text[: most_characters - 3] + "..."


def trace_of(error: BaseException) -> str | None:
    """The error's traceback with its causes; None if it was never raised, or cannot be read."""
    try:
        if error.__traceback__ is None:
            return None
        if has_long_text(error):
            # Python would look at every line of a text of which most is cut: seconds, for the whole process.
            shown, is_all = _visit(error, _shown_after)
            traces = map(_short_trace, reversed(list({id(each): each for each in shown}.values())))
            return "\n".join(
                traces if is_all else [f"[and more: the nearest {len(shown)} exceptions are here]", *traces]
            )
        return "".join(map(_shortened, traceback.format_exception(error)))
    except BaseException:  # noqa: BLE001 - an exception's attributes are an author's code
        return _frames_of(error)


def has_long_text(error: BaseException, most_characters: int = _LONGEST_LINE) -> bool:
    """Whether its text, or that of one that led to it, is longer than that; by default, than a trace shows.

    So is that of too many exceptions.
    """
    try:
        found, is_all = _visit(error, _all_after)
        return not is_all or any(len(text_of(each)) > most_characters for each in found)
    except BaseException:  # noqa: BLE001 - an exception's attributes are an author's code
        return True


def _frames_of(error: BaseException) -> str | None:
    try:
        return "".join(traceback.format_tb(_TRACEBACK_OF(error)))
    except BaseException:  # noqa: BLE001 - as above
        return None


def _visit(
    error: BaseException, after: Callable[[BaseException], Iterable[BaseException | None]]
) -> tuple[list[BaseException], bool]:
    """The error, what led to it, and so on; one that is in several groups each time, as Python shows it.

    Returns:
        Those that are nearest, and whether they are all.
    """
    found: list[BaseException] = []
    waiting, seen = deque([error]), {id(error)}
    while waiting and len(found) < MOST_ERRORS:
        each = waiting.popleft()
        found.append(each)
        for one in after(each):
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                waiting.append(one)
        if issubclass(type(each), BaseExceptionGroup):
            waiting.extend(islice(each.exceptions, MOST_ERRORS))  # type: ignore[attr-defined]
    return found, not waiting


def _all_after(error: BaseException) -> Iterable[BaseException | None]:
    return error.__cause__, error.__context__


def _shown_after(error: BaseException) -> Iterable[BaseException | None]:
    return (error.__cause__ or (None if error.__suppress_context__ else error.__context__),)


def _short_trace(link: BaseException) -> str:
    frames = "".join(traceback.format_tb(_TRACEBACK_OF(link)))
    return f"{frames}{type_name(link)}: {_shortened(text_of(link))}"


def _shortened(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{redacted_start(line, _LONGEST_LINE)} [cut here: {len(line):,} characters in all]\n"


_TRACEBACK_OF: Any = vars(BaseException)["__traceback__"].__get__
