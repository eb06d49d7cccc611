"""Whatever an author's code does comes out as a value or as one error of ours, with a reason that can be stored."""

import asyncio
import cProfile
import gc
import json
import logging
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from decimal import Decimal, getcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from uuid import uuid4

import pytest

from core.authors import author_code
from core.authors.author_code import author_items, call_author, read_once
from core.basics.canonical import MOST_LEVELS, NotJson, ValueTooLarge, as_stored, copied, encode_storable, job_id_for
from core.basics.threads import ThreadReserve
from core.context import TaskContext
from core.errors import AuthorError, Failure, PermanentTaskError, RetryableTaskError, StoreUnavailable, classify
from core.fan_in import fan_in_reader, load_fan_in_results
from core.models import StageDefinition
from core.models.lease import LeaseOutcome
from core.models.transition import ClaimedRow, ClaimOutcome
from core.running import attempts as attempts_module
from core.running import task_batch
from core.running.attempts import Attempts
from core.running.leases import LeaseKeeper
from core.running.task_batch import TaskBatch
from core.running.task_slots import TaskSlots
from core.safety.safe_text import MOST_TEXT_BYTES

ROOT = Path(__file__).resolve().parents[2]


def as_it_is(_place, item):
    return item


class NoText(Exception):
    def __str__(self):
        return None  # noqa: PLE0307 - as in the wild


class RaisesInText(Exception):
    def __str__(self):
        raise SystemExit(9)

    __repr__ = __str__


class NoSuper(RetryableTaskError):
    def __init__(self):
        pass


class Computed(RetryableTaskError):
    @property
    def retry_after_seconds(self):
        raise KeyboardInterrupt

    @retry_after_seconds.setter
    def retry_after_seconds(self, _):
        pass


class Liar(Exception):
    @property
    def __class__(self):
        raise GeneratorExit

    @property
    def __traceback__(self):
        raise GeneratorExit


# Made where they are raised: pytest itself does not survive to look at some of them.
STRANGE = {
    "SystemExit": lambda: SystemExit(3),
    "SystemExit without code": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": lambda: StopIteration(1),
    "MemoryError": MemoryError,
    "NoText": NoText,
    "RaisesInText": RaisesInText,
    "NoSuper": NoSuper,
    "Computed": lambda: Computed("x"),
    "Liar": lambda: Liar("x"),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [SystemExit(1), RaisesInText()]),
    "Exception": lambda: Exception("x\x00\ud800"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
}


def made_error(name):
    return STRANGE[name]()


def raising(make_error):
    def run(*_):
        raise make_error()

    return run


def is_storable(failure):
    text = json.dumps(failure.to_json(1), allow_nan=False, ensure_ascii=False)
    return "\\u0000" not in text and text.encode() is not None


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_is_raised_is_one_error_with_a_readable_reason(name):
    with pytest.raises(AuthorError) as told:
        call_author(raising(STRANGE[name]))

    failure = told.value.failure
    assert failure.error_type == name.split()[0]
    assert failure.message
    assert failure.traceback
    assert is_storable(failure)
    assert failure.retryable is not name.startswith(("SystemExit", "UnicodeDecodeError"))
    assert told.value.__context__ is None


def test_exit_says_what_to_raise_in_its_place():
    with pytest.raises(AuthorError) as told:
        call_author(raising(lambda: SystemExit("no input")))

    assert "sys.exit(no input); raise PermanentTaskError; the process goes on" in told.value.failure.message
    assert "in run" in told.value.failure.traceback


def away():
    yield 1
    raise StoreUnavailable("away")


def test_database_that_is_away_while_results_are_read_is_no_fault_of_the_author():
    with pytest.raises(StoreUnavailable, match="away"):
        call_author(list, read_once(away()))
    with pytest.raises(StoreUnavailable, match="away"):
        list(author_items("plan", as_it_is, lambda: (item for item in read_once(away()))))


def catching(results):
    with suppress(Exception):
        yield from results


def test_author_who_catches_everything_does_not_catch_that():
    """A plan or a summary of half of the results was written when the database was back."""
    with pytest.raises(StoreUnavailable, match="away"):
        call_author(lambda: list(catching(read_once(away()))))
    with pytest.raises(StoreUnavailable, match="away"):
        list(author_items("plan", as_it_is, lambda: catching(read_once(away()))))


