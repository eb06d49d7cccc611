"""Rules of subscriptions: filters, actions, and what a subscription gets."""

from uuid import UUID

import pytest

from coremachine.local.broker import codec
from coremachine.local.broker.codec import NULL
from coremachine.local.broker.message import Content, parse_message
from coremachine.local.broker.message_view import MessageView
from coremachine.local.broker.rules import CorrelationFilter, FalseFilter, Rule, RuleBook
from coremachine.local.broker.sql_action import SqlAction, encode
from coremachine.local.broker.sql_filter import SqlFilter
from coremachine.local.broker.sql_tokens import SqlError

SYSTEM = codec.described(
    0x73,
    codec.list_of([codec.string("m-1"), NULL, codec.string("paris"), codec.string("order"), NULL, codec.string("c")]),
)


def message(**properties):
    pairs = [(codec.string(name), encode(value)) for name, value in properties.items()]
    return parse_message(SYSTEM + codec.described(0x74, codec.map_of(pairs)))


COLOURED = message(colour="red", size=5, price=2.5, urgent=True, note="it's 100%", gone=None)


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ("colour = 'red'", True),
        ("colour <> 'red'", False),
        ("user.colour != 'blue'", True),
        ("COLOUR = 'red' AND EXISTS(Colour)", True),
        ("Größe IS NULL AND [größer als] IS NULL", True),
        ("'a' IN (colour, 'a')", True),
        ("colour IN (missing, 'blue')", False),
        ("NOT colour IN (missing, 'blue')", False),
        ("colour IN (missing, 'red')", True),
        ("property('colour') = 'red' AND P('si' + 'ze') = 5", True),
        ("p('missing') = 1 OR size = 5", True),
        ("newid() <> newid()", True),
        ("p = 1 OR property = 1 OR size = 5", True),
        ("-7 / 2 = -3 AND -7 % 2 = -1 AND 7 % -2 = 1", True),
        ("9223372036854775807 / 1 = 9223372036854775807", True),
        ("9223372036854775807 + 1 > 0", False),
        ("NOT 9223372036854775807 + 1 > 0", False),
        ("1.0 / 0 > 1e300", True),
        ("+colour = 'red' OR -colour = 'red'", False),
        ("NOT size = 5 OR size = 5", True),
        ("size = 5 OR size = 6 AND size = 7", True),
        ("NOT (size = 5 AND missing = 1)", False),
        ("colour LIKE 'r%' ESCAPE 'ab'", False),
        ("NOT colour LIKE 'r%' ESCAPE 'ab'", False),
        ("missing LIKE '%' OR 5 LIKE '%'", False),
        ("colour LIKE p('pattern')", False),
        ("(urgent) AND ((size) + 1) * 2 = 12", True),
        ("size\n=\t5", True),
        ("size = 5 AND price > 2", True),
        ("size = 5.0", True),
        ("size = '5'", False),
        ("size <> '5'", True),
        ("size >= 5 and size < 6", True),
        ("colour = 'blue' OR size = 5", True),
        ("NOT colour = 'blue'", True),
        ("NOT (colour = 'red' OR size = 9)", False),
        ("missing = 1", False),
        ("NOT missing = 1", False),
        ("missing = 1 OR size = 5", True),
        ("missing IS NULL", True),
        ("gone IS NULL AND EXISTS(gone)", True),
        ("colour IS NOT NULL", True),
        ("EXISTS(colour) AND NOT EXISTS(missing)", True),
        ("colour IN ('blue', 'red')", True),
        ("colour NOT IN ('blue')", True),
        ("missing NOT IN ('blue')", False),
        ("colour LIKE 'r%'", True),
        ("colour LIKE '_e_'", True),
        ("colour NOT LIKE 'b%'", True),
        ("note LIKE '%100!%' ESCAPE '!'", True),
        ("colour LIKE 'r!%' ESCAPE '!'", False),
        ("note = 'it''s 100%'", True),
        ("urgent", True),
        ("urgent = TRUE", True),
        ("size + 1 = 6 AND size * 2 = 10 AND size % 2 = 1 AND -size = -5", True),
        ("(size + 1) * 2 = 12", True),
        ("size / 2 = 2 AND price / 2 = 1.25", True),
        ("size / 0 = 1", False),
        ("size < 'a'", False),
        ("colour + 'dish' = 'reddish'", True),
        ("sys.Label = 'order' AND sys.MessageId LIKE 'm-%' AND sys.To = 'paris'", True),
        ("sys.CorrelationId = 'c' AND sys.ReplyTo IS NULL", True),
        ("[colour] = 'red' AND \"colour\" = 'red'", True),
        ("1=1", True),
        ("1=0", False),
        ("size = 0x05 AND price < 1e1", True),
    ],
)
def test_sql_filters(expression, matches):
    assert SqlFilter(expression).matches(MessageView(COLOURED)) is matches


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "colour =",
        "colour = 'red",
        "= 1",
        "a = 1 b",
        "a IN ()",
        "a NOT = 1",
        "EXISTS a",
        "sys.Weather = 'fine'",
        "a = 1 AND",
        "a # 1",
        "(" * 40 + "a = 1" + ")" * 40,
        "a" * 2000,
        "NOT " * 100 + "a = 1",
        "- " * 100 + "1 = 1",
        "_a = 1",
        "$a = 1",
        "like = 1",
        "newid(1) = 1",
        "property() = 1",
        "size = 9223372036854775808",
        "size = @missing",
        "colour IS 'red'",
        "property('a') IS",
        "(a = 1",
        "[a = 1",
        "a = 1)",
    ],
)
def test_a_wrong_expression_is_refused(expression):
    with pytest.raises(ValueError, match="expected"):
        SqlFilter(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("a = AND b = 1", "[Token line=1, column=4, Token in error= and, Additional details= expected a value, found"),
        ("a = 1 AND\n  b #", "[Token line=2, column=4, Token in error= #, Additional details= expected a name, a text"),
        (
            "a =",
            "[Token line=1, column=3, Token in error= , Additional details= expected a value, found the",
        ),
    ],
)
def test_an_error_is_worded_as_the_service_does_and_names_the_place(expression, text):
    with pytest.raises(SqlError) as error:
        SqlFilter(expression)
    assert str(error.value).startswith("There was an error parsing the SQL expression. " + text)


