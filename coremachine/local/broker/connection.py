"""A client's TCP connection: headers, SASL, frames, and what is written back.

A chunk of input is worked off at once; output is gathered and written once per turn of the event loop.
"""

import asyncio
import logging

from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import DecodeError
from coremachine.local.broker.entity import Namespace
from coremachine.local.broker.performatives import AmqpError, Performative
from coremachine.local.broker.session import Session
from coremachine.local.connections import ConnectionBook

log = logging.getLogger(__name__)

_HEADER_SIZE = 8
_MIN_MAX_FRAME_SIZE = 512
_SASL_FRAME = 1
_AUTHENTICATED, _AUTHENTICATION_FAILED = 0, 1
_CONTAINER = "coremachine-broker"
# A client that has not opened the connection after this many ticks is none.
_SILENCE_TICKS = 30


class Connection(asyncio.Protocol):
    """One AMQP connection.

    Args:
        namespace: What the client may attach to.
        connections: The set of open connections; this one enters when made and leaves when lost.
        book: Bounds their number; until its client has opened it, a connection may have to make room.
    """

    def __init__(self, namespace: Namespace, connections: "set[Connection]", book: ConnectionBook) -> None:
        self._namespace = namespace
        self._connections = connections
        self._book = book
        self._ticks = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = bytearray()
        self._output: list[bytes] = []
        self._flush_planned = False
        self._paused = False
        self._expects_header = True
        self._sessions: dict[int, Session] = {}
        self._remote_max_frame_size = _MIN_MAX_FRAME_SIZE
        self._keep_alive: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream transport, found {type(transport).__name__}")
        self._transport = transport
        self._connections.add(self)
        if not self._book.admit(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._input += data
        try:
            self._work_off_input()
        except DecodeError as exc:
            self._refuse(AmqpError("amqp:decode-error", str(exc)))
        except AmqpError as error:
            self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        log.debug("connection_lost", extra={"reason": str(exc)})
        self._transport = None
        self._connections.discard(self)
        self._book.lost(self)
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks > _SILENCE_TICKS:
            log.info("connection_not_opened", extra={"seconds": self._ticks})
            self.abort()

    def evict(self) -> None:
        self.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        for session in list(self._sessions.values()):
            session.resume()

    @property
    def max_frame_size(self) -> int:
        return min(self._remote_max_frame_size, perf.MAX_FRAME_SIZE)

    @property
    def can_write(self) -> bool:
        return not self._paused and self._transport is not None

    def write(self, data: bytes) -> None:
        self._output.append(data)
        self._plan_flush()

    def abort(self) -> None:
        """Cut the connection without a word, as a broken network does."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say goodbye and close."""
        if self._transport is not None:
            self.write(perf.close_frame())
            self._flush()
            self._transport.close()

    def _work_off_input(self) -> None:
        position = 0
        while (size := self._next_size(position)) is not None:
            chunk = bytes(self._input[position : position + size])
            position += size
            if self._expects_header:
                self._on_header(chunk)
            else:
                self._on_frame(chunk)
        del self._input[:position]

    def _next_size(self, position: int) -> int | None:
        """The size of the header or frame at a position, None while it is incomplete."""
        available = len(self._input) - position
        if available < _HEADER_SIZE:
            return None
        if self._expects_header:
            return _HEADER_SIZE
        size = int.from_bytes(self._input[position : position + 4], "big")
        if not _HEADER_SIZE <= size <= perf.MAX_FRAME_SIZE:
            raise DecodeError(f"a frame of {_HEADER_SIZE} to {perf.MAX_FRAME_SIZE} bytes", f"{size} bytes", position)
        return size if available >= size else None

    def _on_header(self, header: bytes) -> None:
        self._expects_header = False
        self.write(header if header == perf.SASL_HEADER else perf.AMQP_HEADER)
        if header == perf.SASL_HEADER:
            self.write(perf.sasl_mechanisms())
        elif header != perf.AMQP_HEADER:
            raise DecodeError("an AMQP 1.0 header", header.hex(), 0)

    def _on_frame(self, frame: bytes) -> None:
        start = frame[4] * 4
        if not _HEADER_SIZE <= start <= len(frame):
            raise DecodeError("a frame body after its header", f"data offset {frame[4]}", 4)
        if start == len(frame):
            return  # an empty frame only shows that the client lives
        body = frame[start:]
        performative = perf.decode_performative(body)
        if frame[5] == _SASL_FRAME:
            self._on_sasl(performative)
        else:
            self._on_performative(int.from_bytes(frame[6:8], "big"), body, performative)

    def _on_sasl(self, performative: Performative) -> None:
        if performative.code != perf.SASL_INIT:
            raise AmqpError("amqp:not-allowed", f"expected sasl-init, found code 0x{performative.code:02x}")
        is_anonymous = performative.fields[0] == "ANONYMOUS"
        self.write(perf.sasl_outcome(_AUTHENTICATED if is_anonymous else _AUTHENTICATION_FAILED))
        self._expects_header = True

    def _on_performative(self, channel: int, body: bytes, performative: Performative) -> None:
        if performative.code == perf.OPEN:
            self._on_open(performative)
        elif performative.code == perf.BEGIN:
            self._sessions[channel] = Session(self, self._namespace, channel, performative)
        elif performative.code == perf.CLOSE:
            self.close()
        elif channel not in self._sessions:
            # After its end the SDK still sends detach frames on the channel.
            log.debug("frame_of_unknown_session", extra={"channel": channel, "code": performative.code})
        elif performative.code == perf.END:
            session = self._sessions.pop(channel)
            session.before_flush()
            session.close()
            self.write(perf.end_frame(channel))
        else:
            self._sessions[channel].on_frame(body, performative)
            # Settlements may have been gathered without anything else to write.
            self._plan_flush()

    def _on_open(self, performative: Performative) -> None:
        size, idle_milliseconds = performative.fields[2], performative.fields[4]
        self._remote_max_frame_size = size if isinstance(size, int) else perf.MAX_FRAME_SIZE
        if self._remote_max_frame_size < _MIN_MAX_FRAME_SIZE:
            raise AmqpError("amqp:invalid-field", f"expected a max-frame-size of at least 512, found {size}")
        self._book.works(self)
        self.write(perf.open_frame(_CONTAINER))
        if isinstance(idle_milliseconds, int) and idle_milliseconds > 0:
            self._keep_peer_alive(idle_milliseconds / 2000)

    def _keep_peer_alive(self, interval: float) -> None:
        self.write(perf.EMPTY_FRAME)
        self._keep_alive = self._loop.call_later(interval, self._keep_peer_alive, interval)

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        for session in self._sessions.values():
            session.before_flush()
        self._flush_planned = False
        output, self._output = self._output, []
        if output and self._transport is not None:
            self._transport.write(b"".join(output))

    def _refuse(self, error: AmqpError) -> None:
        """Close with the reason: later frames of this connection could not be understood."""
        log.warning("connection_refused", extra={"condition": error.condition, "description": error.description})
        self._input.clear()
        if self._transport is not None:
            self.write(perf.close_frame(error))
            self._flush()
            self._transport.close()