def test_handler_who_catches_everything_makes_no_result_of_half_of_the_results():
    source = {"job_id": "a" * 64, "run": 1, "stage": 1, "expected_count": 2}
    store = Mock(stream_results=lambda _: away(), stream_failures=lambda _: away())
    with fan_in_reader(store):
        loaded = load_fan_in_results({"fan_in_source": source})
    for read in (loaded.results, loaded.failures):
        with pytest.raises(StoreUnavailable, match="away"):
            call_author(lambda read=read: list(catching(read())))


def test_other_database_that_is_away_is_the_authors_own():
    """A planner that said so of its own database was asked again for ever, and the log told of an outage of ours."""
    for read in (raising(lambda: StoreUnavailable("theirs")), lambda: list(away())):
        with pytest.raises(AuthorError) as told:
            call_author(read)
        assert (told.value.failure.error_type, told.value.failure.retryable) == ("StoreUnavailable", True)


def _pass(results):
    total = 0
    try:
        for each in results:
            total += each
    except:  # noqa: E722, S110 - as some authors write it
        pass
    return total


def _return_in_finally(results):
    total = 0
    try:
        for each in results:
            total += each
    finally:
        return total  # noqa: B012 - as some authors write it


def _suppress(results):
    with suppress(BaseException):
        return sum(results)
    return 0


def _raise_another(results):
    try:
        return sum(results)
    except BaseException as error:
        raise ValueError("no results") from error


def _gather(results):
    async def read():
        return sum(results)

    async def both():
        return await asyncio.gather(read(), return_exceptions=True)

    return asyncio.run(both())


def _read_twice(results):
    with suppress(BaseException):
        list(results)
    return list(results)


@pytest.mark.parametrize("author", [_pass, _return_in_finally, _suppress, _raise_another, _gather, _read_twice])
def test_an_outage_that_an_author_hides_is_one(author):
    """What was made of half of the results was stored, or failed the job for good."""
    with pytest.raises(StoreUnavailable, match="away"):
        call_author(author, read_once(away()))

    def plan(results):
        found = author(results)
        yield found
        yield found

    with pytest.raises(StoreUnavailable, match="away"):
        list(author_items("plan", lambda _, item: item, plan, read_once(away())))
    # The next call has met none.
    assert call_author(author, read_once([1, 2])) is not None


@pytest.mark.parametrize("items", [(), [1, 2], iter([1, 2])])
def test_results_are_read_once_whatever_they_are_kept_in(items):
    given = list(items)
    results = read_once(given)

    assert not hasattr(results, "__len__")
    assert list(results) == given
    assert list(results) == []


def test_texts_are_cut_and_say_so():
    huge = "x" * 20_000_000

    def fail():
        raise OSError(huge)

    with pytest.raises(AuthorError) as told:
        call_author(fail)

    failure = told.value.failure
    assert MOST_TEXT_BYTES - 200 < len(failure.message.encode()) <= MOST_TEXT_BYTES
    assert failure.message.endswith("[cut here: 20,000,000 characters in all]")
    assert len(failure.traceback.encode()) <= MOST_TEXT_BYTES
    assert "in fail" in failure.traceback
    assert "[cut here: 20,000,000 characters in all]" in failure.traceback


@pytest.mark.parametrize("text", ["\u00e9" * 200_000, "\U0001f600" * 100_000, "\x00" * 200_000, "\ud800" * 200_000])
def test_the_bound_is_one_of_bytes(text):
    failure = Failure("T" * 1000, text, True, traceback=text)

    assert max(len(part.encode()) for part in (failure.message, failure.traceback)) <= MOST_TEXT_BYTES
    assert len(failure.error_type) <= 200
    assert "[cut here" in failure.message
    assert "[cut here" in failure.traceback
    assert is_storable(failure)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (0, 0.0),
        (7, 7.0),
        ("7.5", 7.5),
        (" 7 ", 7.0),
        (Decimal(3), 3.0),
        (timedelta(minutes=2), 120.0),
        (86_400, 86_400.0),
    ],
)
def test_seconds_whose_meaning_is_clear_are_taken(given, kept):
    failure = Failure("Busy", "busy", True, retry_after_seconds=given)

    assert (failure.retry_after_seconds, failure.message) == (kept, "busy")


@pytest.mark.parametrize("given", [1e15, "1e15", float("inf"), 86_401, timedelta(days=2)])
def test_nobody_waits_for_more_than_a_day(given):
    failure = Failure("Busy", "busy", True, retry_after_seconds=given)

    assert failure.retry_after_seconds == 86_400
    assert failure.message.startswith("busy (retry_after_seconds: cut to a day")


