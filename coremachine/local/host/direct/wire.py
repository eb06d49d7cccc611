"""One AMQP connection with one session, for one thread: the handshake, and frames in both directions.

Source: OASIS AMQP 1.0, part 2 (transport) and part 5 (security).
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from typing import Self
from uuid import uuid4

from coremachine.local.broker import codec
from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import NULL, DecodeError
from coremachine.local.broker.performatives import Performative
from coremachine.local.host.forks import close_in_children

# The name by which this project's broker opens a connection.
OWN_BROKER = "coremachine-broker"
WINDOW = 65_536
CHANNEL = 0
_HEADER_SIZE = 8
_CHUNK = 262_144
_CONNECT_SECONDS = 10.0


class WireError(ConnectionError):
    """The peer ended the connection or a link, or did not speak as expected."""


class ForeignBroker(WireError):
    """Another broker than this project's answered."""


Frame = tuple[bytes, Performative]


class Wire:
    """A connection whose session is open. What is written is gathered until `flush`.

    Args:
        address: Host and port; without TLS, and any name is accepted: this project's broker asks for no more.

    Raises:
        ForeignBroker: Another broker is there.
        WireError: One is there that did not answer as expected, or in time.
        OSError: None is. From all methods: the connection is lost.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._input = bytearray()
        self._output: list[bytes] = []
        self._send_every: float | None = None
        self._sent_at = time.monotonic()
        self._wakes, self._wake = socket.socketpair()
        self._wakes.setblocking(False)
        self._wake.setblocking(False)
        self._socket = socket.socket()
        close_in_children(self._socket)
        try:
            self._open(address)
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._wakes, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, if that is possible at once, and close."""
        with contextlib.suppress(OSError):
            self._socket.settimeout(0.2)
            self._socket.sendall(b"".join([*self._output, perf.close_frame()]))
        for one in (self._socket, self._wakes, self._wake):
            one.close()

    def wake(self) -> None:
        """End a `wait` of the other thread, or its next one. From any thread, also after the end."""
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def write(self, body: bytes, payload: bytes = b"") -> None:
        """Add a frame of the session."""
        self._output.append(perf.frame(CHANNEL, body, payload))

    def write_frame(self, frame: bytes) -> None:
        self._output.append(frame)

    def flush(self) -> None:
        if not self._output:
            return
        output, self._output = self._output, []
        self._socket.sendall(b"".join(output))
        self._sent_at = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Until something came, `wake` was called, or the time is over."""
        self._keep_alive()
        if self._send_every is not None:
            seconds = min(seconds, self._send_every)
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._wakes.fileno():
                self._wakes.recv(4096)
            else:
                self._receive()

    def frames(self) -> Iterator[Frame]:
        """The complete frames that have come: the body of each, and its performative."""
        position = 0
        try:
            while (frame := self._frame_at(position)) is not None:
                position += len(frame)
                if (decoded := _decoded(frame)) is not None:
                    yield decoded
        finally:
            del self._input[:position]

    def _keep_alive(self) -> None:
        if self._send_every is not None and time.monotonic() - self._sent_at >= self._send_every:
            self._output.append(perf.EMPTY_FRAME)
            self.flush()

    def _receive(self) -> None:
        data = self._socket.recv(_CHUNK)
        if not data:
            raise WireError("expected the connection to stay open, found it closed by the broker")
        self._input += data

    def _frame_at(self, position: int) -> bytes | None:
        if len(self._input) - position < _HEADER_SIZE:
            return None
        size = int.from_bytes(self._input[position : position + 4], "big")
        if not _HEADER_SIZE <= size <= perf.MAX_FRAME_SIZE:
            raise WireError(f"expected a frame of 8 to {perf.MAX_FRAME_SIZE} bytes, found {size}")
        if len(self._input) - position < size:
            return None
        return bytes(self._input[position : position + size])

    def _open(self, address: tuple[str, int]) -> None:
        self._socket.settimeout(_CONNECT_SECONDS)
        self._socket.connect(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._shake_hands()
        except WireError:
            raise
        except OSError as error:
            raise WireError(f"expected a broker that answers, found {error!r}") from error

    def _shake_hands(self) -> None:
        self._exchange_headers(perf.SASL_HEADER)
        self._answer(perf.SASL_MECHANISMS)
        init = codec.described(perf.SASL_INIT, codec.list_of([codec.symbol("ANONYMOUS"), NULL, codec.string("")]))
        self._socket.sendall(perf.frame(0, init, sasl=True))
        outcome = self._answer(perf.SASL_OUTCOME)
        if outcome.fields[:1] != [0]:
            raise ForeignBroker(f"expected a broker that takes any name, found SASL code {outcome.fields[:1]}")
        self._exchange_headers(perf.AMQP_HEADER)
        self._socket.sendall(perf.open_frame(f"coremachine-host-{uuid4().hex}"))
        opened = self._answer(perf.OPEN)
        if opened.fields[0] != OWN_BROKER:
            raise ForeignBroker(f"expected {OWN_BROKER}, found a broker named {opened.fields[0]!r}")
        if isinstance(idle := opened.fields[4], int) and idle:
            self._send_every = idle / 2000
        numbers = [codec.uint(0), codec.uint(WINDOW), codec.uint(WINDOW), codec.uint(perf.HANDLE_MAX)]
        begin = codec.described(perf.BEGIN, codec.list_of([NULL, *numbers, NULL, NULL, NULL]))
        self._socket.sendall(perf.frame(CHANNEL, begin))
        self._answer(perf.BEGIN)

    def _exchange_headers(self, header: bytes) -> None:
        self._socket.sendall(header)
        while len(self._input) < _HEADER_SIZE:
            self._receive()
        found = bytes(self._input[:_HEADER_SIZE])
        del self._input[:_HEADER_SIZE]
        if found != header:
            raise ForeignBroker(f"expected the header {header!r}, found {found!r}")

    def _answer(self, code: int) -> Performative:
        """The next frame, which must be this one."""
        while (frame := self._frame_at(0)) is None:
            self._receive()
        del self._input[: len(frame)]
        decoded = _decoded(frame)
        if decoded is None or decoded[1].code != code:
            raise ForeignBroker(f"expected a frame of code 0x{code:02x}, found {frame[:40]!r}")
        return decoded[1]


def _decoded(frame: bytes) -> Frame | None:
    """None for an empty frame, which only shows that the broker lives."""
    body = frame[frame[4] * 4 :]
    if not body:
        return None
    try:
        performative = perf.decode_performative(body)
    except (DecodeError, perf.AmqpError) as error:
        raise WireError(f"expected a frame of AMQP 1.0: {error}") from error
    if performative.code == perf.CLOSE:
        raise WireError(f"the broker closed the connection: {performative.fields[0]}")
    return body, performative
