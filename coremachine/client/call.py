"""One request to the API as a value: what is sent, what it answers, and whether it may be sent twice."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Self, TypeVar
from urllib.parse import quote

from coremachine.client.errors import UnexpectedAnswer, WrongArgument

T = TypeVar("T")
Scalar = str | int | float | bool | datetime
QueryValue = Scalar | Iterable[str] | None
TIMEOUT_SECONDS = 30.0
_UNFIT_PARTS = frozenset({"", ".", ".."})
_SHOWN = 120
_VISIBLE = re.compile("[!-~]+")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request whose answer is a `T`.

    Args:
        path: Below `/api/`, encoded.
        answer: The name of T in `coremachine.client.models`; of the items, where `is_page`.
        query: Pairs, since a name may be repeated.
        repeats: Whether sending it twice does no more than sending it once.
        answers_too: Statuses beside those of success that hold an answer and no problem.
    """

    method: str
    path: str
    answer: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_page: bool = False
    repeats: bool = False
    timeout_seconds: float = TIMEOUT_SECONDS
    answers_too: frozenset[int] = frozenset()

    def after(self, cursor: str) -> Self:
        """The same list from this `next_cursor` on.

        Raises:
            UnexpectedAnswer: It is where this page began: the list would have no end. One that is waited for has none.
        """
        if ("cursor", cursor) in self.query and not any(name == "wait" for name, _ in self.query):
            raise UnexpectedAnswer(f"expected another next_cursor of {self.path}, found that of the page itself")
        kept = tuple(pair for pair in self.query if pair[0] != "cursor")
        return replace(self, query=(*kept, ("cursor", cursor)))


def path_of(*parts: str) -> str:
    """A path of these parts, whatever they hold: `a?b=c` is a name here and no query.

    Raises:
        WrongArgument: A part that no path can have.
    """
    for part in parts:
        # Clients and servers take these for places, encoded too.
        if part in _UNFIT_PARTS:
            raise WrongArgument(f"expected a name or an id, found {part!r}")
    return "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def query_of(**values: QueryValue) -> tuple[tuple[str, str], ...]:
    """The pairs of a query; what is None is left out, and the items of a list repeat the name.

    Raises:
        WrongArgument: A text that UTF-8 cannot hold.
    """
    return tuple((name, _encodable(text, name)) for name, value in values.items() for text in _texts(value))


def body_of(**values: Any) -> dict[str, Any]:
    """A body without what is None, with times as texts.

    Raises:
        WrongArgument: It holds what JSON cannot carry.
    """
    return {name: _plain(value, name) for name, value in values.items() if value is not None}


def header_of(name: str, value: str) -> str:
    """The value, if a header can hold it. The value itself may be a secret, and is not repeated.

    Raises:
        WrongArgument: It cannot.
    """
    if not _VISIBLE.fullmatch(value):
        wrong = next((place for place, character in enumerate(value) if not "!" <= character <= "~"), None)
        found = "nothing" if wrong is None else f"another one at place {wrong + 1}"
        raise WrongArgument(f"{name}: expected visible ASCII characters, found {found}")
    return value


def _texts(value: QueryValue) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Scalar):
        return [_text(value)]
    return [str(each) for each in value]


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return time_text(value) if isinstance(value, datetime) else f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, Mapping):
        return {_plain(name, path): _plain(each, f"{path}.{name}") for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise WrongArgument(f"{path}: expected a finite number, found {value}")
    if isinstance(value, str):
        return _encodable(value, path)
    if value is not None and not isinstance(value, int | float):
        raise WrongArgument(f"{path}: expected a JSON value, found {type(value).__name__} {repr(value)[:_SHOWN]}")
    return value


def _encodable(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = text[max(0, error.start - _SHOWN) : error.end]
        raise WrongArgument(f"{ascii(path)[1:-1]}: expected text that UTF-8 can hold, found {found!a}") from error
    return text


def time_text(moment: datetime) -> str:
    """RFC 3339.

    Raises:
        WrongArgument: It has no zone, so that nobody knows which instant is meant.
    """
    if moment.tzinfo is None:
        raise WrongArgument(f"expected a time with its zone, such as datetime.now(UTC), found {moment.isoformat()}")
    return moment.isoformat()
