"""A client's TCP connection: headers, SASL, frames, and what is written back.

A chunk of input is worked off at once; output is gathered and written once per turn of the event loop. A client that
does not read its answers is not read from either.
"""

import asyncio
import logging
from typing import Protocol

from coremachine.local.broker import performatives as perf
from coremachine.local.broker.codec import DecodeError
from coremachine.local.broker.durable_error import DurableError
from coremachine.local.broker.idle import IdleWatch
from coremachine.local.broker.limits import HARD_OUTPUT_BYTES, MAX_UNFINISHED_BYTES, SOFT_OUTPUT_BYTES, IdleLimits
from coremachine.local.broker.namespace import Namespace
from coremachine.local.broker.performatives import AmqpError, FatalError, Performative
from coremachine.local.broker.session import Session
from coremachine.local.connections import ConnectionBook

log = logging.getLogger(__name__)

_HEADER_SIZE = 8
_MIN_MAX_FRAME_SIZE = 512
# A frame every half of it: a shorter one would keep the broker busy with a client that does nothing.
_MIN_IDLE_MILLISECONDS = 100
_SASL_FRAME = 1
_AUTHENTICATED, _AUTHENTICATION_FAILED = 0, 1
_CONTAINER = "coremachine-broker"
# A client that has not opened the connection after this many ticks is none.
_SILENCE_TICKS = 30


