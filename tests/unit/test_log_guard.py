"""What an author's code does to `logging` for the whole process silences neither the engine nor another attempt."""

import logging
import logging.config
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO

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
        try:
            self.format(record)
        except ValueError:
            return  # as handlers of `logging` do, which report it on stderr
        if record.getMessage() != "log_change_refused":
            self.messages.append(record.getMessage())


@pytest.fixture
def kept():
    """What comes out of the process: the messages of a handler of the root logger, at level INFO."""
    root, before = logging.getLogger(), (logging.getLogger().level, logging.root.manager.disable)
    off, handlers = disabled_loggers(), list(root.handlers)
    handler = Kept()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.messages
    root.handlers[:] = handlers
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


def replace_methods_of_handlers():
    for handler in logging.getLogger().handlers:
        handler.emit = handler.format = lambda _: None


def break_format_of_handlers():
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Kept):  # pytest's raise
            handler.setFormatter(logging.Formatter("%(nothing)s"))


class _Odd:
    """Equal to everything, no more than anything."""

    def __eq__(self, _):
        return True

    def __ne__(self, _):
        return False

    def __gt__(self, _):
        return False

    def __hash__(self):
        return 0


class _OddHandler(_Odd, logging.Handler):
    def emit(self, _):
        """Nothing of it."""


class _OddFilter(_Odd, logging.Filter):
    def filter(self, _):
        return False


class _OddLevel(_Odd, int):
    """As a level: no record's is as high."""

    def __le__(self, _):
        return False


def replace_handlers_by_what_claims_to_be_them():
    logging.getLogger().handlers[:] = [_OddHandler() for _ in logging.getLogger().handlers]


def replace_filters_by_what_claims_to_be_them():
    for handler in logging.getLogger().handlers:
        handler.filters.append(_OddFilter())
    logging.getLogger("core.of.the.engine").addFilter(_OddFilter())


def raise_levels_that_claim_to_be_low():
    for logger in (logging.getLogger(), logging.getLogger("core"), logging.getLogger("core.of.the.engine")):
        logger.setLevel(_OddLevel(logging.CRITICAL + 1))
    for handler in logging.getLogger().handlers:
        handler.setLevel(_OddLevel(logging.CRITICAL + 1))
    logging.root.manager.disable = _OddLevel(logging.CRITICAL + 1)


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
        ours.filters += [lambda _: False]
        ours.filters[:] = [lambda _: False]
        ours.handle = lambda _: None
        ours._cache[logging.INFO] = False
        ours._cache = {logging.INFO: False}


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
    "format of handlers": break_format_of_handlers,
    "methods of handlers": replace_methods_of_handlers,
    "handlers that claim to be them": replace_handlers_by_what_claims_to_be_them,
    "filters that claim to be them": replace_filters_by_what_claims_to_be_them,
    "levels that claim to be low": raise_levels_that_claim_to_be_low,
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
    with log_guard, AttemptLog() as attempt:
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
    changes = ("level", "propagate", "filters", "filters", "filters", "filters", "handle", "_cache")
    assert named == [("core.of", change, "test_log_guard.py") for change in changes]


def test_a_thread_that_a_handler_left_behind_silences_nothing(kept):
    go_on = threading.Event()

    def later():
        assert go_on.wait(10)
        silence_ours()

    with log_guard, AttemptLog():
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


CHANGES_OF_A_LIST = {
    "slice": lambda held, new: held.__setitem__(slice(None), [new]),
    "item": lambda held, new: held.__setitem__(0, new),
    "del": lambda held, _: held.__delitem__(0),
    "+=": lambda held, new: held.__iadd__([new]),
    "*=": lambda held, _: held.__imul__(0),
    "append": lambda held, new: held.append(new),
    "clear": lambda held, _: held.clear(),
    "extend": lambda held, new: held.extend(iter([new])),
    "insert": lambda held, new: held.insert(0, new),
    "pop": lambda held, _: held.pop(),
    "remove": lambda held, _: held.remove(held[0]),
    "reverse": lambda held, _: held.reverse(),
    "sort": lambda held, _: held.sort(key=id),
}


@pytest.mark.parametrize("attribute", ["handlers", "filters"])
@pytest.mark.parametrize("change", CHANGES_OF_A_LIST.values(), ids=CHANGES_OF_A_LIST)
def test_handlers_and_filters_of_our_loggers_change_as_a_list_does(change, attribute):
    """In the app all of it holds. An author's call goes on, and only what hides no record holds."""
    first, new = logging.NullHandler(), logging.NullHandler()
    ours = logging.getLogger("core.of.the.engine")
    try:
        setattr(ours, attribute, [first])
        held, plain = getattr(ours, attribute), [first]
        assert change(held, new) == change(plain, new) or held == plain
        assert held == plain
        setattr(ours, attribute, [first])
        call_author(lambda: change(getattr(ours, attribute), new))
        fewer = first not in plain if attribute == "handlers" else new in plain
        assert getattr(ours, attribute) == ([first] if fewer else plain)
    finally:
        setattr(ours, attribute, [])


def test_an_augmented_assignment_of_the_app_holds():
    ours = logging.getLogger("core.of.the.engine")
    ours.handlers += [handler := logging.NullHandler()]
    assert ours.handlers == [handler]
    ours.handlers = []


@pytest.mark.parametrize("name", ["jobs.mine", "handler", "handler.mine"])
def test_a_logger_of_an_author_s_own_module_is_free(kept, name):
    own = logging.getLogger(name)
    try:
        call_author(lambda: (own.setLevel(logging.ERROR), setattr(own, "propagate", False)))
        assert (own.level, own.propagate) == (logging.ERROR, False)
        with AttemptLog():
            sys.stdout.write("printed\n")
        assert kept == ["printed"]
    finally:
        own.propagate = True
        own.setLevel(logging.NOTSET)


def test_a_handler_s_stream_is_put_back_unless_it_opens_its_own(tmp_path):
    root = logging.getLogger()
    ours, files = logging.StreamHandler(stream := StringIO()), logging.FileHandler(tmp_path / "log", delay=True)
    root.addHandler(ours)
    root.addHandler(files)
    try:
        call_author(lambda: (ours.setStream(StringIO()), log.warning("seen")))
        opened = files.stream
        assert opened is not None
        assert (ours.stream, stream.getvalue()) == (stream, "seen\n")
        call_author(ours.setStream, None)
        assert ours.stream is stream
    finally:
        root.removeHandler(ours)
        root.removeHandler(files)
        files.close()


def test_a_method_that_the_app_gave_a_handler_stays(kept):
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, Kept))
    handler.emit = emit = lambda record: kept.append(f"app: {record.getMessage()}")
    call_author(setattr, handler, "emit", lambda _: None)
    assert handler.emit is emit


@pytest.mark.parametrize("raises", [False, True])
def test_a_handler_s_lock_that_a_call_leaves_taken_is_released(kept, raises):
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, Kept))

    def take():
        handler.acquire()
        handler.acquire()
        if raises:
            raise ValueError

    with suppress(AuthorError):
        call_author(take)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handler.lock.acquire, blocking=False).result()
        pool.submit(handler.lock.release).result()
