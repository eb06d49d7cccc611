"""The pytest plugin: fixtures, and the errors of jobs in the report of a test that fails.

It is loaded wherever CoreMachine is installed, so nothing of it is imported before a test asks for it.
"""

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from coremachine.testing.runner import JobRunner
    from coremachine.testing.stack import StackRunner

_RUNNER = f"{__package__}.runner"
_DATABASE = f"{__package__}.database"


@pytest.fixture
def job_runner() -> "JobRunner":
    """An engine for this test: `job_runner.run(MyJob, {...})`, `job_runner.clock.advance(3600)`."""
    from coremachine.testing.runner import JobRunner  # noqa: PLC0415 - most tests run no jobs

    return JobRunner()


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator["StackRunner"]:
    """The whole local stack, started once: `stack.run(MyJob, {...})`. Its app is that of the tests' folder."""
    from coremachine.local.stack import LocalStack  # noqa: PLC0415 - as above
    from coremachine.testing.stack import StackRunner, app_of  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("coremachine") / "stack"
    app = app_of(pytestconfig.rootpath)
    with LocalStack(folder, http_port=0, amqp_port=0, admin_port=0, workers=1, app_dir=app) as running:
        yield StackRunner(running)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: "pytest.CallInfo[None]") -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what failed in the jobs of a test that fails."""
    report = yield
    runner = sys.modules.get(_RUNNER)  # not imported: the test ran no job
    if runner is not None and call.when == "call":
        for result in runner.take_finished():
            if report.failed and (result.error is not None or result.failures):
                report.sections.append((f"CoreMachine job {result.job_type}", result.report))
    return report


def pytest_unconfigure() -> None:
    """End the tests' database server."""
    database = sys.modules.get(_DATABASE)
    if database is not None:
        database.close_session_database()