class Wire(Protocol):
    """What carries bytes to the client: an asyncio.Transport, or a WebSocket on one."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection(asyncio.Protocol):
    """One AMQP connection.

    Args:
        namespace: What the client may attach to.
        connections: The set of open connections; this one enters when made and leaves when lost.
        book: Bounds their number; until its client has opened it, a connection may have to make room.
        idle: When a silent connection is closed.
    """

    def __init__(
        self,
        namespace: Namespace,
        connections: "set[Connection]",
        book: ConnectionBook,
        idle: IdleLimits | None = None,
    ) -> None:
        self._namespace = namespace
        self._connections = connections
        self._book = book
        self._idle = idle or IdleLimits()
        self._ticks = 0
        self._loop = asyncio.get_running_loop()
        self._transport: Wire | None = None
        self._input = bytearray()
        self._output: list[bytes] = []
        self._output_size = 0
        self._flush_planned = False
        self._paused = False
        self._reading_paused = False
        self._starved = False
        self._expects_header = True
        self._has_sasl = False
        self._is_open = False
        self._is_closing = False
        self._sessions: dict[int, Session] = {}
        self._unfinished = 0
        self._remote_max_frame_size = _MIN_MAX_FRAME_SIZE
        self._watch = IdleWatch(self._loop, self._write_empty, self._on_silence)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream transport, found {type(transport).__name__}")
        self._transport = transport
        self._connections.add(self)
        if not self._book.admit(self):
            self.abort()

    def speak_through(self, wire: Wire) -> None:
        """Write to another wire than the transport, which it uses."""
        if self._transport is not None:
            self._transport = wire

    def data_received(self, data: bytes) -> None:
        self._watch.heard()
        self._input += data
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        log.debug("connection_lost", extra={"reason": str(exc)})
        self._transport = None
        self._connections.discard(self)
        self._book.lost(self)
        self._watch.stop()
        self._input.clear()
        self._output.clear()
        self._close_sessions()

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
        self._starved = False
        for session in list(self._sessions.values()):
            session.resume()
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
            self._go_on()

    @property
    def max_frame_size(self) -> int:
        return min(self._remote_max_frame_size, perf.MAX_FRAME_SIZE)

    @property
    def can_write(self) -> bool:
        if self._paused or self._transport is None:
            return False
        if self._output_size >= SOFT_OUTPUT_BYTES:
            # More when this much has gone.
            self._starved = True
            return False
        return True

    def write(self, data: bytes) -> None:
        self._output.append(data)
        self._output_size += len(data)
        self._plan_flush()

    def hold_unfinished(self, size: int) -> None:
        self._unfinished += size
        if self._unfinished > MAX_UNFINISHED_BYTES:
            text = f"expected at most {MAX_UNFINISHED_BYTES} bytes of unfinished deliveries, found more"
            raise FatalError("amqp:resource-limit-exceeded", text)

    def abort(self) -> None:
        """Cut the connection without a word, as a broken network does."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say goodbye and close."""
        self._close_with(perf.close_frame())

    def detach_idle(self, used_before: float) -> int:
        """Detach the links that were not used since a time; returns how many there were."""
        return sum(session.detach_idle(used_before) for session in list(self._sessions.values()))

    def _go_on(self) -> None:
        try:
            self._work_off_input()
        except DecodeError as exc:
            self._refuse(AmqpError("amqp:decode-error", str(exc)))
        except AmqpError as error:
            self._refuse(error)
        except Exception:
            log.exception("connection_failed")
            self._refuse(AmqpError("amqp:internal-error", "The broker met an error; its log has the trace."))

    def _work_off_input(self) -> None:
        position = 0
        try:
            while not self._is_closing and (size := self._next_size(position)) is not None:
                chunk = bytes(self._input[position : position + size])
                position += size
                if self._expects_header:
                    self._on_header(chunk)
                else:
                    self._on_frame(chunk)
                if self._output_size >= HARD_OUTPUT_BYTES and not self._make_room():
                    return
        finally:
            del self._input[:position]

    def _make_room(self) -> bool:
        """Write; False when the client does not take it, and so is not read from until it does."""
        self._flush()
        if self._paused and self._transport is not None:
            self._transport.pause_reading()
            self._reading_paused = True
        return not self._reading_paused

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
        if header == perf.SASL_HEADER and not self._has_sasl:
            self._has_sasl = True
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
        if performative.code != perf.SASL_INIT or not self._has_sasl or self._is_open:
            raise AmqpError("amqp:not-allowed", f"expected sasl-init, found code 0x{performative.code:02x}")
        # Any token is accepted later, so that any name and password is accepted here.
        is_known = performative.fields[0] in perf.MECHANISMS
        outcome = perf.sasl_outcome(_AUTHENTICATED if is_known else _AUTHENTICATION_FAILED)
        if is_known:
            self.write(outcome)
            self._expects_header = True
        else:
            self._close_with(outcome)

    def _on_performative(self, channel: int, body: bytes, performative: Performative) -> None:
        if performative.code == perf.OPEN:
            self._on_open(performative)
        elif performative.code == perf.CLOSE:
            self.close()
        elif not self._is_open:
            raise AmqpError("amqp:not-allowed", f"expected open, found code 0x{performative.code:02x}")
        elif performative.code == perf.BEGIN:
            self._on_begin(channel, performative)
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

    def _on_begin(self, channel: int, performative: Performative) -> None:
        if channel > perf.CHANNEL_MAX:
            text = f"expected a channel of at most {perf.CHANNEL_MAX}, found {channel}"
            raise AmqpError("amqp:connection:framing-error", text)
        if channel in self._sessions:
            raise AmqpError("amqp:not-allowed", f"expected a free channel, found a session on {channel}")
        self._sessions[channel] = Session(self, self._namespace, channel, performative)

    def _on_open(self, performative: Performative) -> None:
        if self._is_open:
            raise AmqpError("amqp:not-allowed", "expected one open, found another one")
        size, idle_milliseconds = performative.fields[2], performative.fields[4]
        self._remote_max_frame_size = size if isinstance(size, int) else perf.MAX_FRAME_SIZE
        if self._remote_max_frame_size < _MIN_MAX_FRAME_SIZE:
            raise AmqpError("amqp:invalid-field", f"expected a max-frame-size of at least 512, found {size}")
        if isinstance(idle_milliseconds, int) and 0 < idle_milliseconds < _MIN_IDLE_MILLISECONDS:
            text = f"expected an idle-time-out of at least {_MIN_IDLE_MILLISECONDS} ms, found {idle_milliseconds}"
            raise AmqpError("amqp:invalid-field", text)
        self._is_open = True
        self._book.works(self)
        limit = self._idle.connection_seconds
        # Half of it, so that the client's empty frames come in time.
        self.write(perf.open_frame(_CONTAINER, None if limit is None else int(limit * 500)))
        self._watch.start(
            send_every=idle_milliseconds / 2000 if isinstance(idle_milliseconds, int) and idle_milliseconds else None,
            close_after=limit,
        )

    def _write_empty(self) -> None:
        # While it waits for the client there is no need to show that this side lives.
        if not self._paused:
            self.write(perf.EMPTY_FRAME)

    def _on_silence(self, seconds: float) -> None:
        text = f"The connection was inactive for more than the allowed {seconds:g} seconds and is closed by the broker."
        self._refuse(AmqpError("amqp:connection:forced", text))

    def _plan_flush(self) -> None:
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        for session in self._sessions.values():
            session.before_flush()
        self._flush_planned = False
        output, self._output = self._output, []
        self._output_size = 0
        if output and self._transport is not None and self._has_committed():
            self._transport.write(b"".join(output))
        if self._starved and not self._paused:
            self._starved = False
            self._loop.call_soon(self._feed)

    def _has_committed(self) -> bool:
        try:
            self._namespace.commit()
        except DurableError:
            # The broker stops; what was not written must not be confirmed.
            self.abort()
            return False
        return True

    def _feed(self) -> None:
        for session in list(self._sessions.values()):
            session.resume()

    def _close_sessions(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def _refuse(self, error: AmqpError) -> None:
        """Close with the reason: later frames of this connection could not be understood."""
        log.warning("connection_refused", extra={"condition": error.condition, "description": error.description})
        self._close_with(perf.close_frame(error))

    def _close_with(self, last_frame: bytes) -> None:
        self._is_closing = True
        self._watch.stop()
        if self._transport is not None:
            self.write(last_frame)
            self._flush()
            self._transport.close()
        self._close_sessions()
