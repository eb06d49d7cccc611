"""Which ports a stack listens on, and which database it takes."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from coremachine.local.ports import USUAL_PORTS, choose_port
from coremachine.local.stack import LocalStack
from coremachine.local.stack_file import StackError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_second_stack_takes_free_ports_and_says_so(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two projects at once needed three options, each found by one more attempt."""
    said: list[str] = []
    monkeypatch.setitem(USUAL_PORTS, "--port", taken)
    assert choose_port("--port", None, said.append) == 0
    assert said == [f"port {taken} is in use: a free one is taken instead of it"]


def test_a_port_that_was_asked_for_is_not_replaced(taken: int) -> None:
    with pytest.raises(StackError, match=rf"port {taken} .*--amqp-port \(0 = any free port\)"):
        choose_port("--amqp-port", taken, pytest.fail)


def test_a_free_port_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(USUAL_PORTS, "--port", 0)
    assert choose_port("--port", None, pytest.fail) == 0
    assert choose_port("--port", 0, pytest.fail) == 0


@pytest.mark.parametrize("url", ["mysql://me:letmein@host/d", "postgresql://me:letmein@host/d?a=b?c", "host=\ud800"])
def test_a_database_that_cannot_be_read_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    """libpq's own words quoted all of it, in a traceback."""
    with pytest.raises(StackError, match="expected a PostgreSQL URL or libpq") as refused:
        LocalStack(tmp_path, database_url=url, http_port=0, amqp_port=0, admin_port=0).start()
    assert "letmein" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_data_of_earlier_runs_are_dropped_where_there_are_any(tmp_path: Path) -> None:
    """A first run reported that it dropped some."""
    said: list[str] = []
    stack = LocalStack(
        tmp_path, database_url="mysql://host/d", http_port=0, amqp_port=0, admin_port=0, fresh=True, on_step=said.append
    )
    for has_data in (False, True):
        (tmp_path / "host").mkdir() if has_data else None
        with pytest.raises(StackError):
            stack.start()
        assert ("dropping the data of earlier runs" in said) is has_data
        assert not (tmp_path / "host").exists()
