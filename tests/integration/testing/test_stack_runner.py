"""The same jobs on a whole stack and on the engine alone."""

from pathlib import Path

import pytest

from coremachine.local.stack import LocalStack
from coremachine.testing import run_job
from coremachine.testing.stack import StackRunner
from jobs.hello_world import HelloWorldJob
from tests.integration.testing.described import described

EXAMPLE = Path(__file__).parents[3] / "examples" / "log_analytics"


@pytest.mark.acceptance
def test_the_whole_stack_gives_the_same_results(stack):
    parameters = {"n": 5, "message": "hi"}
    expected = described(run_job(HelloWorldJob, parameters))
    for job in (HelloWorldJob, "hello_world"):
        assert described(stack.run(job, parameters)) == expected
    with pytest.raises(AssertionError, match="expected hello_world to be accepted, found 4"):
        stack.run("hello_world", {"nn": 1})


@pytest.fixture(scope="module")
def logs_on_a_stack(tmp_path_factory):
    """A stack with the job of an example, as a user would start one."""
    folder = tmp_path_factory.mktemp("logs")
    settings = {"COREMACHINE_JOBS": "log_analytics", "PYTHONPATH": str(EXAMPLE)}
    with LocalStack(folder, http_port=0, amqp_port=0, admin_port=0, workers=1, environment=settings) as running:
        yield StackRunner(running)


@pytest.mark.acceptance
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_declared_job_gives_the_same_results_on_a_stack(logs_on_a_stack, is_damaged, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from log_analytics import LogAnalytics

    request = '"GET /a HTTP/1.1" 200 \n'
    for number in range(3):
        (tmp_path / f"{number}.log").write_text(request * number)
    if is_damaged:
        (tmp_path / "bad.log.gz").write_bytes(b"no gzip")
    expected = described(run_job(LogAnalytics, {"folder": str(tmp_path)}))
    found = described(logs_on_a_stack.run(LogAnalytics, {"folder": str(tmp_path)}))
    # Which tasks a failing stage had begun when it failed is no part of the result.
    assert {**found, "stages": None} == {**expected, "stages": None} if is_damaged else found == expected