def test_parameters_stand_for_values():
    condition = SqlFilter("colour = @wanted AND size > @Least", {"@wanted": "red", "@Least": 4})
    assert condition.matches(MessageView(COLOURED))
    action = SqlAction("SET size = size + @more", {"@more": 3})
    assert properties_of(action.applied(COLOURED, {}))["size"] == 8


def test_a_hard_pattern_is_matched_in_no_time():
    """A regular expression would try every way to share out the text."""
    pattern = "%a" * 100 + "%b"
    assert SqlFilter(f"x LIKE '{pattern}'").matches(MessageView(message(x="a" * 5000))) is False


def test_a_correlation_filter_wants_every_value():
    view = MessageView(COLOURED)
    assert CorrelationFilter({"label": "order", "to": "paris"}, {"size": 5}).matches(view)
    assert not CorrelationFilter({"label": "order", "to": "rome"}).matches(view)
    assert not CorrelationFilter({}, {"size": 6}).matches(view)
    assert not CorrelationFilter({}, {"missing": None}).matches(view)


def properties_of(content):
    return codec.decode(content.application_properties)[0]


WHEN = codec.Moment(1_767_323_045_000)
UUID_ = UUID("00112233-4455-6677-8899-aabbccddeeff")


@pytest.mark.parametrize(
    ("wanted", "found", "matches"),
    [
        (WHEN, WHEN, True),
        (WHEN, codec.Moment(WHEN + 1), False),
        (WHEN, int(WHEN), False),
        (codec.Span(900_000_000), codec.Span(900_000_000), True),
        (codec.Span(5), 5, False),
        (1, True, False),
        (5, 5.0, True),
        (UUID_, UUID_, True),
        (UUID_, str(UUID_), False),
        ("", None, False),
    ],
)
def test_a_correlation_filter_compares_values_of_one_type(wanted, found, matches):
    assert CorrelationFilter({}, {"x": wanted}).matches(MessageView(message(x=found))) is matches


