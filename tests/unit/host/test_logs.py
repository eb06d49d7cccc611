"""What a log line of the local host shows."""

import contextvars
import logging

import pytest

from coremachine.local.host.logs import CategoryLevels, JsonFormatter, current_function, line_formatter


def line_of(**extra):
    record = logging.makeLogRecord({"name": "core.x", "levelname": "INFO", "msg": "task_completed", **extra})
    return line_formatter("worker 1").format(record)


def test_time_is_an_instant_in_utc():
    assert line_of(created=1767322800.25, msecs=250.0).startswith("2026-01-02T03:00:00.250Z INFO ")


def test_fields_of_the_record_stand_behind_its_message():
    line = line_of(job_id="3f2a", duration_seconds=0.5, note="two words", stage=None)
    assert line.endswith('[worker 1] core.x: task_completed job_id=3f2a duration_seconds=0.5 note="two words"')


def test_long_values_are_cut():
    assert len(line_of(task_ids=[f"s1-{number:06d}" for number in range(1000)])) < 500


FORGED = "x\n09:00:00.000 INFO    [worker 0] core.x: job_completed"


@pytest.mark.parametrize(
    "name",
    [
        FORGED,
        "\r\x1b[2K",
        "\x1b]8;;http://x\x07",
        "a\u2028b",
        "\u202etxt.exe",
        "\x9b31m",
        "\x7f",
        "\x00",
        "\ud800",
        "a\u2003b",
    ],
)
def test_name_of_a_task_makes_no_line_and_no_escape(name):
    for line in (line_of(task=name), line_of(msg=name), line_of(names=[name]), line_of(**{f"f{name}": 1})):
        assert line.isprintable()
        assert "\\" in line


def test_name_makes_no_field_of_its_own():
    line = line_of(task='a job_id=other "x" y=1')
    assert line.endswith('task="a job_id=other \\"x\\" y=1"')


def test_text_of_an_exception_makes_no_line_of_its_own():
    record = logging.LogRecord(
        "x", logging.ERROR, "x", 1, "failed", (), (ValueError, ValueError(f"{FORGED}\x1b[31m"), None)
    )
    first, *others = line_formatter("worker 1").format(record).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def record_of(name: str, level: int = logging.INFO, args: tuple = ()):
    return logging.makeLogRecord({"name": name, "levelno": level, "msg": "m", "args": args})


def test_level_of_the_longest_category_counts():
    levels = CategoryLevels(
        "WARNING", {"function": "ERROR", "function.orders": "INFO", "function.orders.user": "DEBUG"}
    )
    dispatcher = "coremachine.local.host.dispatcher"
    assert levels.lowest == logging.DEBUG
    assert levels.filter(record_of(dispatcher, args=("orders", "id")))
    assert not levels.filter(record_of(dispatcher, args=("others", "id")))
    assert not levels.filter(record_of("coremachine.local.host.worker"))
    assert not levels.filter(record_of("shop"))
    context = contextvars.copy_context()
    context.run(current_function.set, "Orders")
    assert context.run(levels.filter, record_of("shop", logging.DEBUG))
    context.run(current_function.set, "others")
    assert not context.run(levels.filter, record_of("shop", logging.WARNING))


class Mute:
    def __repr__(self):
        raise RuntimeError

    __str__ = __repr__


@pytest.mark.parametrize("make", [line_formatter, JsonFormatter])
def test_what_cannot_be_shown_costs_no_line(make):
    """A failed call whose exception has a `__str__` that fails left no trace of the function's name."""
    failing = {"name": "x", "levelname": "ERROR", "msg": "failed function=%s error=%r", "args": ("f", Mute())}
    line = make("worker 0").format(logging.makeLogRecord({**failing, "field": Mute()}))
    assert "failed function=%s error=%r with arguments that do not fit: f, <Mute whose __repr__ raised" in line
    assert "too few" in make("worker 0").format(logging.makeLogRecord({"msg": "too few %s %s", "args": ("one",)}))
