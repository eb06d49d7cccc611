"""AMQP 1.0 primitive types as bytes, and back.

Encoding is explicit, one function per AMQP type, because a Python int could be any of ten AMQP types. Decoding
gives plain Python values; symbols become str, arrays and lists become list.
Source: OASIS AMQP 1.0, part 1 (types).
"""

import struct
from collections.abc import Callable, Iterable
from uuid import UUID

NULL = b"\x40"
TRUE = b"\x41"
FALSE = b"\x42"

MAX_NESTING_DEPTH = 64
_MAX_BYTE = 0xFF
_MIN_SMALL, _MAX_SMALL = -0x80, 0x7F
DESCRIBED = 0x00
# Of items without width the count alone could ask for any amount of memory. Version 7.14 of the SDK for Python sends an
# array of one null where it does not know the token of a lock.
_MOST_EMPTY_ITEMS = 1000

_TIMESPAN = "com.microsoft:timespan"

Value = object
Decoder = Callable[[bytes, int, int], tuple[Value, int]]


class DecodeError(ValueError):
    """The bytes are not valid AMQP 1.0."""

    def __init__(self, expected: str, found: str, position: int) -> None:
        self.expected, self.found, self.position = expected, found, position
        super().__init__(f"expected {expected}, found {found} at byte {position}")


class Moment(int):
    """A point in time: milliseconds since the Unix epoch. Of another type than a number of the same size."""


class Span(int):
    """A duration, as .NET's clients send it: in units of 100 ns."""


def boolean(value: bool) -> bytes:  # noqa: FBT001
    return TRUE if value else FALSE


def ubyte(value: int) -> bytes:
    return struct.pack(">BB", 0x50, value)


def ushort(value: int) -> bytes:
    return struct.pack(">BH", 0x60, value)


def uint(value: int) -> bytes:
    if value == 0:
        return b"\x43"
    return struct.pack(">BB", 0x52, value) if value <= _MAX_BYTE else struct.pack(">BI", 0x70, value)


def ulong(value: int) -> bytes:
    if value == 0:
        return b"\x44"
    return struct.pack(">BB", 0x53, value) if value <= _MAX_BYTE else struct.pack(">BQ", 0x80, value)


def int32(value: int) -> bytes:
    return struct.pack(">Bb", 0x54, value) if _MIN_SMALL <= value <= _MAX_SMALL else struct.pack(">Bi", 0x71, value)


def long(value: int) -> bytes:
    return struct.pack(">Bb", 0x55, value) if _MIN_SMALL <= value <= _MAX_SMALL else struct.pack(">Bq", 0x81, value)


def double(value: float) -> bytes:
    return struct.pack(">Bd", 0x82, value)


def timestamp(seconds: float) -> bytes:
    """A point in time, by seconds since the Unix epoch."""
    # Not by way of a Moment: each delivery has three.
    return struct.pack(">Bq", 0x83, int(seconds * 1000))


def moment(value: Moment) -> bytes:
    return struct.pack(">Bq", 0x83, value)


def span(value: Span) -> bytes:
    return bytes([DESCRIBED]) + symbol(_TIMESPAN) + long(value)


def uuid(value: UUID) -> bytes:
    return b"\x98" + value.bytes


def _sized(small: int, large: int, data: bytes) -> bytes:
    if len(data) <= _MAX_BYTE:
        return struct.pack(">BB", small, len(data)) + data
    return struct.pack(">BI", large, len(data)) + data


def binary(value: bytes) -> bytes:
    return _sized(0xA0, 0xB0, value)


def string(value: str) -> bytes:
    return _sized(0xA1, 0xB1, value.encode())


def symbol(value: str) -> bytes:
    return _sized(0xA3, 0xB3, value.encode("ascii"))


def _compound(small: int, large: int, count: int, data: bytes) -> bytes:
    # The size counts the bytes of the count field too.
    if len(data) < _MAX_BYTE and count <= _MAX_BYTE:
        return struct.pack(">BBB", small, len(data) + 1, count) + data
    return struct.pack(">BII", large, len(data) + 4, count) + data


def list_of(items: Iterable[bytes]) -> bytes:
    """A list of already encoded items. Never the zero-length form: some clients cannot read it."""
    parts = list(items)
    return _compound(0xC0, 0xD0, len(parts), b"".join(parts))