@pytest.mark.parametrize(
    "given",
    [-1, float("nan"), "soon", "", True, [], {}, object(), "\x00", 10**5000, RaisesInText(), "9" * 5000],
    ids=lambda _: "seconds",
)
def test_seconds_that_mean_nothing_are_named_in_the_failure(given):
    failure = Failure("Busy", "y" * MOST_TEXT_BYTES, True, retry_after_seconds=given)

    assert failure.retry_after_seconds in {None, 86_400.0}
    assert "(retry_after_seconds: " in failure.message
    assert len(failure.message.encode()) <= MOST_TEXT_BYTES
    assert is_storable(failure)


def test_attribute_of_an_exception_is_judged_alike():
    assert classify(RetryableTaskError("busy", retry_after_seconds="12")).retry_after_seconds == 12
    assert "found 'soon'" in classify(RetryableTaskError("busy", retry_after_seconds="soon")).message


def test_planner_that_fails_between_two_items_or_at_its_end_is_the_same_error():
    def one_then_exit():
        yield 1
        raise SystemExit(2)

    with pytest.raises(AuthorError) as told:
        list(author_items("plan", as_it_is, one_then_exit))
    assert told.value.failure.error_type == "SystemExit"


def test_items_that_come_quickly_are_read_in_one_call_and_slow_ones_each_alone(monkeypatch):
    calls = []
    call = author_code.call_guarded
    monkeypatch.setattr(author_code, "call_guarded", lambda *given: calls.append(1) or call(*given))

    monkeypatch.setattr(author_code, "READ_SECONDS", 60)
    assert list(author_items("plan", lambda place, item: (place, item), lambda: "abc")) == [*enumerate("abc")]
    assert len(calls) == 2  # the planner, and its items

    calls.clear()
    monkeypatch.setattr(author_code, "READ_SECONDS", 0)
    assert list(author_items("plan", lambda place, item: (place, item), lambda: "abc")) == [*enumerate("abc")]
    assert len(calls) == 5  # the last one finds the end


class _Alike:
    """Equal to everything."""

    def __call__(self, *_):
        raise SystemExit

    def __eq__(self, _):
        return True

    def __hash__(self):
        return 0


def test_hooks_that_claim_to_be_the_usual_ones_or_are_gone_are_put_back():
    usual = threading.excepthook

    def replace():
        threading.excepthook = _Alike()
        threading.settrace(_Alike())

    call_author(replace)
    assert (threading.excepthook, threading.gettrace()) == (usual, None)
    call_author(lambda: delattr(threading, "excepthook"))
    assert threading.excepthook is usual


@pytest.mark.parametrize("returned", [None, 5, object()])
def test_planner_that_returns_nothing_to_go_through_is_told_so(returned):
    with pytest.raises(AuthorError, match="plan: expected an iterable of TaskDefinition, found "):
        next(author_items("plan", as_it_is, lambda: returned))


def test_planner_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(author_code, "MOST_TASKS", 10)

    def endless():
        while True:
            yield 1

    with pytest.raises(AuthorError, match="plan: expected at most 10 tasks, found more"):
        list(author_items("plan", as_it_is, endless))


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_collection_beyond_the_limit_is_refused_before_it_is_read(monkeypatch, kind):
    """All tasks up to the limit were written first, and taken back."""
    monkeypatch.setattr(author_code, "MOST_TASKS", 10)
    read = []
    with pytest.raises(AuthorError, match="plan: expected at most 10 tasks, found 11; split the job"):
        next(author_items("plan", lambda *item: read.append(item), lambda: kind(range(11))))
    assert read == []


def test_planner_of_exactly_the_limit_is_not(monkeypatch):
    monkeypatch.setattr(author_code, "MOST_TASKS", 10)

    assert len(list(author_items("plan", as_it_is, lambda: range(10)))) == 10


# --- values ---


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1: 2}, "names that are str, found int 1"),
        ({"a": [{"b": {None: 1}}]}, "r.a[0].b: expected names that are str, found null"),
        ({"a": {True: 1}}, "r.a: expected names that are str, found bool True"),
        ({"a": {1.5: 1}}, "r.a: expected names that are str, found float 1.5"),
        ({"a": set()}, "r.a: expected a JSON value, found set"),
        ({"a": {("x", 1)}}, "r.a: expected a JSON value, found set"),
        ({"a": 10**5000}, "r.a: expected a number of at most 4,000 digits"),
        ({"a": float("inf")}, "r.a: expected a finite number"),
        ({"a": "\x00"}, "r.a: expected text without NUL"),
        ({"a\ud800": 1}, "r: expected text without NUL"),
        ({"a": b"x"}, "r.a: expected a JSON value, found bytes"),
        ({"a": NoText}, "r.a: expected a JSON value"),
    ],
    ids=lambda _: "value",
)
def test_value_that_json_would_change_or_refuse_is_named_by_its_path(value, said):
    with pytest.raises(NotJson) as refused:
        encode_storable(value, "r")
    assert said in str(refused.value)


