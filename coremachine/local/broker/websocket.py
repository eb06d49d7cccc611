"""AMQP over WebSockets (RFC 6455) on the ports of AMQP: a client whose first byte is that of `GET` asks for an upgrade.

Service Bus has it at `/$servicebus/websocket` with the subprotocol AMQPWSB10. Frames of WebSocket and of AMQP need not
begin together: what the binary messages hold is one stream of bytes.
"""

import asyncio
import base64
import binascii
import hashlib
import logging

from coremachine.local.broker.connection import Connection
from coremachine.local.problem import Problem, RefusedError
from coremachine.local.request_head import check_head
from coremachine.local.web_guard import is_loopback_address

log = logging.getLogger(__name__)

PATH = b"/$servicebus/websocket"
# In the order in which they are preferred: that of Service Bus, and that of the AMQP WebSocket binding.
_SUBPROTOCOLS = ("AMQPWSB10", "amqp")
_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of RFC 6455
_MAX_HEAD = 8192
_KEY_SIZE = 16
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIRST_CONTROL = 8
_MAX_CONTROL = 125
_FINAL, _MASKED = 0x80, 0x80
_NORMAL, _PROTOCOL_ERROR, _NOT_ACCEPTED = 1000, 1002, 1003
# Clients limit a message: aiohttp to 4 MiB.
_MAX_SENT = 1024 * 1024


