"""What an author's code does to `logging` for the whole process silences neither the engine nor another attempt."""

import logging
import logging.config
import sys
import threading
from contextlib import suppress

import pytest

from core.authors.attempt_log import AttemptLog
from core.authors.author_code import author_items, call_author
from core.errors import AuthorError
from core.safety.kept_logger import KeptLogger, why_silent
from core.safety.log_guard import disabled_loggers, log_guard
from core.safety.safe_log import safe_logger

log = safe_logger("core.of.the.engine")
theirs = logging.getLogger("an.author.at.work")


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        if record.getMessage() != "log_change_refused":
            self.messages.append(record.getMessage())


@pytest.fixture
def kept():
    """What comes out of the process: the messages of a handler of the root logger, at level INFO."""
    root, before = logging.getLogger(), (logging.getLogger().level, logging.root.manager.disable)
    off = disabled_loggers()
    handler = Kept()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.messages
    root.removeHandler(handler)
    root.setLevel(before[0])
    logging.disable(before[1])
    for name in disabled_loggers() - off:
        logging.getLogger(name).disabled = False


def remove_handlers():
    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)


def clear_handlers():
    logging.getLogger().handlers.clear()


def raise_levels_of_handlers():
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL + 1)


def filter_all():
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda _: False)


def silence_ours():
    for name in ("core.of.the.engine", "core.of", "core"):
        ours = logging.getLogger(name)
        ours.setLevel(logging.CRITICAL + 1)
        ours.propagate = False
        ours.disabled = True
        ours.addFilter(lambda _: False)
        ours.filters.append(lambda _: False)
        ours.handle = lambda _: None


def configure_ours():
    loggers = {"core": {"level": "CRITICAL", "propagate": False, "handlers": []}}
    logging.config.dictConfig({"version": 1, "incremental": False, "loggers": loggers})


SILENCED = {
    "our loggers": silence_ours,
    "dictConfig of ours": configure_ours,
    "disable": lambda: logging.disable(logging.CRITICAL),
    "disable more": lambda: logging.disable(10_000),
    "level": lambda: logging.getLogger().setLevel(logging.CRITICAL),
    "no handlers": remove_handlers,
    "handlers cleared": clear_handlers,
    "another list": lambda: setattr(logging.getLogger(), "handlers", []),
    "force": lambda: logging.basicConfig(force=True, level=logging.ERROR, handlers=[logging.NullHandler()]),
    "levels of handlers": raise_levels_of_handlers,
    "filters of handlers": filter_all,
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "dictConfig of root": lambda: logging.config.dictConfig(
        {"version": 1, "root": {"level": "CRITICAL", "handlers": []}, "disable_existing_loggers": True}
    ),
}


@pytest.fixture(params=SILENCED)
def silence(request):
    yield SILENCED[request.param]
    theirs.disabled = False


def test_records_of_the_engine_go_on_while_a_handler_silences_its_process(kept, silence):
    def handler():
        silence()
        log.info("of another task meanwhile")

    call_author(handler)
    log.info("after it")
    assert kept == ["of another task meanwhile", "after it"]


def test_lines_of_an_attempt_go_on_though_it_silenced_its_process(kept, silence):
    with log_guard, AttemptLog({"task_id": "t"}) as attempt:
        silence()
        theirs.info("logged")
        sys.stdout.write("printed\n")
    assert [line.rpartition(": ")[2] for line in attempt.text().splitlines()] == ["logged", "printed"]


def test_what_an_author_s_code_did_is_undone_however_it_ends(kept, silence):
    def raises():
        silence()
        raise ValueError

    with suppress(AuthorError):
        call_author(raises)
    theirs.info("of the app")

    def plans():
        yield 1
        silence()
        yield 2

    assert list(author_items("plan", lambda _, item: item, plans)) == [1, 2]
    theirs.info("of the app again")
    assert kept == ["of the app", "of the app again"]


def test_what_the_app_sets_between_calls_stays(kept):
    call_author(int)
    logging.getLogger().setLevel(logging.WARNING)
    theirs.disabled = True
    logging.config.dictConfig({"version": 1, "incremental": True})
    call_author(int)
    log.info("below the level")
    log.warning("at it")
    theirs.warning("of a logger that is off")
    theirs.disabled = False
    assert kept == ["at it"]


def test_loggers_that_were_off_before_stay_off(kept):
    """They were turned off with all others, by a configuration that the app made itself."""
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    assert theirs.disabled
    call_author(lambda: logging.config.dictConfig({"version": 1}))
    assert theirs.disabled
    theirs.disabled = False


def test_more_records_than_before_are_no_silence(kept):
    """A handler may want to see more; whoever has set that."""
    call_author(lambda: logging.getLogger().setLevel(logging.DEBUG))
    theirs.debug("seen")
    assert kept == ["seen"]


def test_whoever_would_silence_the_engine_s_loggers_is_named_once(caplog, monkeypatch):
    monkeypatch.setattr(KeptLogger, "_named", set())
    call_author(silence_ours)
    call_author(silence_ours)
    named = [
        (record.logger, record.change, record.place.rpartition("/")[2].partition(":")[0])
        for record in caplog.records
        if record.getMessage() == "log_change_refused" and record.logger == "core.of"
    ]
    changes = ("level", "propagate", "filters", "filters", "handle")
    assert named == [("core.of", change, "test_log_guard.py") for change in changes]


def test_a_thread_that_a_handler_left_behind_silences_nothing(kept):
    go_on = threading.Event()

    def later():
        assert go_on.wait(10)
        silence_ours()

    with log_guard, AttemptLog({"task_id": "t"}):
        left = threading.Thread(target=later)
        left.start()
    go_on.set()
    left.join()
    log.info("after it")
    assert kept == ["after it"]


def test_the_app_sets_its_own_levels_of_the_engine_s_loggers(kept):
    ours = logging.getLogger("core.of.the.engine")
    ours.setLevel(logging.ERROR)
    call_author(lambda: ours.setLevel(logging.DEBUG))
    log.debug("more than before")
    ours.setLevel(logging.ERROR)
    log.warning("not any more")
    ours.setLevel(logging.NOTSET)
    ours.addFilter(refuse := lambda _: False)
    log.warning("nor this")
    ours.removeFilter(refuse)
    ours.addHandler(handler := logging.NullHandler())
    ours.removeHandler(handler)
    ours.addHandler(handler)
    ours.handlers.clear()
    assert kept == ["more than before"]


def quiet_parent():
    logging.getLogger("core").setLevel(logging.CRITICAL)


def cut_off():
    logging.getLogger("core.of").propagate = False


def loud_child():
    logging.getLogger("core.of").setLevel(logging.INFO)
    logging.getLogger("core").setLevel(logging.CRITICAL)


@pytest.mark.parametrize(
    ("silence", "reason"),
    [
        (lambda: None, None),
        (lambda: logging.disable(logging.ERROR), "logging.disable(40)"),
        (quiet_parent, "the level of logger 'core' is CRITICAL"),
        (lambda: logging.getLogger().setLevel(logging.CRITICAL), "the level of logger 'root' is CRITICAL"),
        (cut_off, "logger 'core.of' has propagate = False, and no handler"),
        (loud_child, None),
    ],
)
def test_what_the_app_silenced_is_named(kept, silence, reason):
    """Set at the import of a module, where it may be the app's own wish; the log itself cannot show it."""
    try:
        silence()
        assert why_silent("core.of.the.engine", logging.ERROR) == reason
    finally:
        for name in ("core.of", "core"):
            logging.getLogger(name).setLevel(logging.NOTSET)
            logging.getLogger(name).propagate = True
