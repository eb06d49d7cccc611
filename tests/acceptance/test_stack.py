"""The stack as users meet it: start, stop, kill, start again."""

import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from coremachine.local.stack import LocalStack
from coremachine.local.stack_file import StackError, StackRunning, find_stack
from tests.acceptance.conftest import RunningCommand
from tests.acceptance.steps import wait_until

pytestmark = pytest.mark.acceptance


def count_notes(url: str) -> int:
    with psycopg.connect(url) as connection:
        connection.execute("create table if not exists note (text text)")
        connection.execute("insert into note values ('kept')")
        row = connection.execute("select count(*) from note").fetchone()
    assert row is not None
    return int(row[0])


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert [process.cmdline() for process in alive] == []


def test_second_start_finds_the_data_of_the_first_and_a_fresh_one_drops_only_them(
    make_stack: Callable[..., LocalStack], tmp_path: Path
) -> None:
    """In a folder with a long path and spaces."""
    deep = tmp_path / ("a long name with spaces, commas & 'quotes' é " + "x" * 100) / ("y" * 60)
    with make_stack(deep) as stack:
        assert httpx.get(f"{stack.url}/api/text").text == "plain"
        assert find_stack(stack.data_dir) == stack.info
        assert stat.S_IMODE((stack.data_dir / "stack.json").stat().st_mode) == 0o600
        assert count_notes(stack.info.database_url) == 1
    assert find_stack(stack.data_dir) is None
    assert not (stack.data_dir / "stack.json").exists()
    with make_stack(deep) as again:
        assert count_notes(again.info.database_url) == 2
    assert {file.name for file in (stack.data_dir / "logs").iterdir()} == {"broker.log", "host.log", "postgres.log"}
    mine = stack.data_dir / "mine.txt"
    mine.write_text("not the stack's")
    with make_stack(deep, fresh=True) as fresh:
        assert httpx.get(f"{fresh.url}/api/text").text == "plain"
        assert count_notes(fresh.info.database_url) == 1
    assert mine.read_text() == "not the stack's"


def test_schema_is_there_and_messages_reach_the_app(shared_stack: LocalStack) -> None:
    info = shared_stack.info
    with psycopg.connect(info.database_url) as connection:
        assert connection.execute("select count(*) from app.jobs").fetchone() == (0,)
    send(info.service_bus_connection, "hello")
    wait_until(lambda: '"body": "hello"' in read(records_of(shared_stack)), "the message")


def records_of(stack: LocalStack) -> Path:
    return stack.data_dir.parent / "records.jsonl"


def send(connection: str, body: str) -> None:
    with (
        ServiceBusClient.from_connection_string(connection) as client,
        client.get_queue_sender("coremachine-jobs") as sender,
    ):
        sender.send_messages(ServiceBusMessage(body))


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_second_stack_on_the_same_folder_is_told_who_runs(shared_stack: LocalStack) -> None:
    found = rf"pid {os.getpid()}, {shared_stack.url}, .*kill {os.getpid()}.*--data"
    with pytest.raises(StackRunning, match=found):
        LocalStack(shared_stack.data_dir, http_port=0, amqp_port=0, admin_port=0).start()
    assert httpx.get(f"{shared_stack.url}/api/text").text == "plain"
    assert find_stack(shared_stack.data_dir) == shared_stack.info


def test_folder_is_free_after_a_start_that_failed(make_stack: Callable[..., LocalStack], tmp_path: Path) -> None:
    """The app cannot be loaded: what was started before is stopped, and the next start works."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "host.json").write_text('{"version": "2.0"}')
    (broken / "function_app.py").write_text("raise RuntimeError('no such setting')")
    before = psutil.Process().children(recursive=True)
    with pytest.raises(StackError, match="no such setting"):
        make_stack(app_dir=broken).start()
    assert psutil.Process().children(recursive=True) == before
    with make_stack() as stack:
        assert httpx.get(f"{stack.url}/api/text").text == "plain"


@pytest.mark.parametrize(
    ("argument", "option"), [("http_port", "--port"), ("amqp_port", "--amqp-port"), ("admin_port", "--admin-port")]
)
def test_port_in_use_is_named_with_its_option(
    make_stack: Callable[..., LocalStack], argument: str, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"port {port} .*{option} \(0 = any free port\)"):
            make_stack(**{argument: port}).start()


def test_broker_that_dies_comes_back_on_its_port(shared_stack: LocalStack) -> None:
    broker, info = shared_stack.broker, shared_stack.info
    assert broker is not None
    first = broker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: broker.pid not in {first, None}, "another broker")
    wait_until(lambda: answers(f"{info.admin_url}/health"), "the broker's health")
    send(info.service_bus_connection, "after the crash")
    wait_until(lambda: '"body": "after the crash"' in read(records_of(shared_stack)), "the message")


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def test_postgres_that_dies_comes_back_at_its_address_with_its_data(shared_stack: LocalStack) -> None:
    postgres, url = shared_stack.postgres, shared_stack.info.database_url
    assert count_notes(url) == 1
    assert postgres is not None
    first = postgres.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        try:
            return count_notes(url) >= 2
        except psycopg.OperationalError:
            return False

    wait_until(is_back, "another PostgreSQL", timeout_seconds=60)
    assert postgres.pid not in {first, None}


def test_sigterm_ends_all_in_order_and_well(run_up: Callable[..., RunningCommand]) -> None:
    command = run_up()
    info = command.wait_ready()
    family = command.family()
    assert len(family) >= 5  # two workers, broker, tether, postgres
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(60) == 0
    assert_all_end(family)
    assert find_stack(command.data_dir) is None
    log = read(Path(info.data_dir) / "logs" / "host.log")
    assert log.index("host_stopped") < log.index("postgres_stopped")
    assert "database system is shut down" in read(Path(info.data_dir) / "logs" / "postgres.log")


def test_killed_stack_leaves_no_process_and_can_be_started_again(run_up: Callable[..., RunningCommand]) -> None:
    """SIGKILL: nothing of the stack's own code runs any more; each part finds out by itself."""
    command = run_up()
    info = command.wait_ready()
    assert count_notes(info.database_url) == 1
    family = command.family()
    command.process.kill()
    command.process.wait()
    assert_all_end(family)
    assert (command.data_dir / "stack.json").exists()
    assert find_stack(command.data_dir) is None
    again = run_up()
    second = again.wait_ready()
    assert second.pid == again.process.pid
    assert count_notes(second.database_url) == 2
    again.process.send_signal(signal.SIGINT)
    assert again.process.wait(60) == 0
    # It was ended in order, and nothing of it died.
    assert "_died" not in (again.data_dir / "logs" / "host.log").read_text(encoding="utf-8")


def test_command_says_that_a_port_is_taken(run_up: Callable[..., RunningCommand]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = run_up("--port", str(taken.getsockname()[1]))
        assert command.process.wait(60) == 1