class Doorway(asyncio.Protocol):
    """The first byte of a connection decides: AMQP itself goes on without this in between."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        protocol: asyncio.Protocol = self._connection
        if data[:1] == b"G":
            protocol = WebSocket(self._transport, self._connection)
        self._transport.set_protocol(protocol)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


class _Violation(Exception):
    """The client breaks the rules of WebSocket; the code names how."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class WebSocket(asyncio.Protocol):
    """Between the transport and the connection, which takes this for its transport.

    Payload is passed on as it comes, so that the size of a client's frames has no limit and costs no memory.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._input = bytearray()
        self._is_upgraded = False
        self._is_closing = False
        # Of the data frame that is being read: what is still to come, and its mask from the next byte on.
        self._remaining = 0
        self._mask = b""
        self._is_message_open = False

    # As the protocol of the transport.

    def data_received(self, data: bytes) -> None:
        self._input += data
        try:
            if not self._is_upgraded:
                self._read_head()
            if self._is_upgraded:
                self._read_frames()
        except RefusedError as exc:
            log.warning("websocket_refused", extra={"reason": exc.problem.detail})
            self._transport.write(exc.problem.as_bytes("/"))
            self._transport.close()
        except _Violation as exc:
            log.warning("websocket_closed", extra={"reason": str(exc)})
            self._close_with(exc.code)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # As the transport of the connection.

    def write(self, data: bytes) -> None:
        if not self._is_closing:
            for start in range(0, len(data), _MAX_SENT):
                self._send(_BINARY, data[start : start + _MAX_SENT])

    def close(self) -> None:
        self._close_with(_NORMAL)

    def abort(self) -> None:
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _read_head(self) -> None:
        head, end, rest = self._input.partition(b"\r\n\r\n")
        if not end:
            if len(self._input) > _MAX_HEAD:
                raise RefusedError(Problem(431, "headers_too_large", f"Expected a head of at most {_MAX_HEAD} bytes."))
            return
        accepted = _answer_upgrade(bytes(head), self._transport)
        self._input = rest
        self._is_upgraded = True
        self._transport.write(accepted)
        self._connection.speak_through(self)

    def _read_frames(self) -> None:
        while self._input and not self._is_closing:
            if self._remaining:
                self._take_payload()
            elif not self._read_frame():
                return

    def _take_payload(self) -> None:
        part = bytes(self._input[: self._remaining])
        del self._input[: len(part)]
        self._remaining -= len(part)
        shift = len(part) % 4
        payload, self._mask = _unmasked(part, self._mask), self._mask[shift:] + self._mask[:shift]
        self._connection.data_received(payload)

    def _read_frame(self) -> bool:
        """Begin a data frame, or work off a control frame; False while it is incomplete."""
        size = _head_size(self._input)
        if size is None or len(self._input) < size:
            return False
        first, length = self._input[0], int(self._input[1] & ~_MASKED)
        opcode = first & 0x0F
        if size > 6:  # noqa: PLR2004 - two bytes and the mask
            length = int.from_bytes(self._input[2 : size - 4], "big")
        mask = bytes(self._input[size - 4 : size])
        if opcode >= _FIRST_CONTROL:
            return self._control(opcode, first, size, length, mask)
        self._check_data(opcode, first)
        del self._input[:size]
        self._remaining, self._mask = length, mask
        return True

    def _check_data(self, opcode: int, first: int) -> None:
        if opcode == _TEXT:
            raise _Violation(_NOT_ACCEPTED, "expected binary messages, found a text")
        if (opcode == _CONTINUATION) is not self._is_message_open or opcode not in {_CONTINUATION, _BINARY}:
            raise _Violation(_PROTOCOL_ERROR, f"expected a frame that fits the one before, found opcode {opcode}")
        self._is_message_open = not first & _FINAL

    def _control(self, opcode: int, first: int, size: int, length: int, mask: bytes) -> bool:
        if not first & _FINAL or length > _MAX_CONTROL:
            raise _Violation(_PROTOCOL_ERROR, f"expected a control frame of at most {_MAX_CONTROL} bytes, in one")
        if len(self._input) < size + length:
            return False
        payload = _unmasked(bytes(self._input[size : size + length]), mask)
        del self._input[: size + length]
        if opcode == _PING:
            self._send(_PONG, payload)
        elif opcode == _CLOSE:
            self._close_with(int.from_bytes(payload[:2], "big") or _NORMAL)
        elif opcode != _PONG:
            raise _Violation(_PROTOCOL_ERROR, f"expected a known control frame, found opcode {opcode}")
        return True

    def _send(self, opcode: int, payload: bytes) -> None:
        self._transport.write(_frame_head(opcode, len(payload)) + payload)

    def _close_with(self, code: int) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._send(_CLOSE, code.to_bytes(2, "big"))
            self._transport.close()


def _head_size(data: bytearray) -> int | None:
    """Of the frame that begins here, with its mask; None while that cannot be known."""
    if len(data) < 2:  # noqa: PLR2004
        return None
    if data[0] & 0x70:
        raise _Violation(_PROTOCOL_ERROR, "expected no extension, found reserved bits")
    if not data[1] & _MASKED:
        raise _Violation(_PROTOCOL_ERROR, "expected masked frames of a client, found one without a mask")
    return 6 + {126: 2, 127: 8}.get(data[1] & ~_MASKED, 0)


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _frame_head(opcode: int, size: int) -> bytes:
    first = bytes((_FINAL | opcode,))
    if size <= _MAX_CONTROL:
        return first + bytes((size,))
    if size < 2**16:
        return first + b"\x7e" + size.to_bytes(2, "big")
    return first + b"\x7f" + size.to_bytes(8, "big")


def _answer_upgrade(head: bytes, transport: asyncio.Transport) -> bytes:
    """The head that accepts an upgrade.

    Raises:
        RefusedError: It is not one to AMQP, or the request of a web page.
    """
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/"):  # noqa: PLR2004 - method, target, version
        raise _not_an_upgrade(f"a request line, found {first[:100]!r}")
    pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    is_tls = transport.get_extra_info("sslcontext") is not None
    # The guard against web pages compares a page of http with Host.
    own = [(k, v.replace(b"https://", b"http://", 1) if is_tls and k == b"origin" else v) for k, v in pairs]
    address = transport.get_extra_info("sockname") or ("127.0.0.1",)
    version = parts[2].removeprefix(b"HTTP/").decode("latin-1")
    target, _ = check_head(version, parts[1], own, on_loopback=is_loopback_address(address[0]))
    if target.partition(b"?")[0].rstrip(b"/").lower() != PATH:
        found = target[:100].decode("ascii")
        raise RefusedError(Problem(404, "unknown_path", f"Expected the path {PATH.decode()}, found {found}."))
    return _accept({name.decode("latin-1"): value.decode("latin-1") for name, value in pairs})


def _accept(headers: dict[str, str]) -> bytes:
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in headers.get("connection", "").lower():
        raise _not_an_upgrade("the headers Connection: Upgrade and Upgrade: websocket")
    if headers.get("sec-websocket-version") != "13":
        raise _not_an_upgrade("Sec-WebSocket-Version: 13")
    key = headers.get("sec-websocket-key", "")
    if not _is_key(key):
        raise _not_an_upgrade("a Sec-WebSocket-Key of 16 bytes in base64")
    offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
    chosen = next((each for each in _SUBPROTOCOLS if each in offered), None)
    if chosen is None:
        raise _not_an_upgrade(f"Sec-WebSocket-Protocol: {_SUBPROTOCOLS[0]}")
    digest = hashlib.sha1(key.encode("latin-1") + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n"
    ).encode("latin-1")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.encode("latin-1"), validate=True)) == _KEY_SIZE
    except binascii.Error:
        return False


def _not_an_upgrade(expected: str) -> RefusedError:
    return RefusedError(Problem(400, "not_an_upgrade", f"AMQP over WebSockets: expected {expected}."))
