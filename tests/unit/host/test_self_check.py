"""A worker that a function has broken ends, and a sound one does not."""

import builtins
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from coremachine.local.host.self_check import (
    MOST_ERRORS,
    MOST_LOOKS_CHANGED,
    MOST_LOOKS_WITHOUT_FILES,
    SelfCheck,
    is_of_own_code,
)


class Looked:
    def __init__(self) -> None:
        self.ended: list[tuple[str, bool]] = []
        self.check = SelfCheck()
        self.check.begin(lambda reason, may_finish: self.ended.append((reason, may_finish)))

    def look(self, times: int) -> list[tuple[str, bool]]:
        for _ in range(times):
            self.check.look()
        return self.ended


def looks_with(name: str, value: Any, looks: int) -> list[tuple[str, bool]]:
    """By hand: pytest itself needs what is replaced here."""
    looked, usual = Looked(), getattr(builtins, name)
    setattr(builtins, name, value)
    try:
        looked.look(looks)
    finally:
        setattr(builtins, name, usual)
    return looked.ended


REPLACED: list[tuple[str, Any]] = [
    ("len", lambda _value: 0),
    ("isinstance", lambda _value, _kind: False),
    ("dict", None),
    ("Exception", None),
]


@pytest.mark.parametrize(("name", "value"), REPLACED)
def test_replaced_builtins_end_the_worker_at_once(name: str, value: Any) -> None:
    """Each request was 400, each message unreadable, and nothing raised where the engine looks."""
    assert looks_with(name, value, MOST_LOOKS_CHANGED) == [(f"a function has replaced builtins: {name}", False)]


def test_what_is_put_back_or_is_often_replaced_ends_nothing() -> None:
    assert looks_with("len", lambda _value: 0, MOST_LOOKS_CHANGED - 1) == []
    assert looks_with("print", lambda *_values: None, MOST_LOOKS_CHANGED) == []
    assert Looked().look(20) == []


def no_descriptor(*_arguments: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def refuse(*_arguments: object) -> int:
    raise RuntimeError("not allowed by this hook")


def full_machine(*_arguments: object) -> int:
    raise OSError(errno.ENFILE, "Too many open files in system")


@pytest.mark.parametrize(("opens", "word"), [(no_descriptor, "Too many open files"), (refuse, "not allowed")])
def test_worker_that_can_open_nothing_ends_when_its_work_is_done(
    monkeypatch: pytest.MonkeyPatch, opens: Callable[..., int], word: str
) -> None:
    looked = Looked()
    monkeypatch.setattr(os, "open", opens)
    assert looked.look(MOST_LOOKS_WITHOUT_FILES - 1) == []
    ((reason, may_finish),) = looked.look(1)
    assert (word in reason, may_finish) == (True, True)


def test_what_a_new_worker_could_not_do_either_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", full_machine)
    assert Looked().look(20) == []
    monkeypatch.setattr(os, "open", refuse)
    assert Looked().look(20) == []


def test_errors_of_its_own_code_in_a_row_end_it() -> None:
    looked = Looked()
    for _ in range(MOST_ERRORS):
        looked.check.failed("messages", TypeError("NoneType"))
        looked.check.succeeded("messages")
    for _ in range(MOST_ERRORS):
        looked.check.failed("connections", TypeError("NoneType"))
    ((reason, may_finish),) = looked.ended
    assert "failed 5 times in a row (connections), last with TypeError: NoneType" in reason
    assert may_finish is False


class LibraryError(ValueError):
    pass


@pytest.mark.parametrize("error", [ConnectionResetError(), LibraryError(), SystemExit(), "\ud800"])
def test_outages_and_refusals_are_no_errors_of_its_own_code(error: BaseException | str) -> None:
    if isinstance(error, str):
        with pytest.raises(UnicodeEncodeError) as raised:
            error.encode()
        error = raised.value
    assert not is_of_own_code(error)


def test_nothing_ends_before_the_begin() -> None:
    check = SelfCheck()
    for _ in range(20):
        check.failed("messages", TypeError())
        check.look()
