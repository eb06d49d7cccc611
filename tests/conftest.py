"""One real PostgreSQL for all tests that want one, and a database of its own, cloned from a template, for each.

Beside each other (`pytest -n`), each process has a server of its own.
"""

import gc
import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from xdist.scheduler import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling

from core.authors.intact import intact
from coremachine.local.postgres import LocalPostgres
from coremachine.testing.database import (
    SERVER_VARIABLE,
    close_session_database,
    folder_for_servers,
    prefix_of_folders,
)
from infrastructure.postgresql import Pool, create_pool
from infrastructure.verify import verify
from tests.databases import Engine, LentDatabase, clone_template, make_template, set_defaults
from tests.model_data import make_model
from tests.pgbouncer import pgbouncer
from tests.rewriting import rewrite_ahead
from tests.sockets import collect_quietly

# No test asks the internet. Each HTTP client, in each process, would read the certificates of its authorities: 30 ms.
# Whatever the environment names, they are one whose key is lost: with none, some clients could not be made.
if os.environ.get("COREMACHINE_TEST_INSTALL") != "real":
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "data" / "authority.pem")
    os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent / "data")

# There are none. Each process with a model, of hundreds that tests start, would look for them in all packages: 30 ms.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

# Tests replace what they like: no process of theirs ends for that.
intact._end = lambda _: None

# How fast an example is, is the machine's matter. Each run has others, so that few of them see as much in some runs.
settings.register_profile("tests", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Each starts whole stacks and kills parts of them: more than two at a time would wait for each other's processor.
# The first group mostly waits for what it broke, the second one works.
BREAK_STACKS = (
    "tests/acceptance/test_hostile_handlers.py",
    "tests/acceptance/test_outages.py",
    "tests/acceptance/test_processes_that_end.py",
    "tests/acceptance/test_releases.py",
    "tests/chaos/test_chaos_short.py",
)
USE_STACKS = ("tests/acceptance/", "tests/integration/testing/test_stack_runner.py")
# What takes longest: parts of stacks are killed, a user's whole way is gone, requests are generated.
LONG = (
    *BREAK_STACKS,
    "tests/acceptance/test_fleet.py",
    "tests/chaos/test_fault_points.py",
    "tests/acceptance/test_documents.py",
    "tests/acceptance/test_project.py",
    "tests/acceptance/test_servicebus_package.py",
    "tests/acceptance/test_wheel.py",
    "tests/integration/adapters/test_pooler.py",
    "tests/integration/broker/test_durable_kill.py",
    "tests/integration/triggers/test_described_api.py",
    "tests/unit/docs/test_typed.py",
)
# Files that take longest of all others: what begins late ends last, while the other processes have nothing to do.
FIRST = (
    *BREAK_STACKS,
    *USE_STACKS,
    "tests/integration/ui/test_dashboard.py",
    "tests/integration/engine/test_schedules.py",
    "tests/integration/telemetry/test_one_trace.py",
    "tests/integration/engine/test_window_orders.py",
    "tests/integration/cli/test_azure_scripts.py",
    "tests/unit/raster/",
    "tests/integration/",
)
MOST_PROCESSES = 8
MAY_HAVE_LEFT_SOCKETS = pytest.StashKey[bool]()


class ByFile(LoadScopeScheduling):
    """A file is one process's, for what its module shares; they begin in the order of `FIRST`."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(BREAK_STACKS):
            return "broken stacks"
        return "used stacks" if nodeid.startswith(USE_STACKS) else nodeid.split("::", 1)[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before pytest itself leaves out what `-m` does not name."""
    for item in items:
        if item.nodeid.startswith(LONG):
            item.add_marker(pytest.mark.long)
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    # Which pytest puts together each time that it is asked for.
    name = item.nodeid
    return next((place for place, path in enumerate(FIRST) if name.startswith(path)), len(FIRST))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """The modules and the items stay to the end: no collection of garbage looks at them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    make_model(config)
    rewrite_ahead(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return ByFile(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: two more than there are processors, since many tests wait."""
    return min((os.cpu_count() or 1) + 2, MOST_PROCESSES)


@pytest.fixture(autouse=True, scope="module")
def no_forgotten_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """What an earlier file's use of the SDK left is not this file's.

    Before the file and not after the earlier one: that one's own fixtures may hold it until they all have ended.
    """
    if request.config.stash.get(MAY_HAVE_LEFT_SOCKETS, False):
        collect_quietly()
        # What has stayed until now stays: the next collection need not look at it again, which takes 0.3 s.
        gc.freeze()
    yield
    # From then on before each file: a thread of the SDK may hold some until later.
    request.config.stash[MAY_HAVE_LEFT_SOCKETS] = "azure.servicebus" in sys.modules


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The embedded server; or the one that COREMACHINE_TEST_POSTGRES names: all of it belongs to one run of tests."""
    if given := os.environ.get(SERVER_VARIABLE):
        assert "PYTEST_XDIST_WORKER" not in os.environ, "COREMACHINE_TEST_POSTGRES is for one process: TESTERS=0"
        set_defaults(given)
        yield given
        return
    # Not in pytest's own temporary folder: every other run of pytest closes that to all users but its own, and a
    # server that runs as another user (ours does when root starts it) panics at its next checkpoint.
    place = folder_for_servers(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    with (
        tempfile.TemporaryDirectory(prefix=prefix_of_folders(), dir=place) as folder,
        LocalPostgres(Path(folder) / "data", keep=False) as url,
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            # A table that is analyzed at any moment would have other plans then.
            for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'", "autovacuum = off"):
                connection.execute(f"alter system set {setting}")
            connection.execute("select pg_reload_conf()")
        set_defaults(url)
        # Jobs that run on the engine alone have their database there, instead of a second server.
        os.environ[SERVER_VARIABLE] = url
        yield url
        del os.environ[SERVER_VARIABLE]
        close_session_database()


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


@pytest.fixture(scope="session")
def lent_database(template_url: str) -> Iterator[LentDatabase]:
    lent = LentDatabase(template_url)
    yield lent
    lent.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest, lent_database: LentDatabase, pooler: dict[str, Any]) -> Iterator[Engine]:
    """After each test all invariants hold, unless it breaks them by hand (marker `breaks_invariants`).

    Its database is emptied after the test; that of a test that names `database_url` or `pool` is the test's own.
    """
    has_own = bool(pooler) or not {"database_url", "pool"}.isdisjoint(request.fixturenames)
    pool = request.getfixturevalue("pool") if has_own else lent_database.lend()
    try:
        yield Engine(pool)
        if request.node.get_closest_marker("breaks_invariants") is None:
            assert (verify(pool) if has_own else lent_database.verify()) == []
    finally:
        if not has_own:
            lent_database.take_back()
