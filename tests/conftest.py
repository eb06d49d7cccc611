"""One real PostgreSQL for all tests that want one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.postgres import LocalPostgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    # Not in pytest's own temporary folder: every other run of pytest closes that to all users but its own, and a
    # server that runs as another user (ours does when root starts it) panics at its next checkpoint.
    with (
        tempfile.TemporaryDirectory(prefix="coremachine-") as folder,
        LocalPostgres(Path(folder) / "data", keep=False) as url,
    ):
        yield url
