"""Submissions that nobody waits for: what hangs is given up, and others go on."""

import threading
from concurrent.futures import wait

import pytest

from core.advancing.bounded_submission import BoundedSubmitter
from core.authors import bounded_calls
from core.authors.bounded_calls import MOST_HANGING
from core.errors import JobTypeBusy, SubmissionHangs
from core.models.submission import Submission, SubmissionOutcome, SubmitRequest

GOOD = SubmitRequest("t", {})
HANGS = SubmitRequest("t", {"hangs": "validating"})
HANGS_LATE = SubmitRequest("t", {"hangs": "written"})
ANSWER = Submission("ab" * 32, "t", True, "queued", 1, "c", SubmissionOutcome.CREATED, None)


class Submitter:
    """Hangs where the request says so, until the test lets it go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.has_written = threading.Event()
        self.written = []

    def submit(self, request, *, before_write):
        hangs = request.parameters.get("hangs")
        if hangs == "validating":
            self.go_on.wait(20)
        before_write()
        self.written.append(request)
        self.has_written.set()
        if hangs == "written":
            self.go_on.wait(20)
        return ANSWER


class Threads:
    """In place of the reserve: threads whose end a test can wait for."""

    def __init__(self) -> None:
        self.all = []

    def start(self, call):
        self.all.append(threading.Thread(target=call, daemon=True))
        self.all[-1].start()

    def join(self):
        for thread in self.all:
            thread.join(20)


@pytest.fixture
def submitter():
    author = Submitter()
    yield author
    author.go_on.set()


@pytest.fixture
def threads():
    return Threads()


@pytest.fixture
def bounded(submitter, threads):
    made = BoundedSubmitter(submitter)
    made._calls._reserve = threads
    return made


def hang(bounded, **options):
    with pytest.raises(SubmissionHangs) as error:
        bounded.submit(HANGS, seconds=0, **options)
    return error.value.failure.message


def test_others_of_its_type_are_submitted_while_one_hangs(bounded):
    assert "'t' to be ready within 0 s, found that it still runs; nothing was written" in hang(bounded)
    assert bounded.submit(GOOD) == ANSWER


def test_beyond_a_number_that_hang_others_of_the_type_wait_until_one_ends(bounded, submitter, threads):
    for _ in range(MOST_HANGING):
        hang(bounded)
    with pytest.raises(JobTypeBusy, match=rf"fewer than {MOST_HANGING} submissions of 't'.*found {MOST_HANGING}, the "):
        bounded.submit(GOOD)
    assert len(threads.all) == MOST_HANGING
    assert bounded.submit(SubmitRequest("other", {})) == ANSWER
    submitter.go_on.set()
    threads.join()
    assert bounded.submit(GOOD) == ANSWER


def test_what_was_given_up_writes_nothing_when_it_ends_and_the_log_has_it(bounded, submitter, threads, caplog):
    """It made a job whose own message was a dead letter."""
    hang(bounded)
    submitter.go_on.set()
    threads.join()
    assert submitter.written == []
    (record,) = caplog.records
    assert (record.message, record.job_type, record.outcome) == ("submission_ended_late", "t", "nothing_written")


@pytest.mark.parametrize("ends", [True, False])
def test_what_began_to_write_is_not_given_up(bounded, submitter, threads, monkeypatch, caplog, ends):
    """The time is over just after it began: its answer is waited for. If none comes, it is to be submitted again."""

    def time_is_over(futures, seconds):
        submitter.has_written.wait(20)
        if seconds != 0 and ends:
            submitter.go_on.set()
            return wait(futures, 20)
        return wait(futures, 0)

    monkeypatch.setattr(bounded_calls, "wait", time_is_over)
    if ends:
        assert bounded.submit(HANGS_LATE, seconds=0) == ANSWER
        return
    with pytest.raises(JobTypeBusy, match="began to write"):
        bounded.submit(HANGS_LATE, source="s", seconds=0)
    monkeypatch.undo()
    # The next one of the same source finds the job.
    assert bounded.submit(GOOD, source="s") == ANSWER
    submitter.go_on.set()
    threads.join()
    (record,) = caplog.records
    assert (record.message, record.outcome) == ("submission_ended_late", f"created {ANSWER.job_id}")


def test_of_one_source_one_submission_hangs_at_most(bounded, threads):
    """A schedule whose job type hangs would use up the threads of all others of the type."""
    hang(bounded, source="schedule a")
    assert "an earlier submission of 't' by schedule a to have ended" in hang(bounded, source="schedule a")
    assert len(threads.all) == 1
    assert bounded.submit(GOOD, source="schedule b") == ANSWER


def test_a_submission_waits_while_the_system_gives_no_thread(bounded, threads, monkeypatch):
    def refuse(call):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start", refuse)
    with pytest.raises(JobTypeBusy, match="found none: can't start new thread"):
        bounded.submit(GOOD)
