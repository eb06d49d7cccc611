"""Where an explanation changes: the last moment of one and the first of the next, and what has no time to name."""

import re
from dataclasses import replace

import pytest

from core.models.insight import InterruptedTask, RetryFacts
from core.models.status import JobStatus
from core.operating.explain import _span, explain
from tests.unit.test_explain import (
    CASES,
    DUE,
    JOB,
    NOW,
    OPEN,
    ago,
    ahead,
    facts,
    lease,
    queue,
    timedelta,
    unknown,
)


def codes(rows):
    return {finding.code for finding in explain(rows)}


def finding_of(rows, code):
    (found,) = (finding for finding in explain(rows) if finding.code == code)
    return found


@pytest.mark.parametrize(
    ("waiting_since", "is_late"), [(299.9, False), (300, False), (300.1, True)], ids=["before", "at", "after"]
)
@pytest.mark.parametrize(
    "rows",
    [
        lambda moment: facts("queued", updated_at=moment),
        lambda moment: facts("finalizing", updated_at=ago(900), due_at=moment),
        lambda moment: facts("processing", updated_at=moment, open_count=0),
        lambda moment: facts("cancelling", updated_at=moment, open_count=0),
        lambda moment: facts("processing", retries=RetryFacts(1, moment, 1, ()), **OPEN),
        lambda moment: facts("processing", leases=(lease(expired=1, first_expires_at=moment),), **OPEN),
    ],
    ids=["not announced", "due", "stage over", "cancelling", "retry", "lease"],
)
def test_janitor_is_late_after_five_minutes(rows, waiting_since, is_late):
    assert ("janitor_late" in codes(rows(ago(waiting_since)))) == is_late


def test_what_waits_longest_for_the_janitor_is_named():
    rows = facts("processing", retries=DUE, leases=(lease(expired=1, first_expires_at=ago(700)),), **OPEN)
    assert finding_of(rows, "janitor_late").since == ago(700)


@pytest.mark.parametrize(
    "rows",
    [
        facts("queued", updated_at=ago(900), announced_at=ago(10)),
        facts("processing", updated_at=ago(900), **OPEN),
        facts("processing", updated_at=ago(900), open_count=1),
        facts("processing", updated_at=ago(900), retries=RetryFacts(1, ago(900), 0, ()), **OPEN),
    ],
    ids=["announced", "tasks run", "one task", "nothing unannounced"],
)
def test_old_rows_that_wait_for_no_janitor_are_no_alarm(rows):
    assert "janitor_late" not in codes(rows)


@pytest.mark.parametrize(("seconds", "severity"), [(60, "info"), (60.1, "warning"), (61, "warning")])
def test_message_is_worth_a_look_after_a_minute(seconds, severity):
    assert finding_of(facts("queued", announced_at=ago(seconds)), "step_announced").severity == severity


@pytest.mark.parametrize(("seconds", "code"), [(60, "waiting_in_queue"), (60.1, "no_worker_seen")])
def test_queue_without_a_worker_is_worth_a_look_after_a_minute(seconds, code):
    assert code in codes(facts("processing", queues=(queue(announced_at=ago(seconds)),), **OPEN))


def test_each_queue_is_explained_beside_one_that_is_worked_on():
    rows = facts("processing", queues=(queue(busy=1, owners=("app",)), queue(queue="tiles")), **OPEN)
    assert codes(rows) == {"waiting_in_queue", "no_worker_seen"}


@pytest.mark.parametrize(("ends_in", "code"), [(35, "tasks_running"), (34.9, "process_silent")])
def test_process_is_silent_after_a_third_of_its_lease_and_five_seconds(ends_in, code):
    assert code in codes(facts("processing", leases=(lease(next_expires_at=ahead(ends_in)),), **OPEN))


@pytest.mark.parametrize(
    ("rows", "is_told"),
    [
        (facts("processing", queue_deadline_at=ahead(9), open_count=1), True),
        (facts("processing", queue_deadline_at=ahead(9), open_count=0), False),
        (facts("queued", queue_deadline_at=ahead(9), open_count=0), True),
        (facts("queued", queue_deadline_at=NOW), False),
        (facts("completed", finished_at=ago(1), queue_deadline_at=ahead(9)), False),
    ],
    ids=["open tasks", "none", "not planned", "over", "ended"],
)
def test_deadline_of_what_has_not_begun_is_told_while_something_has_not(rows, is_told):
    assert ("queue_deadline" in codes(rows)) == is_told


def test_step_whose_time_has_come_is_not_held():
    assert "step_not_announced" in codes(facts("queued", due_at=NOW))


def test_status_of_a_newer_release_is_said_to_be_one():
    rows = replace(facts("processing", **OPEN), status=JobStatus.stored("hibernating"))
    found = finding_of(rows, "status_not_known")
    assert (found.severity, found.since) == ("warning", ago(5))
    assert "the job is hibernating, which this app does not know" in found.message


@pytest.mark.parametrize(
    ("waited", "left"),
    [(0, "6 h"), (21590, "10 s"), (21600, "0 s"), (30000, "0 s")],
    ids=["none", "most", "all", "more"],
)
def test_work_of_a_newer_release_fails_after_the_rest_of_its_patience(waited, left):
    rows = facts("processing", unknown_tasks=(unknown(waited_seconds=float(waited)),), **OPEN)
    assert f"It fails after {left} more of this" in finding_of(rows, "waits_for_release").advice


def interrupted(owner="app:host:7"):
    return InterruptedTask("s2-a", "tile-9", 2, owner)


@pytest.mark.parametrize(
    ("tasks", "count", "more"),
    [((interrupted(),), 1, None), ((interrupted(),), 2, "1 task more"), ((), 3, None), ((interrupted(),) * 2, 2, None)],
    ids=["all shown", "one more", "none shown", "two shown"],
)
def test_interrupted_tasks_that_are_not_shown_are_counted(tasks, count, more):
    rows = facts("processing", interrupted=tasks, interrupted_count=count, **OPEN)
    told = [finding.message for finding in explain(rows) if finding.code == "more_interrupted"]
    assert [message.startswith(more) for message in told] == ([True] if more else [])


@pytest.mark.parametrize(("owner", "told"), [("app:host:7", " (last in app:host:7)"), (None, "or lost the database")])
def test_interruption_names_the_process_if_it_is_known(owner, told):
    rows = facts("processing", interrupted=(interrupted(owner),), interrupted_count=1, **OPEN)
    assert finding_of(rows, "interrupted").message.endswith(told)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7169, "119 min"), (7200, "2 h"), (7259, "2 h"), (9000, "2 h")],
)
def test_span_is_told_in_its_usual_unit(seconds, text):
    assert _span(timedelta(seconds=seconds)) == text


def test_this_moment_is_past_and_a_time_may_be_unknown():
    assert explain(facts("completed", finished_at=NOW))[0].message == "ended 12:00:00Z (0 s ago)"
    assert explain(facts("completed", finished_at=None))[0].message == "ended at a time that is not known"


def test_every_command_names_the_job_by_twelve_letters():
    advised = " ".join(finding.advice or "" for rows, _ in CASES.values() for finding in explain(rows))
    shown = re.findall(r" ((?:ab)+a?)\b", advised)
    assert {"rerun", "resume", "failures", "dead"} <= set(re.findall(r"coremachine (\w+)", advised))
    assert set(shown) == {JOB[:12]}