def test_sql_compares_times_with_times_alone():
    view = MessageView(message(at=WHEN, count=int(WHEN)))
    later = {"@later": codec.Moment(WHEN + 1)}
    assert SqlFilter("at < @later AND NOT at = count AND at + 1 IS NULL", later).matches(view)
    assert not SqlFilter("count < @later", later).matches(view)


def test_an_action_keeps_the_type_of_a_time():
    applied = SqlAction("SET copy = at; SET size = at; SET at = 'x'").applied(message(at=WHEN, size=5), {})
    found = MessageView(applied).properties
    assert [(type(found[name]), found[name]) for name in ("copy", "size", "at")] == [
        (codec.Moment, WHEN),
        (codec.Moment, WHEN),
        (str, "x"),
    ]


def test_actions_set_and_remove_properties():
    action = SqlAction("SET size = size + 1; SET sys.Label = 'changed'; REMOVE colour; SET fresh = 'new';")
    changed = action.applied(COLOURED, {"RuleName": "r"})
    found = properties_of(changed)
    assert (found["size"], found["fresh"], found["RuleName"]) == (6, "new", "r")
    assert "colour" not in found
    assert MessageView(changed).system("label") == "changed"
    assert changed.message_id == "m-1"


@pytest.mark.parametrize(
    ("expression", "changed"),
    [
        ("SET size = '8'", {"size": 8}),
        ("SET size = 2.0", {"size": 2}),
        ("SET size = 2.5", {"size": 2.5}),
        ("SET size = 'many'", {"size": "many"}),
        ("SET price = 3", {"price": 3.0}),
        ("SET urgent = 'FALSE'", {"urgent": False}),
        ("SET colour = size * 2 + 1", {"colour": "11"}),
        ("SET [a b] = p('colour') + '!'", {"a b": "red!"}),
        ("SET fresh = missing + 1", {"fresh": None}),
        ("SET gone = 5", {"gone": 5}),
    ],
)
def test_actions_convert_to_the_type_that_is_there(expression, changed):
    after = properties_of(SqlAction(expression).applied(COLOURED, {}))
    wanted = properties_of(COLOURED) | changed
    assert {name: repr(value) for name, value in after.items()} == {name: repr(v) for name, v in wanted.items()}


def test_actions_remove_properties_in_any_case_and_need_nothing_between_them():
    changed = SqlAction("SET SIZE = 7 REMOVE Colour REMOVE missing SET sys.Label = 'x'").applied(COLOURED, {})
    assert properties_of(changed)["size"] == 7
    assert set(properties_of(changed)) == set(properties_of(COLOURED)) - {"colour"}
    assert MessageView(changed).system("label") == "x"


@pytest.mark.parametrize("expression", ["", "SET", "SET a", "DROP a", "SET sys.Fog = 1", "REMOVE a b", ";SET a = 1"])
def test_a_wrong_action_is_refused(expression):
    with pytest.raises(SqlError, match="expected"):
        SqlAction(expression)


def test_a_subscription_without_rules_takes_everything():
    assert RuleBook().copies_of(COLOURED) == [COLOURED]


def test_matching_rules_without_action_give_one_copy_and_each_with_action_its_own():
    red = SqlFilter("colour = 'red'")
    rules = RuleBook(
        [
            Rule("a", red),
            Rule("b", red),
            Rule("c", red, SqlAction("SET copy = 1")),
            Rule("d", red, SqlAction("SET copy = 2")),
            Rule("e", FalseFilter(), SqlAction("SET copy = 3")),
        ]
    )
    first, *others = rules.copies_of(COLOURED)
    assert first == COLOURED
    assert [(properties_of(each)["copy"], properties_of(each)["RuleName"]) for each in others] == [(1, "c"), (2, "d")]


def test_a_message_that_no_rule_takes_is_not_copied():
    assert RuleBook([Rule("a", SqlFilter("colour = 'blue'"))]).copies_of(COLOURED) == []
    assert RuleBook([]).copies_of(Content()) == []


def test_rules_are_found_whatever_their_case_and_added_once():
    rules = RuleBook()
    with pytest.raises(ValueError, match="exists already"):
        rules.add(Rule("$default"))
    assert rules.remove("$DEFAULT")
    assert not rules.remove("$Default")