def test_nesting_has_an_end_and_a_value_that_holds_itself_is_refused():
    deep = "x"
    for _ in range(MOST_LEVELS):
        deep = [deep]
    assert encode_storable(deep)
    itself: dict = {}
    itself["again"] = itself

    for value in ([deep], itself, {"a": [itself]}):
        with pytest.raises(NotJson, match="at most 100 levels of nesting"):
            encode_storable(value, "r")


def test_size_is_bounded_where_a_limit_is_given():
    assert encode_storable({"a": "x" * 91}, "result", most_bytes=100)
    with pytest.raises(ValueTooLarge, match="result: expected at most 100 bytes of JSON, found 101"):
        encode_storable({"a": "x" * 93}, "result", most_bytes=100)


def test_subclasses_of_plain_types_are_what_they_hold():
    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    class Pairs(dict):
        pass

    value = {Text("a"): Number(3), "b": Pairs(c=Text("d")), "e": (1, 2)}
    assert as_stored(encode_storable(value)) == {"a": 3, "b": {"c": "d"}, "e": [1, 2]}


def test_parameters_of_the_job_are_each_attempts_own():
    given = {"list": [1, {"deep": [2]}], "n": 1}
    contexts = [TaskContext("j", "t", 1, f"t{n}", n, 1, given) for n in range(2)]
    changed = contexts[0].job_parameters
    changed["n"] = 2
    changed["list"][1]["deep"].append(3)

    assert contexts[0].job_parameters is changed
    assert contexts[1].job_parameters == given == {"list": [1, {"deep": [2]}], "n": 1}
    assert json.loads(json.dumps(changed))["list"] == [1, {"deep": [2, 3]}]
    assert copied(changed) == changed


def test_progress_is_kept_as_plain_values_whatever_is_given():
    """One that could not be stored would keep every lease of the process from being renewed."""
    reports = []
    context = TaskContext("j", "t", 1, "t", 0, 1, {}, _report=reports.append)
    for percent, message in ((Decimal(7), "a\x00\ud800"), (5, RaisesInText()), (5.5, "x" * 1_000_000)):
        context.progress(percent, message)

    assert [one["percent"] for one in reports] == [7.0, 5, 5.5]
    assert all(len(encode_storable(one)) < 5000 for one in reports)
    for percent in (float("nan"), float("inf"), -1, "many"):
        with pytest.raises(ValueError, match=r"percent|could not convert"):
            context.progress(percent)


# --- the tasks of one message ---


class AllRenewed:
    def renew_leases(self, held):
        return {(lease.lease_id, lease.task_id): LeaseOutcome.RENEWED for lease in held}

    def is_any_stopping(self, job_ids):
        del job_ids
        return False


def outcomes_of(handler, names):
    """One batch over a handler, in real threads; it ends, or the test does not."""
    catalog = SimpleNamespace(find_handler=lambda _: SimpleNamespace(function=handler, queue="tasks"))
    job = SimpleNamespace(job_id="j", job_type="x", run=1, parameters={}, correlation_id="c")
    stage = StageDefinition(number=1, name="s", task_type="work", parallelism="single")
    keeper = LeaseKeeper(AllRenewed())
    tasks = [ClaimedRow(name, ClaimOutcome.CLAIMED, 1, 0, "work", 0, None, {}) for name in names]
    attempts = Attempts(
        job, stage, uuid4(), tasks, catalog=catalog, results=SimpleNamespace(), keeper=keeper, most_bytes=1000
    )
    batch = TaskBatch(attempts, TaskSlots(2))
    with attempts:
        found = {one.task.task_id: one for group in batch.outcomes() for one in group}
    assert keeper.held() == []
    return found


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("neighbours", [[], ["a", "b", "c"]], ids=["alone", "among others"])
def test_strange_task_has_an_outcome_and_its_neighbours_go_on(name, neighbours):
    def handler(parameters, context):
        if context.task_id == "strange":
            raise made_error(name)
        return {"fine": True}

    found = outcomes_of(handler, ["strange", *neighbours])

    assert is_storable(found["strange"].failure)
    assert all(found[one].result is not None for one in neighbours)


