import gc

from core.first_imports import keep_imported


def test_the_collector_does_not_look_at_what_is_imported():
    gc.unfreeze()
    held = [{} for _ in range(10)]

    keep_imported()

    try:
        assert not any(each is held for each in gc.get_objects())
        assert gc.get_freeze_count() > len(held)
    finally:
        gc.unfreeze()
