"""What the API answers becomes the models that the client promises: the app in this process, on fake services."""

import asyncio

import httpx
import pytest

from coremachine.client import AsyncClient, NotFound, WrongArgument
from tests.unit.triggers.fakes import JOB_ID, FakeServices
from triggers.api import create_api


def ask(use):
    """What `use` makes of a client of the app."""

    async def run():
        services = FakeServices()
        transport = httpx.ASGITransport(app=create_api(lambda: services))
        async with AsyncClient("http://jobs", transport=transport) as client:
            return await use(client)

    return asyncio.run(run())


async def first(listing):
    return await anext(aiter(listing))


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda client: client.submit_job("hello_world", {"n": 3}), "SubmittedJob"),
        (lambda client: client.get_job(JOB_ID), "JobAnswer"),
        (lambda client: first(client.list_jobs(tag="team=geo", status=["failed", "queued"])), "JobListItem"),
        (lambda client: first(client.list_tasks(JOB_ID, stage=1)), "TaskSummary"),
        (lambda client: first(client.list_events(JOB_ID, limit=5)), "JobEvent"),
        (lambda client: first(client.list_job_types()), "JobTypeDetail"),
        (lambda client: client.pause_job(JOB_ID, reason="disk is full"), "JobActionAnswer"),
        (lambda client: client.cancel_job(JOB_ID, cancel_grace_seconds=5), "CancelledJob"),
        (lambda client: client.rerun_job(JOB_ID, mode="failed", expected_run=1), "RerunAnswer"),
        (lambda client: client.get_submission_schema(), "dict"),
        (lambda client: client.readyz(), "Readiness"),
    ],
)
def test_answer_is_its_model(use, name):
    assert type(ask(use)).__name__ == name


def test_what_is_not_there_is_named():
    with pytest.raises(NotFound) as caught:
        ask(lambda client: client.get_job("cd" * 32))
    assert caught.value.code == "unknown_job"


def test_name_with_a_question_mark_is_a_name():
    with pytest.raises(NotFound) as caught:
        ask(lambda client: client.submit_job("a?b=c"))
    assert caught.value.code == "unknown_job_type"


def test_part_that_no_path_can_have_is_refused():
    with pytest.raises(WrongArgument):
        ask(lambda client: client.get_task(JOB_ID, "."))