class BadMapping(dict):
    def items(self):
        raise SystemExit(1)

    __iter__ = values = items


class BadItems(dict):
    def items(self, *_):
        raise KeyboardInterrupt


async def coroutine():
    return {}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda: BadMapping(a=1), "sys.exit(1)"),
        (lambda: BadItems(a=1), "KeyboardInterrupt"),
        (coroutine, "found a coroutine; write an ordinary function"),
        (lambda: (one for one in [1]), "found a generator, of which nothing has run"),
        (lambda: {1: 2}, "result: expected names that are str, found int 1"),
        (lambda: {"a": "x" * 1000}, "expected at most 1,000 bytes of JSON, found 1,008"),
        (lambda: {"success": False, "error": "a\x00b", "error_type": "T\ud800"}, "a\N{REPLACEMENT CHARACTER}b"),
        (lambda: {"success": False, "error": RaisesInText()}, "whose text cannot be read: SystemExit"),
        (lambda: {"success": False, "error": "busy", "retry_after_seconds": "soon"}, "found 'soon'"),
        (lambda: {"success": False, "error": "x" * 20_000_000}, "[cut here: 20,000,000 characters in all]"),
    ],
)
def test_strange_return_value_is_a_failure_that_says_why(returned, said):
    found = outcomes_of(lambda *_: returned(), ["one"])

    assert said in found["one"].failure.message
    assert is_storable(found["one"].failure)


def test_log_that_breaks_holds_nothing_up(monkeypatch):
    class Broken(logging.Handler):
        def emit(self, record):
            raise SystemExit(1)

    handler = Broken()
    logging.getLogger("core.running.attempts").addHandler(handler)
    try:
        found = outcomes_of(raising(lambda: ValueError("bad")), ["a", "b", "c"])
    finally:
        logging.getLogger("core.running.attempts").removeHandler(handler)

    assert {one.failure.message for one in found.values()} == {"bad"}


def test_attempt_has_an_outcome_even_where_none_can_be_made(monkeypatch):
    """Memory is used up while the failure is being written down."""
    monkeypatch.setattr(author_code, "classify", raising(MemoryError))
    monkeypatch.setattr(attempts_module, "classify", raising(MemoryError))

    found = outcomes_of(raising(lambda: PermanentTaskError("bad")), ["a", "b", "c"])

    assert {one.failure.error_type for one in found.values()} == {"AttemptUntold"}


