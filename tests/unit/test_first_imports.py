import gc

import pytest

from core.basics.first_imports import IMPORTS, keep_imported
from infrastructure.service_bus import _load_sdk


def test_the_collector_does_not_look_at_what_is_imported():
    gc.unfreeze()
    held = [{} for _ in range(10)]

    keep_imported()

    try:
        assert not any(each is held for each in gc.get_objects())
        assert gc.get_freeze_count() > len(held)
    finally:
        gc.unfreeze()


def test_nothing_is_collected_while_modules_are_imported():
    with IMPORTS, IMPORTS:
        assert not gc.isenabled()

    assert gc.isenabled()


def test_an_import_that_fails_leaves_the_collector_at_work():
    with pytest.raises(ImportError), IMPORTS:
        raise ImportError("no such module")

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with IMPORTS:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_is_garbage_later_is_not_kept_by_each_message(monkeypatch):
    """A worker grew by 12 KB with each job: what was alive when it sent a message was never collected."""
    freezes = []
    monkeypatch.setattr(gc, "freeze", lambda: freezes.append(1))
    _load_sdk.cache_clear()
    for _ in range(3):
        _load_sdk()
    assert len(freezes) == 1
