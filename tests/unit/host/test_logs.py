"""What a log line of the local host shows."""

import logging

from local.host.logs import line_formatter


def line_of(**extra):
    record = logging.makeLogRecord({"name": "core.x", "levelname": "INFO", "msg": "task_completed", **extra})
    return line_formatter("worker 1").format(record)


def test_fields_of_the_record_stand_behind_its_message():
    line = line_of(job_id="3f2a", duration_seconds=0.5, note="two words", stage=None)
    assert line.endswith('[worker 1] core.x: task_completed job_id=3f2a duration_seconds=0.5 note="two words"')


def test_long_values_are_cut():
    assert len(line_of(task_ids=[f"s1-{number:06d}" for number in range(1000)])) < 500