def test_batch_runs_where_the_system_gives_no_thread(monkeypatch):
    def no_thread(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(task_batch, "_reserve", SimpleNamespace(start=no_thread))

    found = outcomes_of(lambda *_: {"fine": True}, ["a", "b", "c"])

    assert all(one.result is not None for one in found.values())


def test_thread_that_runs_a_call_is_used_again_whatever_the_call_raises():
    reserve, said = ThreadReserve("test"), queue.SimpleQueue()
    reserve.start(raising(lambda: SystemExit(1)))
    reserve.start(lambda: said.put("ran"))

    assert said.get(timeout=60) == "ran"


def test_log_tells_what_is_stored_of_an_attempt(caplog):
    outcomes_of(raising(NoText), ["a"])

    (record,) = [one for one in caplog.records if one.message == "task_attempt_failed"]
    assert (record.job_id, record.run, record.stage, record.task_id, record.attempt) == ("j", 1, 1, "a", 1)
    assert (record.correlation_id, record.error_type) == ("c", "NoText")
    assert record.duration_seconds >= 0
    assert "in run" in str(record.exc_info[1])


def test_log_shows_the_beginning_of_a_long_message_in_one_line(caplog):
    outcomes_of(raising(lambda: ValueError("bad\nline " + "x" * 64_000)), ["a"])

    (record,) = [one for one in caplog.records if one.message == "task_attempt_failed"]
    first = str(record.exc_info[1]).splitlines()[0]
    assert first.startswith("ValueError: bad line xxx")
    assert first.endswith("KB in all)")
    assert len(first) < 2100


def test_what_a_forked_child_leaves_by_is_told_without_credentials():
    script = (
        "import os\n"
        "from core.authors.author_code import call_author\n"
        "def fork():\n"
        "    if os.fork() == 0:\n"
        "        raise OSError('no answer of https://a/c?sv=1&sig=hushhush')\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "call_author(fork)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    assert "OSError: no answer of https://a/c?sv=1&sig=***" in done.stderr
    assert "hush" not in done.stderr


# --- what an author's code leaves behind ---

_LEFT = ContextVar("left", default=None)


def test_nothing_that_a_handler_sets_in_its_context_is_seen_by_another():
    """The precision of `decimal` is there too: another job's sums would be wrong in silence."""

    def handler(parameters, context):
        seen = [_LEFT.get(), getcontext().prec]
        _LEFT.set(context.task_id)
        getcontext().prec = 3
        return {"seen": seen}

    usual = [None, getcontext().prec]
    found = outcomes_of(handler, list("abcdef"))
    assert [json.loads(one.result)["seen"] for one in found.values()] == [usual] * 6
    call_author(_LEFT.set, "left")
    assert _LEFT.get() is None


def test_steps_of_a_generator_have_one_context():
    def items():
        token = _LEFT.set("begun")
        yield _LEFT.get()
        yield _LEFT.get()
        _LEFT.reset(token)
        yield _LEFT.get()

    assert list(author_items("items", lambda _, item: item, items)) == ["begun", "begun", None]
    assert _LEFT.get() is None


def test_process_that_is_profiled_fails_no_call():
    """The profiler of cProfile is no function: to set it again was a TypeError, and each task had failed."""
    profile = cProfile.Profile()
    profile.enable()
    try:
        assert call_author(lambda: 7) == 7
        call_author(sys.setprofile, None)
        assert call_author(lambda: 8) == 8
    finally:
        profile.disable()


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_handler_that_lowers_the_recursion_limit_breaks_no_later_call(ends):
    usual = sys.getrecursionlimit()

    def lower():
        sys.setrecursionlimit(usual - 100)
        if ends == "raises":
            raise ValueError

    try:
        with suppress(AuthorError):
            call_author(lower)
        assert sys.getrecursionlimit() == usual
    finally:
        sys.setrecursionlimit(usual)


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_handler_that_slows_its_process_down_slows_no_later_call(ends):
    """Without the collector memory grows; with a long interval, heartbeats wait for a handler that computes."""
    usual = sys.getswitchinterval()

    def slow_down():
        gc.disable()
        sys.setswitchinterval(100)
        if ends == "raises":
            raise ValueError

    try:
        with suppress(AuthorError):
            call_author(slow_down)
        assert (gc.isenabled(), sys.getswitchinterval()) == (True, usual)
    finally:
        gc.enable()
        sys.setswitchinterval(usual)


@pytest.mark.parametrize("module", [threading, sys])
def test_handler_that_leaves_no_hook_for_exceptions_prevents_no_later_thread(module, monkeypatch):
    monkeypatch.setattr(module, "excepthook", module.excepthook)
    call_author(setattr, module, "excepthook", None)
    assert threading.Thread(target=int) is not None


def test_handler_that_asks_for_stacks_that_nobody_gives_prevents_no_later_thread():
    """Heartbeats could not be started, so that leases ran out under tasks that went on."""
    usual = threading.stack_size()
    try:
        call_author(threading.stack_size, 1 << 46)
        assert threading.stack_size() == usual
    finally:
        threading.stack_size(usual)


@pytest.mark.parametrize("name", ["dumps", "loads"])
def test_what_a_handler_puts_in_the_place_of_json_changes_no_job(name, monkeypatch):
    """`functools.partial(json.dumps, indent=2)` made another job of the same parameters."""
    expected = job_id_for("t", {"a": "\u00e9", "b": 1.5}), encode_storable({"b": [1]})
    monkeypatch.setattr(json, name, lambda *_, **__: 1 / 0)
    assert (job_id_for("t", {"b": 1.5, "a": "\u00e9"}), encode_storable({"b": [1]})) == expected
    for source in [each for folder in ("core/**", "infrastructure/**", "jobs") for each in ROOT.glob(f"{folder}/*.py")]:
        assert f"json.{name}(" not in source.read_text(encoding="utf-8"), source


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_tracers_and_profilers_that_a_handler_leaves_meet_no_later_thread(ends):
    before = sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()

    def hook(*_):
        raise RuntimeError

    def leave():
        threading.settrace(hook)
        threading.setprofile(hook)
        if ends == "raises":
            raise ValueError
        sys.settrace(hook)

    try:
        with suppress(AuthorError):
            call_author(leave)
        assert (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()) == before
        ran = threading.Event()
        started = threading.Thread(target=ran.set)
        started.start()
        started.join()
        assert ran.is_set()
    finally:
        sys.settrace(before[0])
        threading.settrace(before[2])
        threading.setprofile(before[3])
