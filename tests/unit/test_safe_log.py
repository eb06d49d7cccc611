"""A log that is broken breaks nothing else."""

import logging
import re
import sys
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from core.errors import StoreUnavailable
from core.models import JobRef, StageRef
from core.models.lease import HeldTask
from core.running.leases import LeaseKeeper
from core.safety import safe_log
from core.safety.safe_log import safe_logger
from core.telemetry.reports import report_finalized, report_planned

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("core", "infrastructure", "triggers", "jobs", "function_app.py")
log = safe_logger("test.safe_log")


@pytest.fixture
def losses(monkeypatch):
    """What is told on stderr, by a clock that stands still."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(safe_log, "_losses", safe_log._Losses(clock))
    return clock


@pytest.fixture
def broken_handler(losses):
    """On the root logger, and what it raises."""
    del losses

    class Broken(logging.Handler):
        error: BaseException = RuntimeError("collector gone")

        def emit(self, record):
            del record
            raise self.error

    handler = Broken()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def tracing_factory():
    """As tracing libraries do: attributes on every record."""
    before = logging.getLogRecordFactory()

    def make(*args, **kwargs):
        record = before(*args, **kwargs)
        record.correlation_id = "theirs"
        return record

    logging.setLogRecordFactory(make)
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("tracing_factory")
def test_field_whose_name_a_library_took_is_kept_under_another(caplog):
    log.error("job_failed", extra={"correlation_id": "ours", "job_id": "j"})
    (record,) = caplog.records
    assert (record.correlation_id, record.coremachine_correlation_id, record.job_id) == ("theirs", "ours", "j")


def test_fields_named_as_a_records_own_are_kept(caplog):
    fields = {"name": "n", "message": "m", "asctime": "a", "coremachine_name": "c"}
    log.error("odd", extra=fields)
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("test.safe_log", "odd")
    assert (record.coremachine_message, record.coremachine_asctime) == ("m", "a")
    assert (record.coremachine_name, record.coremachine_coremachine_name) == ("n", "c")


@pytest.mark.parametrize("made", [RuntimeError("no record"), None, "text", object()])
def test_factory_that_makes_no_record_loses_none(monkeypatch, caplog, made):
    def make(*_, **__):
        if isinstance(made, Exception):
            raise made
        return made

    monkeypatch.setattr(logging, "_logRecordFactory", make)
    log.error("job_failed", extra={"job_id": "j"})
    (record,) = caplog.records
    assert (record.getMessage(), record.job_id, record.funcName) == (
        "job_failed",
        "j",
        "test_factory_that_makes_no_record_loses_none",
    )


@pytest.mark.parametrize("error", [RuntimeError("collector gone"), SystemExit(3), RecursionError(), BaseException()])
def test_handler_that_raises_in_a_thread_costs_the_record_alone(broken_handler, capsys, error):
    broken_handler.error = error
    went_on = threading.Event()

    def work():
        log.error("job_failed")
        went_on.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert went_on.is_set()
    told = capsys.readouterr().err
    assert "log records lost: 1, the last was 'job_failed' of test.safe_log" in told
    assert f"raised {type(error).__name__}: {error}" in told


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_signal_in_the_main_thread_is_not_swallowed(broken_handler, signal):
    broken_handler.error = signal()
    with pytest.raises(signal):
        log.error("job_failed")


@pytest.mark.usefixtures("broken_handler")
def test_it_is_told_once_a_minute_with_the_count(losses, capsys):
    for now in (0.0, 1.0, 59.0, 60.5):
        losses.now = now
        log.error("job_failed")
    assert re.findall(r"records lost: (\d+)", capsys.readouterr().err) == ["1", "3"]


@pytest.mark.usefixtures("broken_handler")
def test_without_a_stderr_it_does_not_raise_either(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    log.error("job_failed")


def test_record_names_its_writer_and_has_its_trace(caplog):
    with caplog.at_level(logging.DEBUG):
        try:
            raise ValueError("bad tile")  # noqa: TRY301
        except ValueError as error:
            log.exception("one")
            log.log(logging.INFO, "two of %d", 3, exc_info=error)
        log.debug("three")
        log.info("four")
        log.warning("five")
    assert {(record.filename, record.funcName) for record in caplog.records} == {
        ("test_safe_log.py", test_record_names_its_writer_and_has_its_trace.__name__)
    }
    assert len({record.lineno for record in caplog.records}) == 5
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "DEBUG", "INFO", "WARNING"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["bad tile"] * 2
    assert caplog.records[1].getMessage() == "two of 3"


def test_credential_in_an_exception_is_in_no_record(caplog):
    def connect():
        raise OSError("no answer of https://a/c?sv=1&sig=hushhush")

    for logged in (True, False):
        try:
            try:
                connect()
            except OSError as error:
                raise RuntimeError("no source") from error
        except RuntimeError as error:
            log.warning("source_not_read", exc_info=logged or error)
    assert "hush" not in caplog.text
    for record in caplog.records:
        told = logging.Formatter().format(record)
        assert "sig=***" in told
        assert "RuntimeError: no source" in told
        assert "in connect" in told
    assert len(caplog.records) == 2


def test_level_is_that_of_the_logger(caplog):
    with caplog.at_level(logging.WARNING):
        log.info("unheard")
    assert caplog.records == []


@pytest.mark.usefixtures("broken_handler")
def test_sure_step_is_not_made_unsure_by_its_record():
    """A plan that was written was failed after it, since its record raised."""
    report_planned(StageRef("j", 1, 1), "planned", 3, 0.1)
    report_finalized(JobRef("j", 1), "completed")


@pytest.mark.usefixtures("broken_handler")
def test_lease_thread_outlives_a_broken_log():
    class Away:
        def renew_leases(self, held):
            raise self.error

    store = Away()
    keeper, lease = LeaseKeeper(store), HeldTask("j", 1, "t", uuid4(), 3600.0)
    keeper.hold([lease])
    for store.error in (StoreUnavailable("away"), ValueError("a bug")):
        assert not keeper._try(keeper._renew)
    keeper.drop([lease])


@pytest.mark.parametrize("place", PLACES)
def test_engine_has_no_other_loggers(place):
    path = ROOT / place
    others = [
        str(source.relative_to(ROOT))
        for source in ([path] if path.is_file() else sorted(path.rglob("*.py")))
        if re.search(
            r"getLogger|logging\.(debug|info|warning|error|exception|log)\(", source.read_text(encoding="utf-8")
        )
    ]
    # They pass on what authors' loggers wrote in other processes, filter or read a library's, or look at the handlers.
    own = {
        "core": ["core/isolation/log_records.py", "core/safety/kept_logger.py", "core/safety/log_guard.py"],
        "infrastructure": ["infrastructure/postgresql.py", "infrastructure/telemetry/start.py"],
        "jobs": ["jobs/flood_risk_cog/intact.py"],
        "triggers": ["triggers/http.py", "triggers/worker_log.py"],
    }
    assert others == own.get(place, [])


def test_configuration_of_a_library_silences_no_record(caplog):
    """Its usual call disables each logger that it does not name, and a handler may make it at any time."""
    logger, log = logging.getLogger("of.the.engine"), safe_logger("of.the.engine")
    logger.disabled = True
    log.warning("still said")
    assert [record.getMessage() for record in caplog.records] == ["still said"]
    logger.disabled = True
    assert log.is_enabled_for(logging.WARNING)


LONG = "x" * 200_000


@pytest.mark.parametrize(
    "value",
    [LONG, [LONG], {"task_id": LONG}, {LONG: "not_found"}, ({"a": [LONG, LONG]},), ["short"] * 200_000, {"a"} | {LONG}],
    ids=["text", "list", "value", "name", "nested", "many", "set"],
)
def test_text_of_others_is_bounded(caplog, value):
    """A task's id of 200,000 characters in a message was logged whole, several times."""
    log.warning("odd", extra={"found": value})
    (record,) = caplog.records
    assert len(repr(record.found)) < 80_000
    assert "cut here" in repr(record.found)


@pytest.mark.parametrize("value", ["s1-000000", [f"s1-{n:06}" for n in range(100)], {"a": 1}, ("a", 2), None, 7])
def test_what_is_short_is_logged_as_it_is(caplog, value):
    log.warning("plain", extra={"found": value})
    assert caplog.records[0].found is value


def test_values_that_hold_themselves_are_logged_as_far_as_there_is_room(caplog):
    circle: list = [LONG]
    circle.append(circle)
    log.warning("odd", extra={"found": circle})
    assert len(repr(caplog.records[0].found)) < 80_000


def test_long_text_of_an_exception_is_logged_with_its_trace_and_cut(caplog):
    def read():
        raise KeyError(LONG)

    try:
        read()
    except KeyError:
        log.exception("not_read")
    told = logging.Formatter().format(caplog.records[0])
    assert len(told) < 20_000
    assert "in read" in told
    assert "KeyError" in told
    assert "200,0" in told  # its length
