"""The tick's time in parameters."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from core.scheduling.placeholders import check_placeholders, fill_in, find_dependent

TICK = datetime(2026, 1, 5, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))


def test_the_time_is_filled_in_at_any_depth():
    parameters = {
        "source": "/data/{tick:%Y/%m}/{tick:%d}",
        "options": {"at": ["{tick}", 3]},
        "n": 5,
        "{tick}": "stays a name",
    }
    check_placeholders(parameters)
    assert fill_in(parameters, TICK) == {
        "source": "/data/2026/01/05",
        "options": {"at": ["2026-01-05T02:30:00+01:00", 3]},
        "n": 5,
        "{tick}": "stays a name",
    }
    assert find_dependent(parameters) == {"source", "options"}


@pytest.mark.parametrize("text", ["{ticket}", "{other}", "{}", "tick", "{{x}}", "%Y", "{tick_at}"])
def test_other_brackets_are_text(text):
    check_placeholders({"a": text})
    assert fill_in({"a": text}, TICK) == {"a": text}


@pytest.mark.parametrize("text", ["{tick:%B}", "{tick:%}", "{tick:}", "{tick:day}", "{tick:%Y", "{tick", "{tick:%-d}"])
def test_what_cannot_be_filled_in_is_refused_by_name(text):
    with pytest.raises(ValueError, match="expected") as caught:
        check_placeholders({"day": ["ok", text]})
    assert caught.value.context["field"] == "parameters.day"
