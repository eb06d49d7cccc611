"""A job class's own checks for somebody who waits: given up when they last, and bounded in number."""

import threading
from collections import Counter

import pytest
from pydantic import BaseModel, field_validator

from core.authors import bounded_checks
from core.authors.bounded_checks import MOST_HANGING, call_bounded, is_bounded
from core.authors.job_class import validate
from core.errors import AuthorError, JobTypeBusy, SubmissionHangs
from jobs.hello_world import HelloWorldJob
from jobs.mixins import JobBaseMixin


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


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(bounded_checks, "_hanging", Counter())
    monkeypatch.setattr(bounded_checks, "_known", bounded_checks.LatestCache(9))


def with_schema(schema):
    return type("Modelled", (Declared,), {"parameters_schema": schema})


@pytest.mark.parametrize(
    ("job_class", "has_own"),
    [
        (Declared, False),
        (HelloWorldJob, False),
        (with_schema(Model), False),
        (with_schema(Checking), True),
        (with_schema(Around), True),
        (Own, True),
    ],
)
def test_only_an_authors_own_checks_cost_a_thread(job_class, has_own):
    threads = {call_bounded("t", job_class, threading.current_thread) for _ in range(2)}
    assert (threads == {threading.current_thread()}) is not has_own


def test_checks_that_are_bounded_already_cost_none():
    assert validate(Own, "t", {}, 1000)[0]["thread"] == "validation"
    token = is_bounded.set(True)
    try:
        assert validate(Own, "t", {}, 1000)[0]["thread"] == threading.current_thread().name
    finally:
        is_bounded.reset(token)


def test_what_they_raise_is_raised_where_they_are_waited_for():
    class Odd(Declared):
        @classmethod
        def validate_job_parameters(cls, _):
            raise SystemExit(4)

    with pytest.raises(AuthorError, match="SystemExit"):
        validate(Odd, "t", {}, 1000)


def test_checks_that_hang_are_given_up_and_so_many_of_a_job_type_begin_no_more(monkeypatch):
    go_on, threads = threading.Event(), []

    class Hanging(Declared):
        @classmethod
        def validate_job_parameters(cls, _):
            threads.append(threading.current_thread())
            assert go_on.wait(60)
            return {}

    monkeypatch.setattr(bounded_checks, "CHECK_SECONDS", 0)
    try:
        for _ in range(MOST_HANGING):
            with pytest.raises(SubmissionHangs, match="parameters of 'slow' to be validated within 0 s"):
                validate(Hanging, "slow", {}, 1000)
        with pytest.raises(JobTypeBusy, match="validations of 'slow' that hang in this process, found 8"):
            validate(Hanging, "slow", {}, 1000)
        monkeypatch.setattr(bounded_checks, "CHECK_SECONDS", 60)
        assert validate(Own, "other", {}, 1000)[0]["thread"] == "validation"
    finally:
        go_on.set()
    for thread in threads:
        thread.join(60)
    assert validate(Hanging, "slow", {}, 1000)[0] == {}


def test_without_a_thread_the_submission_waits(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(JobTypeBusy, match="found none: can't start new thread"):
        validate(Own, "t", {}, 1000)