def map_of(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    parts = [part for pair in pairs for part in pair]
    return _compound(0xC1, 0xD1, len(parts), b"".join(parts))


def array_of(encoded: Iterable[bytes], constructor: int) -> bytes:
    """An array of items which all carry this constructor, e.g. 0x81 for long."""
    parts = list(encoded)
    for part in parts:
        if part[0] != constructor:
            raise ValueError(f"expected array items with constructor 0x{constructor:02x}, found 0x{part[0]:02x}")
    return _compound(0xE0, 0xF0, len(parts), bytes([constructor]) + b"".join(part[1:] for part in parts))


def long_array(values: Iterable[int]) -> bytes:
    return array_of((struct.pack(">Bq", 0x81, value) for value in values), 0x81)


def described(code: int, value: bytes) -> bytes:
    # Always the two-byte descriptor: clients skip it without looking.
    return struct.pack(">BBB", DESCRIBED, 0x53, code) + value


def described_widely(code: int, value: bytes) -> bytes:
    """With a code of eight bytes, as the types of the service's own have."""
    return struct.pack(">BBQ", DESCRIBED, 0x80, code) + value


def decode(data: bytes, position: int = 0, depth: int = 0) -> tuple[Value, int]:
    """The value at a position, and the position after it. A described value loses its descriptor.

    Raises:
        DecodeError: The bytes end early or are not AMQP.
    """
    try:
        return _DECODERS[data[position]](data, position + 1, depth)
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise DecodeError("a complete AMQP value", f"{len(data)} bytes ({exc})", position) from exc
    except KeyError as exc:
        raise DecodeError("an AMQP type constructor", f"0x{data[position]:02x}", position) from exc


def skip(data: bytes, position: int, depth: int = 0) -> int:
    """The position after the value at a position, without building the value."""
    try:
        constructor = data[position]
        if constructor == DESCRIBED:
            depth = _deeper(depth, position)
            return skip(data, skip(data, position + 1, depth), depth)
        width = constructor >> 4
        if width in _FIXED_WIDTHS:
            end = position + 1 + _FIXED_WIDTHS[width]
        elif width in {0xA, 0xC, 0xE}:
            end = position + 2 + data[position + 1]
        elif width in {0xB, 0xD, 0xF}:
            end = position + 5 + _UINT32.unpack_from(data, position + 1)[0]
        else:
            raise DecodeError("an AMQP type constructor", f"0x{constructor:02x}", position)
    except (IndexError, struct.error) as exc:
        raise DecodeError("a complete AMQP value", f"{len(data)} bytes", position) from exc
    if end > len(data):
        raise DecodeError("a complete AMQP value", f"{len(data)} bytes", position)
    return int(end)


def split_compound(data: bytes, position: int = 0) -> list[bytes]:
    """The raw items of a list or map (keys and values in turn), each as it came.

    For what has to be returned byte for byte, types included.
    """
    count, start, end = _compound_header(data, position)
    items = []
    for _ in range(count):
        after = skip(data, start)
        items.append(data[start:after])
        start = after
    if start != end:
        raise DecodeError("a compound of its declared size", f"{end - start} bytes too many", position)
    return items


def items_start(data: bytes, position: int) -> int:
    """Where the first item of the list or map at a position is."""
    return _compound_header(data, position)[1]


def _compound_header(data: bytes, position: int) -> tuple[int, int, int]:
    constructor = data[position] if position < len(data) else -1
    end = skip(data, position)
    if constructor == 0x45:  # noqa: PLR2004
        return 0, end, end
    if constructor in {0xC0, 0xC1}:
        return data[position + 2], position + 3, end
    if constructor in {0xD0, 0xD1}:
        return _UINT32.unpack_from(data, position + 5)[0], position + 9, end
    raise DecodeError("a list or map", f"constructor 0x{constructor & 0xFF:02x}", position)


_UINT32 = struct.Struct(">I")
_INT64 = struct.Struct(">q")
_SYMBOLS = {0xA3, 0xB3}
_FIXED_WIDTHS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


def _constant(value: Value) -> Decoder:
    return lambda _data, position, _depth: (value, position)


def _number(layout: str) -> Decoder:
    packed = struct.Struct(layout)
    return lambda data, position, _depth: (packed.unpack_from(data, position)[0], position + packed.size)


def _decode_boolean(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    return data[position] == 1, position + 1


def _decode_moment(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    return Moment(_INT64.unpack_from(data, position)[0]), position + 8


def _decode_uuid(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    return UUID(bytes=_take(data, position, 16)), position + 16


def _decode_opaque(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
    """decimal128: nothing here computes with it."""
    return _take(data, position, 16), position + 16


def _take(data: bytes, position: int, size: int) -> bytes:
    if position + size > len(data):
        raise DecodeError(f"{size} bytes", f"{len(data) - position}", position)
    return data[position : position + size]


def _variable(*, large: bool, text: bool) -> Decoder:
    def decoder(data: bytes, position: int, _depth: int) -> tuple[Value, int]:
        size = _UINT32.unpack_from(data, position)[0] if large else data[position]
        start = position + (4 if large else 1)
        raw = bytes(_take(data, start, size))
        return raw.decode() if text else raw, start + size

    return decoder


def _deeper(depth: int, position: int) -> int:
    if depth >= MAX_NESTING_DEPTH:
        raise DecodeError(f"at most {MAX_NESTING_DEPTH} nested values", "more", position)
    return depth + 1


def _sequence(*, large: bool) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        depth = _deeper(depth, position)
        count = _UINT32.unpack_from(data, position + 4)[0] if large else data[position + 1]
        position += 8 if large else 2
        items = []
        for _ in range(count):
            item, position = decode(data, position, depth)
            items.append(item)
        return items, position

    return decoder


def _mapping(*, large: bool) -> Decoder:
    items_of = _sequence(large=large)

    def decoder(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        items, end = items_of(data, position, depth)
        if not isinstance(items, list) or len(items) % 2:
            raise DecodeError("a map with a value for each key", "an odd number of items", position)
        try:
            return dict(zip(items[::2], items[1::2], strict=True)), end
        except TypeError as exc:
            raise DecodeError("map keys of a primitive type", str(exc), position) from exc

    return decoder


def _array(*, large: bool) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Value, int]:
        depth = _deeper(depth, position)
        size = _UINT32.unpack_from(data, position)[0] if large else data[position]
        count = _UINT32.unpack_from(data, position + 4)[0] if large else data[position + 1]
        end = position + (4 if large else 1) + size
        if count == 0:
            return [], end
        position += 8 if large else 2
        constructor = data[position]
        position += 1
        if constructor == DESCRIBED:
            position = skip(data, position)
            constructor = data[position]
            position += 1
        item_decoder = _DECODERS[constructor]
        if constructor >> 4 == 4 and count > _MOST_EMPTY_ITEMS:  # noqa: PLR2004 - the constructors without width
            text = f"{count} with constructor 0x{constructor:02x}"
            raise DecodeError(f"{_MOST_EMPTY_ITEMS} array items that take no room at most", text, position)
        items = []
        for _ in range(count):
            item, position = item_decoder(data, position, depth)
            items.append(item)
        return items, position

    return decoder


def _decode_described(data: bytes, position: int, depth: int) -> tuple[Value, int]:
    depth = _deeper(depth, position)
    # Other descriptors are small numbers: those of sections.
    descriptor = decode(data, position, depth)[0] if data[position] in _SYMBOLS else None
    value, end = decode(data, skip(data, position), depth)
    is_span = descriptor == _TIMESPAN and type(value) is int
    return (Span(value) if is_span else value), end  # type: ignore[call-overload]


_DECODERS: dict[int, Decoder] = {
    DESCRIBED: _decode_described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(0),
    0x44: _constant(0),
    0x45: lambda _data, position, _depth: ([], position),
    0x50: _number(">B"),
    0x51: _number(">b"),
    0x52: _number(">B"),
    0x53: _number(">B"),
    0x54: _number(">b"),
    0x55: _number(">b"),
    0x56: _decode_boolean,
    0x60: _number(">H"),
    0x61: _number(">h"),
    0x70: _number(">I"),
    0x71: _number(">i"),
    0x72: _number(">f"),
    0x73: _number(">I"),
    0x80: _number(">Q"),
    0x81: _number(">q"),
    0x82: _number(">d"),
    0x83: _decode_moment,
    0x94: _decode_opaque,
    0x98: _decode_uuid,
    0xA0: _variable(large=False, text=False),
    0xA1: _variable(large=False, text=True),
    0xA3: _variable(large=False, text=True),
    0xB0: _variable(large=True, text=False),
    0xB1: _variable(large=True, text=True),
    0xB3: _variable(large=True, text=True),
    0xC0: _sequence(large=False),
    0xC1: _mapping(large=False),
    0xD0: _sequence(large=True),
    0xD1: _mapping(large=True),
    0xE0: _array(large=False),
    0xF0: _array(large=True),
}
