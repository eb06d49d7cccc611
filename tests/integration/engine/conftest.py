"""An engine at any time, in any crowd, on any queue."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coremachine.local.broker.config import default_config_path, load_config
from coremachine.local.broker.thread import BrokerThread
from coremachine.local.memory_queue import MemoryQueues
from infrastructure.postgresql import create_pool
from tests.databases import Engine, LentDatabase, clone_template, make_template, pool_at

from .containers import postgres_container, reason_not_to_run, service_bus_emulator
from .machine_suite import Rig
from .transports import ServiceBusQueues

# So many calls at most can be made at one moment.
CROWD = 16


@pytest.fixture
def rig(engine: Engine) -> Rig:
    """A machine with queues in memory; several suites have one of their own."""
    return Rig(engine)


@pytest.fixture
def platform_rig(platform: Any) -> Rig:
    """The same on each platform."""
    return Rig(platform.engine, platform.queues)


@pytest.fixture
def at(
    request: pytest.FixtureRequest, lent_database: LentDatabase, pooler: dict[str, Any]
) -> Iterator[Callable[[float], Engine]]:
    """The same database at a time that stands still: so many seconds after a midnight.

    It is that of the fixture `engine` where a test has both.
    """
    with ExitStack() as opened:
        if pooler or not {"database_url", "pool"}.isdisjoint(request.fixturenames):
            pool = opened.enter_context(create_pool(request.getfixturevalue("database_url"), max_size=20))
        else:
            lent_database.lend()
            pool = lent_database.clocked_pool
            if "engine" not in request.fixturenames:
                opened.callback(lent_database.take_back)
        yield lambda seconds: Engine(pool_at(pool, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)))


@pytest.fixture
def clocked_engine(database_url: str) -> Iterator[Engine]:
    """An engine with one connection, whose clock a test may turn: `app.fake_now` stays as it was set."""
    with create_pool(database_url, max_size=1) as pool:
        yield Engine(pool)


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[Any]]]:
    with ThreadPoolExecutor(CROWD) as executor:

        def run_together(*calls: Callable[[], Any]) -> list[Any]:
            """All calls start at one moment; their results come back in order."""
            start = threading.Barrier(len(calls))

            def one(call: Callable[[], Any]) -> Any:
                start.wait(timeout=60)
                return call()

            return [future.result(timeout=60) for future in [executor.submit(one, call) for call in calls]]

        yield run_together


@pytest.fixture(scope="session")
def broker() -> Iterator[BrokerThread]:
    """With the project's own queues, which drop a message id seen within a minute."""
    with BrokerThread(load_config(default_config_path())) as running:
        yield running


@pytest.fixture(scope="session")
def broker_queues(broker: BrokerThread) -> Iterator[ServiceBusQueues]:
    queues = ServiceBusQueues(broker.connection_string)
    yield queues
    queues.close()


@pytest.fixture(scope="session")
def containers() -> Iterator[tuple[str, ServiceBusQueues]]:
    """A PostgreSQL server with a template, and the queues of Microsoft's emulator."""
    if reason := reason_not_to_run():
        if os.environ.get("COREMACHINE_TEST_DOCKER") == "required":
            pytest.fail(f"expected containers (COREMACHINE_TEST_DOCKER=required), found none: {reason}")
        pytest.skip(reason)
    with postgres_container() as server_url, service_bus_emulator() as connection_string:
        queues = ServiceBusQueues(connection_string)
        yield make_template(server_url), queues
        queues.close()


@dataclass
class Platform:
    """What an engine runs on."""

    engine: Engine
    queues: MemoryQueues | ServiceBusQueues


@pytest.fixture(
    params=[
        "memory",
        pytest.param("broker", marks=pytest.mark.through_the_sdk),
        # docker-py leaves sockets to the garbage collector.
        pytest.param(
            "emulator",
            marks=[
                pytest.mark.through_the_sdk,
                pytest.mark.docker,
                pytest.mark.filterwarnings("ignore::ResourceWarning"),
            ],
        ),
    ]
)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """In memory, on the local broker through the real SDK, on Microsoft's emulator; each on PostgreSQL."""
    if request.param == "memory":
        yield Platform(request.getfixturevalue("engine"), MemoryQueues())
        return
    if request.param == "broker":
        queues = request.getfixturevalue("broker_queues")
        queues.clear()
        yield Platform(request.getfixturevalue("engine"), queues)
        return
    server_url, queues = request.getfixturevalue("containers")
    queues.clear()
    with clone_template(server_url) as database_url, create_pool(database_url, max_size=20) as pool:
        yield Platform(Engine(pool), queues)


@pytest.fixture
def leave_out(engine):
    """Let a trigger leave out what is inserted into a table, until it is called without one."""
    engine.execute("create function public.act() returns trigger language plpgsql as $$ begin return null; end $$")

    def leave_out(table, condition="true", action="insert"):
        engine.execute(
            f"create trigger theirs before {action} on app.{table} for each row when ({condition}) "
            "execute function public.act()"
        )

    return leave_out
