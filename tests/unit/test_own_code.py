"""A job class's own code for somebody who waits: given up when it lasts, and bounded in number."""

import threading
import time
from concurrent.futures import wait
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, field_validator

from core.advancing import dry_run
from core.authors import bounded_calls, own_code
from core.authors.author_code import READ_SECONDS
from core.authors.bounded_calls import MOST_HANGING, is_bounded
from core.authors.job_class import draft_job, first_message, validate
from core.authors.own_code import DRAFTS, MAKES_MESSAGE, VALIDATES, call_for_request
from core.errors import AuthorError, JobTypeBusy, SubmissionHangs
from core.models import TaskDefinition
from core.models.submission import SubmissionOutcome, SubmitRequest, Submitted
from core.orchestration_manager import AppRole, OrchestrationManager
from jobs.hello_world import HANDLERS, HelloWorldJob
from jobs.mixins import JobBaseMixin
from jobs.registry import Registry


class Declared(JobBaseMixin):
    parameters_schema = {}
    resource_validators = ()


class Model(BaseModel):
    n: int = 1


class Checking(Model):
    @field_validator("n")
    @classmethod
    def check(cls, value):
        return value


class Around(BaseModel):
    inner: Checking = Checking()


class Own(Declared):
    @classmethod
    def validate_job_parameters(cls, params):
        return {"thread": threading.current_thread().name, **super().validate_job_parameters(params)}


class Naming(Declared):
    @classmethod
    def generate_job_id(cls, _):
        return "ab" * 32


class Sending(Declared):
    @classmethod
    def queue_job(cls, job_id, params, *, correlation_id):
        return super().queue_job(job_id, params, correlation_id=correlation_id)


class Defining(HelloWorldJob):
    @classmethod
    def definition(cls):
        return super().definition()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(own_code, "for_requests", bounded_calls.BoundedCalls("request"))
    monkeypatch.setattr(own_code, "_known", own_code.LatestCache(9))


def with_schema(schema):
    return type("Modelled", (Declared,), {"parameters_schema": schema})


@pytest.mark.parametrize(
    ("job_class", "methods", "is_own"),
    [
        (Declared, DRAFTS | MAKES_MESSAGE, False),
        (HelloWorldJob, DRAFTS | MAKES_MESSAGE, False),
        (with_schema(Model), VALIDATES, False),
        (with_schema(Checking), VALIDATES, True),
        (with_schema(Around), VALIDATES, True),
        (Own, VALIDATES, True),
        (Naming, VALIDATES, False),
        (Naming, DRAFTS, True),
        (Defining, DRAFTS, True),
        (Sending, DRAFTS, False),
        (Sending, MAKES_MESSAGE, True),
    ],
)
def test_only_an_authors_own_code_costs_a_thread(job_class, methods, is_own):
    threads = {call_for_request("t", job_class, methods, threading.current_thread) for _ in range(2)}
    assert (threads == {threading.current_thread()}) is not is_own


def test_code_that_is_bounded_already_costs_none():
    assert validate(Own, "t", {}, 1000)["thread"] == "request"
    token = is_bounded.set(True)
    try:
        assert validate(Own, "t", {}, 1000)["thread"] == threading.current_thread().name
    finally:
        is_bounded.reset(token)


def test_what_it_raises_is_raised_where_it_is_waited_for():
    class Odd(Declared):
        @classmethod
        def validate_job_parameters(cls, _):
            raise SystemExit(4)

    with pytest.raises(AuthorError, match="SystemExit"):
        validate(Odd, "t", {}, 1000)


class Hanging:
    """Code that hangs until the test lets it go on, in the method of a job class that is named."""

    def __init__(self, method):
        self.go_on = threading.Event()

        class Job(HelloWorldJob):
            pass

        def hang(*args, **kwargs):
            assert self.go_on.wait(60)
            return getattr(HelloWorldJob, method)(*args, **kwargs)

        setattr(Job, method, staticmethod(hang))
        self.job = Job

    def draft(self):
        return draft_job(self.job, "hello_world", {}, 1000, "c")


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(bounded_calls, "CALL_SECONDS", 0)
    own_code.for_requests._reserve = made = Threads()
    return made


@pytest.fixture(params=["validate_job_parameters", "generate_job_id", "create_job_record"])
def hanging(request, threads):
    made = Hanging(request.param)
    yield made
    made.go_on.set()


def test_code_that_hangs_is_given_up_and_so_many_of_a_job_type_begin_no_more(hanging, threads, monkeypatch):
    """A `generate_job_id` that hung kept its request for ever."""
    for _ in range(MOST_HANGING):
        with pytest.raises(SubmissionHangs, match="a submission of 'hello_world' to be ready within 0 s"):
            hanging.draft()
    with pytest.raises(JobTypeBusy, match="submissions of 'hello_world' that hang in this process, found 8"):
        hanging.draft()
    monkeypatch.setattr(bounded_calls, "CALL_SECONDS", 60)
    assert "thread" in validate(Own, "other", {}, 1000)
    hanging.go_on.set()
    threads.join()
    assert hanging.draft().record.job_type == "hello_world"


def test_a_message_that_hangs_is_left_to_the_janitor(threads):
    hanging = Hanging("queue_job")
    submitted = Submitted(SubmissionOutcome.CREATED, "ab" * 32, "queued", 1, "c")
    with pytest.raises(SubmissionHangs):
        first_message(hanging.job, "hello_world", submitted, {})
    hanging.go_on.set()


@pytest.fixture
def dry_runner(monkeypatch):
    """One of a job type whose planner makes one task less than it is told to, and hangs then."""
    hangs, go_on = threading.Event(), threading.Event()

    class Planning(HelloWorldJob):
        @staticmethod
        def create_tasks_for_stage(stage, job_params, job_id, previous_results):
            for index in range(job_params["n"] - 1):
                yield TaskDefinition(name=f"n{index}")
                time.sleep(2 * READ_SECONDS)  # each is counted when it comes
            hangs.set()
            assert go_on.wait(60)

    def wait_until_it_hangs(futures, _):
        hangs.wait(60)
        return wait(futures, 0)

    monkeypatch.setattr(bounded_calls, "wait", wait_until_it_hangs)
    monkeypatch.setattr(dry_run, "for_requests", bounded_calls.BoundedCalls("request"))
    registry = Registry([Planning], HANDLERS, queues=["tasks"])
    orchestration = OrchestrationManager(registry, None, AppRole())
    yield dry_run.DryRunner(registry, SimpleNamespace(find_job=lambda _: None), orchestration)
    go_on.set()


def test_a_dry_run_whose_planner_hangs_is_given_up(dry_runner):
    """It kept its request, and one of the threads of its job type."""
    with pytest.raises(SubmissionHangs, match="a dry run of 'hello_world'"):
        dry_runner.draft(SubmitRequest("hello_world", {"n": 1}))


def test_a_dry_run_whose_planner_hangs_later_has_what_it_made(dry_runner):
    draft = dry_runner.draft(SubmitRequest("hello_world", {"n": 3}))
    assert (draft.task_count, draft.is_counted) == (2, False)


def test_without_a_thread_the_submission_waits(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(JobTypeBusy, match="found none: can't start new thread"):
        validate(Own, "t", {}, 1000)


class Threads:
    """In place of the reserve: threads whose end a test can wait for."""

    def __init__(self):
        self.all = []

    def start(self, call):
        self.all.append(threading.Thread(target=call, daemon=True))
        self.all[-1].start()

    def join(self):
        for thread in self.all:
            thread.join(60)
