"""One real PostgreSQL for all tests that want one, and a database of its own, cloned from a template, for each."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from infrastructure.postgresql import Pool, create_pool
from infrastructure.verify import verify
from local.postgres import LocalPostgres
from tests.databases import Engine, clone_template, make_template, set_defaults
from tests.pgbouncer import pgbouncer


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    # Not in pytest's own temporary folder: every other run of pytest closes that to all users but its own, and a
    # server that runs as another user (ours does when root starts it) panics at its next checkpoint.
    with (
        tempfile.TemporaryDirectory(prefix="coremachine-") as folder,
        LocalPostgres(Path(folder) / "data", keep=False) as url,
    ):
        set_defaults(url)
        yield url


@pytest.fixture(scope="session")
def template_url(postgres_url: str) -> str:
    return make_template(postgres_url)


@pytest.fixture
def database_url(template_url: str) -> Iterator[str]:
    with clone_template(template_url) as url:
        yield url


@pytest.fixture(scope="session")
def pooler(postgres_url: str) -> Iterator[dict[str, Any]]:
    """Where the engine's tests connect instead, if COREMACHINE_TEST_POOLER says so."""
    if not os.environ.get("COREMACHINE_TEST_POOLER"):
        yield {}
        return
    with (
        tempfile.TemporaryDirectory(prefix="coremachine-") as folder,
        pgbouncer(postgres_url, Path(folder)) as address,
    ):
        yield conninfo_to_dict(address)


@pytest.fixture
def pool(database_url: str, pooler: dict[str, Any]) -> Iterator[Pool]:
    with create_pool(make_conninfo(database_url, **pooler), max_size=20) as pool:
        yield pool


@pytest.fixture
def engine(pool: Pool, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """After each test all invariants hold, unless it breaks them by hand (marker `breaks_invariants`)."""
    yield Engine(pool)
    if request.node.get_closest_marker("breaks_invariants") is None:
        assert verify(pool) == []
