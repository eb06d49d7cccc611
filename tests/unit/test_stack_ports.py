"""Which ports a stack listens on."""

import socket
from collections.abc import Iterator

import pytest

from coremachine.local.ports import USUAL_PORTS, choose_port
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
