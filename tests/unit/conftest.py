"""Whole jobs in a test's process, for tests that make a registry of their own."""

import pytest

from coremachine.testing import JobRunner


@pytest.fixture
def run_job():
    """Submit a job and run it to its end: `run_job(registry, job_type, parameters) -> JobResult`."""

    def run(registry, job_type, parameters):
        return JobRunner(registry=registry, queues=["tasks", "raster"]).run(job_type, parameters)

    return run
