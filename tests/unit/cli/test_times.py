"""Times that commands read and show: of this machine's zone, or UTC on request; always with the zone."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from coremachine.cli.errors import UsageProblem
from coremachine.cli.render import change_text, local_time
from coremachine.cli.times import choose_zone, read_time, show_time, with_local_times

from .conftest import JOB_ID, FakeApi

Run = Callable[..., int]
NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    choose_zone(is_utc=False)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-03-29T00:59:59Z", "01:59:59 CET"),
        ("2026-03-29T01:00:00Z", "03:00:00 CEST"),
        ("2026-03-28T23:30:00+00:00", "00:30:00 CET"),
        ("2026-03-28T22:30:00Z", "2026-03-28 23:30:00 CET"),
    ],
)
def test_a_time_is_shown_with_its_zone_and_with_another_day_s_date(text: str, shown: str) -> None:
    assert show_time(datetime.fromisoformat(text), NOW) == shown


def test_times_are_in_utc_on_request() -> None:
    choose_zone(is_utc=True)
    assert show_time(datetime(2026, 3, 29, 1, tzinfo=UTC), NOW) == "01:00:00 UTC"
    assert local_time("2020-01-02T03:04:05.678+01:00") == "2020-01-02 02:04:05 UTC"
    assert local_time("[red]soon") == r"\[red]soon"


def test_times_in_texts_of_the_server_are_shown_like_others() -> None:
    text = "since 10:30:05Z (90 min ago); fails by 2026-03-30 00:00:01Z; 12:00:00 stays"
    assert with_local_times(text, NOW) == (
        "since 12:30:05 CEST (90 min ago); fails by 2026-03-30 02:00:01 CEST; 12:00:00 stays"
    )


@pytest.mark.parametrize(
    ("text", "local", "utc"),
    [
        ("2026-01-02T06:00", "2026-01-02T05:00:00+00:00", "2026-01-02T06:00:00+00:00"),
        ("2026-07-02T06:00", "2026-07-02T04:00:00+00:00", "2026-07-02T06:00:00+00:00"),
        ("2026-07-02T06:00-02:00", "2026-07-02T08:00:00+00:00", "2026-07-02T08:00:00+00:00"),
    ],
)
def test_a_time_without_a_zone_is_of_the_zone_that_is_shown(text: str, local: str, utc: str) -> None:
    assert read_time("--since", text) == local
    choose_zone(is_utc=True)
    assert read_time("--since", text) == utc


@pytest.mark.parametrize("text", ["soon", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="--since: expected a time such as"):
        read_time("--since", text)


@pytest.mark.parametrize("how", ["option", "variable", "neither"])
def test_switch_or_variable_counts_for_one_command(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    item = {"job_id": JOB_ID, "job_type": "t", "status": "completed", "created_at": "2020-01-02T03:04:05+00:00"}
    api.answer("GET /api/jobs", {"value": [item]})
    if how == "variable":
        monkeypatch.setenv("COREMACHINE_UTC", "1")
    options = ["--utc"] if how == "option" else []
    assert run(*options, "list", "-o", "table", "--since", "2020-01-02T03:00") == 0
    shown = "2020-01-02 04:04:05 CET" if how == "neither" else "2020-01-02 03:04:05 UTC"
    assert shown in capsys.readouterr().out
    asked = "2020-01-02T02:00:00+00:00" if how == "neither" else "2020-01-02T03:00:00+00:00"
    assert api.requests[-1][1]["created_after"] == asked
    monkeypatch.delenv("COREMACHINE_UTC", raising=False)
    assert run("list", "-o", "json") == 0
    assert "2020-01-02T03:04:05+00:00" in capsys.readouterr().out
    assert local_time("2020-01-02T03:04:05Z").endswith("CET")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"action": "paused", "at": "2020-01-02T03:04:05Z", "actor": "kim", "reason": "lunch [x]"},
            r"paused 2020-01-02 04:04:05 CET by kim (lunch \[x])",
        ),
        ({"action": "created", "at": "2020-01-02T03:04:05Z"}, "created 2020-01-02 04:04:05 CET"),
        ({}, ""),
    ],
)
def test_the_latest_change_of_a_thing_has_its_time_and_who_did_it(change: dict[str, str], text: str) -> None:
    assert change_text(change) == text
