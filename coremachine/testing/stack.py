"""Jobs on the whole local stack, with the results that tests of one process get."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from coremachine.local.app_folder import BUILT_IN_APP, find_app
from coremachine.local.stack import LocalStack
from coremachine.testing.results import JobResult, read_result
from coremachine.testing.runner import JobStuck, note_finished
from infrastructure.postgresql import create_pool
from jobs.base import JobBase

_WAIT_SECONDS = 20


class StackRunner:
    """Submits jobs to a running stack over HTTP, as users do. Its app has the jobs: `COREMACHINE_JOBS` names them."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack

    def run(
        self,
        job: type[JobBase] | str,
        parameters: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float = 120.0,
    ) -> JobResult:
        """Submit a new job and wait for its end.

        Args:
            job: A job class of the app, or its job type.

        Raises:
            AssertionError: The stack refuses the submission.
            JobStuck: The job has not ended in time.
        """
        job_type = job if isinstance(job, str) else job.job_type
        until = time.monotonic() + timeout_seconds
        with httpx.Client(base_url=f"{self.stack.url}/api/", timeout=_WAIT_SECONDS + 30) as client:
            answer = client.post(f"jobs/submit/{job_type}", params={"force": True}, json=dict(parameters or {}))
            if answer.is_error:
                raise AssertionError(f"expected {job_type} to be accepted, found {answer.status_code}: {answer.text}")
            job_id = answer.json()["job_id"]
            while not self._has_ended(client, job_id):
                if time.monotonic() > until:
                    raise JobStuck(f"expected {job_type} to end within {timeout_seconds:g} s, found it open")
        with create_pool(self.stack.info.database_url, max_size=2) as pool:
            return note_finished(read_result(pool, job_id))

    @staticmethod
    def _has_ended(client: httpx.Client, job_id: str) -> bool:
        answer = client.get(f"jobs/{job_id}", params={"wait": _WAIT_SECONDS}).raise_for_status()
        return answer.json()["finished_at"] is not None


def app_of(folder: Path) -> Path:
    """The function app that tests below this folder are of; the one of this package where there is none."""
    return find_app(folder) or BUILT_IN_APP
