"""The grammar of SQL filters: random conditions, written as text, against a plain evaluation of the same tree."""

import re
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from coremachine.local.broker import codec
from coremachine.local.broker.message import parse_message
from coremachine.local.broker.message_view import MessageView
from coremachine.local.broker.sql_action import encode
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.sql_tokens import MAX_DEPTH, SqlError

PROPERTIES = {"n": 3, "m": -2, "t": "ab%", "b": True, "x y": 0}
VIEW = MessageView(
    parse_message(
        codec.described(0x74, codec.map_of([(codec.string(name), encode(value)) for name, value in PROPERTIES.items()]))
    )
)
NAMES = st.sampled_from(["n", "m", "t", "b", "[x y]", '"x y"', "user.n", "USER.[n]", "missing", "N"])


# An expression is its text, how strongly it binds, and its value. A condition is the same, with three values.

STRENGTHS = {"or": 1, "and": 2, "not": 3, "predicate": 4, "+": 5, "-": 5, "*": 6, "unary": 7, "atom": 8}


def shown(part, least):
    """A part's text, in parentheses where it would bind otherwise."""
    text, strength, _ = part
    return text if STRENGTHS[strength] >= least else f"({text})"


def literal(value):
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'", "atom", value
    return {"None": "NULL", "True": "TRUE"}.get(str(value), str(value)), "atom", value


def property_named(name):
    bare = re.sub(r"(?i)^user\.", "", name).strip('["]').lower()
    return name, "atom", PROPERTIES.get(bare)


def is_number(value):
    return isinstance(value, int) and not isinstance(value, bool)


def calculated(left, sign, right):
    strength = STRENGTHS[sign]
    text = f"{shown(left, strength)} {sign} {shown(right, strength + 1)}"
    first, second = left[2], right[2]
    if is_number(first) and is_number(second):
        value = {"+": first + second, "-": first - second, "*": first * second}[sign]
    else:
        value = first + second if sign == "+" and isinstance(first, str) and isinstance(second, str) else None
    return text, sign, value


def negative(inner):
    value = -inner[2] if is_number(inner[2]) else None
    return f"- {shown(inner, STRENGTHS['unary'])}", "unary", value


VALUES = st.recursive(
    st.one_of(
        st.sampled_from([None, 0, 1, 3, "", "a", "it's", "ab%", True]).map(literal),
        NAMES.map(property_named),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: calculated(*parts)),
        inner.map(negative),
    ),
    max_leaves=4,
)


def same(first, second):
    if first is None or second is None:
        return None
    return type(first) is type(second) and first == second


def compared(left, sign, right):
    first, second = left[2], right[2]
    value = same(first, second)
    if sign in {"<>", "!="}:
        value = None if value is None else not value
    elif sign != "=":
        fits = type(first) is type(second) and first is not None
        signs = {"<": lambda: first < second, ">=": lambda: first >= second}
        value = signs[sign]() if fits else None
    return f"{shown(left, 5)} {sign} {shown(right, 5)}", "predicate", value


def is_in(left, choices, negated):
    first, others = left[2], [choice[2] for choice in choices]
    found = [same(first, other) for other in others]
    value = None if first is None else True if True in found else None if None in found else False
    text = f"{shown(left, 5)} {'NOT ' if negated else ''}IN ({', '.join(choice[0] for choice in choices)})"
    return text, "predicate", None if value is None else value is not negated


def is_like(left, pattern, negated):
    text = f"{shown(left, 5)} {'not ' if negated else ''}LIKE '{pattern}' ESCAPE '!'"
    if not isinstance(left[2], str):
        return text, "predicate", None
    steps = re.findall("!.|.", pattern)
    regex = "".join({"%": ".*", "_": "."}.get(step) or re.escape(step[-1]) for step in steps)
    return text, "predicate", (re.fullmatch(regex, left[2], re.DOTALL) is not None) is not negated


def is_null(name, negated):
    value = property_named(name)[2] is None
    return f"{name} IS {'NOT ' if negated else ''}NULL", "predicate", value is not negated


def exists(name):
    return f"EXISTS ({name})", "predicate", property_named(name)[2] is not None


def negation(inner):
    return f"NOT {shown(inner, STRENGTHS['not'])}", "not", None if inner[2] is None else not inner[2]


def joined(left, word, right):
    strength = STRENGTHS[word]
    values = [left[2], right[2]]
    decides = word == "or"
    value = decides if decides in values else None if None in values else not decides
    return f"{shown(left, strength)} {word} {shown(right, strength)}", word, value


CONDITIONS = st.recursive(
    st.one_of(
        st.tuples(VALUES, st.sampled_from(["=", "<>", "!=", "<", ">="]), VALUES).map(lambda parts: compared(*parts)),
        st.tuples(VALUES, st.lists(VALUES, min_size=1, max_size=3), st.booleans()).map(lambda parts: is_in(*parts)),
        st.tuples(VALUES, st.text("ab%_", max_size=4).map(lambda text: text.replace("%a", "!%")), st.booleans()).map(
            lambda parts: is_like(*parts)
        ),
        st.tuples(NAMES, st.booleans()).map(lambda parts: is_null(*parts)),
        NAMES.map(exists),
    ),
    lambda inner: st.one_of(
        inner.map(negation),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: joined(*parts)),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(CONDITIONS)
def test_a_condition_is_what_the_grammar_and_three_valued_logic_make_of_it(condition):
    text, _, value = condition
    if len(text) <= 1024:
        assert SqlFilter(text).matches(VIEW) is (value is True), text
        assert SqlFilter(f"NOT ({text})").matches(VIEW) is (value is False), text


WORDS = ["a", "'t'", "5", "(", ")", "and", "or", "not", "is", "null", "in", "like", "escape", "exists", "=", "<", "+"]
WORDS += ["-", "*", ",", "sys", ".", "user", "[q]", "newid", "p", "@x", "true", ";", "set", "'", "é", "0x"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=3 * MAX_DEPTH).map(" ".join))
def test_any_words_make_a_filter_or_the_error_of_a_bad_one(text):
    with suppress(SqlError):
        SqlFilter(text).matches(VIEW)
