"""`coremachine ui` prints the address, and opens it with the key that is not printed."""

import webbrowser
from collections.abc import Callable

import pytest

from tests.unit.cli.conftest import FakeApi

Run = Callable[..., int]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, api: FakeApi) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: found.append(url) or True)
    api.answer("GET /api/readyz", {"checks": []})
    return found


def test_it_opens_the_page_and_keeps_the_key_to_itself(
    api: FakeApi, run: Run, opened: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COREMACHINE_FUNCTION_KEY", "secret")
    assert run("ui") == 0
    assert opened == [f"{api.url}/api/ui?code=secret"]
    assert capsys.readouterr().out == f"{api.url}/api/ui\n"


def test_no_open_prints_the_address_alone(
    api: FakeApi, run: Run, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ui", "--no-open") == 0
    assert (opened, capsys.readouterr().out) == ([], f"{api.url}/api/ui\n")


@pytest.mark.usefixtures("opened")
def test_a_machine_without_browser_is_an_error_with_the_address(
    api: FakeApi, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _url: False)
    assert run("ui") == 1
    assert f"open {api.url}/api/ui elsewhere" in capsys.readouterr().err
