"""Values of a rule's properties and parameters in the XML of administration clients."""

from uuid import UUID
from xml.etree import ElementTree as ET

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker.atom_values import read_value, value_element

TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
WHEN = codec.Moment(1_767_323_045_000)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", " a ", " a "),
        ("int", "-5", -5),
        ("long", "1099511627776", 2**40),
        ("unsignedByte", "255", 255),
        ("double", "1.5", 1.5),
        ("boolean", "1", True),
        ("boolean", "False", False),
        ("dateTime", "2026-01-02T03:04:05Z", WHEN),
        ("dateTime", "2026-01-02T03:04:05", WHEN),
        ("dateTime", "2026-01-02T05:04:05.0010000+02:00", codec.Moment(WHEN + 1)),
        ("duration", "PT1M30S", codec.Span(900_000_000)),
        ("duration", "-P1DT0.5S", codec.Span(-864_005_000_000)),
        ("guid", "00112233-4455-6677-8899-aabbccddeeff", UUID(int=0x112233445566778899AABBCCDDEEFF)),
        ("base64Binary", "AAE=", b"\0\1"),
    ],
)
def test_a_value_is_read_in_its_type(kind, text, value):
    found = read_value("x", kind, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "2147483648"),
        ("int", "5.0"),
        ("unsignedByte", "-1"),
        ("int", "9" * 5000),
        ("boolean", "yes"),
        ("dateTime", "yesterday"),
        ("duration", "90"),
        ("guid", "1"),
        ("base64Binary", "?"),
        ("double", "one"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(kind, text):
    with pytest.raises(ValueError, match=f"expected a {kind} as the value of 'colour', found"):
        read_value("colour", kind, text)


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match=r"expected a value of type string, .* for 'colour', found 'QName'"):
        read_value("colour", "QName", "a")


@pytest.mark.parametrize(
    "value",
    [
        "<a>",
        True,
        5,
        2**40,
        1.5,
        b"\0",
        WHEN,
        codec.Moment(WHEN + 1),
        codec.Moment(-1),
        codec.Span(-591_234_567),
        UUID(int=5),
    ],
)
def test_what_is_written_is_read_again(value):
    document = f'<a xmlns:i="http://www.w3.org/2001/XMLSchema-instance">{value_element(value)}</a>'
    element = ET.fromstring(document)[0]  # noqa: S314 - its own
    kind = element.get(TYPE).removeprefix("d6p1:")
    found = read_value("x", kind, element.text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("value", [WHEN, codec.Span(-5)])
def test_times_survive_as_amqp(value):
    encoded = codec.moment(value) if isinstance(value, codec.Moment) else codec.span(value)
    found, end = codec.decode(encoded)
    assert (type(found), found, end) == (type(value), value, len(encoded))


def test_other_described_values_lose_their_descriptor():
    text, count = codec.symbol("com.microsoft:uri") + codec.string("a:b"), codec.symbol("mine") + codec.long(5)
    assert [codec.decode(b"\0" + each)[0] for each in (text, count)] == ["a:b", 5]
    wrong = codec.symbol("com.microsoft:timespan") + codec.string("long")
    assert codec.decode(b"\0" + wrong)[0] == "long"
