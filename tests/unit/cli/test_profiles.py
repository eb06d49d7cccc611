"""Servers by name: where they are written down, how their keys are found, and what errors say of them."""

import json
import sys
from pathlib import Path

import pytest

from core.project_file import JOBS_SETTING, read_project_settings
from coremachine.cli.main import main
from tests.unit.cli.conftest import FakeApi

PAGE = {"value": []}


@pytest.fixture
def write(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes profiles into the user's own file, or into pyproject.toml of the folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("COREMACHINE_URL", raising=False)
    folder = tmp_path / "project" / "below"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    api.answer("GET /api/jobs", PAGE)

    def write(text: str, *, shared: bool = False) -> Path:
        own = tmp_path / "config" / "coremachine" / "config.toml"
        file = tmp_path / "project" / "pyproject.toml" if shared else own
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("URL", api.url))
        file.chmod(0o600)
        return file

    return write


def test_profile_is_chosen_by_option_or_variable(api: FakeApi, write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[profiles.prod]\nurl = "URL/api"\nkey_env = "PROD_KEY"\nrole_key = "r0"')
    monkeypatch.setenv("PROD_KEY", "k0")
    assert main(["--profile", "prod", "list"]) == 0
    monkeypatch.setenv("COREMACHINE_PROFILE", "prod")
    assert main(["list"]) == 0
    for headers in api.headers:
        sent = {name.lower(): value for name, value in headers.items()}
        assert (sent["x-functions-key"], sent["x-coremachine-key"]) == ("k0", "r0")
    assert len(api.headers) == 2


def test_keys_of_the_environment_do_not_go_to_a_profile(api: FakeApi, write, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[profiles.prod]\nurl = "URL"')
    monkeypatch.setenv("COREMACHINE_FUNCTION_KEY", "of another server")
    assert main(["--profile", "prod", "list"]) == 0
    assert "x-functions-key" not in {name.lower() for name in api.headers[-1]}


def test_key_comes_from_a_command(api: FakeApi, write) -> None:
    write(f'[profiles.prod]\nurl = "URL"\nkey_command = [{json.dumps(sys.executable)}, "-c", "print(\'k1\')"]')
    assert main(["--profile", "prod", "list"]) == 0
    assert {name.lower(): value for name, value in api.headers[-1].items()}["x-functions-key"] == "k1"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('key_env = "NO_SUCH_KEY"', "expected a key in NO_SUCH_KEY, found nothing"),
        ('key_command = ["/no/such/program"]', "expected a key from /no/such/program, found"),
        ('key_command = ["false"]', "found code 1: no output"),
        ('key_command = "az"', "expected key_command as a list of texts"),
        ('colour = "red"', "found colour"),
    ],
)
def test_profile_that_has_no_key_is_named(
    api: FakeApi, write, capsys: pytest.CaptureFixture[str], fields: str, said: str
) -> None:
    file = write(f'[profiles.prod]\nurl = "URL"\n{fields}')
    assert main(["--profile", "prod", "list"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert str(file) in told
    assert api.requests == []


def test_key_that_others_can_read_is_said(write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write('[profiles.prod]\nurl = "URL"\nkey = "k0"')
    assert main(["--profile", "prod", "list"]) == 0
    assert capsys.readouterr().err == ""
    file.chmod(0o644)
    assert main(["--profile", "prod", "list"]) == 0
    told = capsys.readouterr().err
    assert told == f"{file} has a key, and others can read it: chmod 600 {file}\n"


@pytest.mark.parametrize("field", ['key = "k0"', 'key_command = ["touch", "ran"]'])
def test_shared_file_has_no_key_and_runs_nothing(write, capsys: pytest.CaptureFixture[str], field: str) -> None:
    write(f'[tool.coremachine.profiles.prod]\nurl = "URL"\n{field}', shared=True)
    assert main(["--profile", "prod", "list"]) == 2
    assert "expected url, key_env, role_key_env, scope, found key" in capsys.readouterr().err
    assert not Path("ran").exists()


def test_app_of_the_folder_does_not_mind_profiles(write) -> None:
    file = write('[tool.coremachine]\njobs = "mine"\n[tool.coremachine.profiles.prod]\nurl = "URL"', shared=True)
    assert read_project_settings(file.parent) == {JOBS_SETTING: "mine"}


def test_own_profile_counts_before_the_shared_one(write, capsys: pytest.CaptureFixture[str]) -> None:
    shared = write(
        '[tool.coremachine.profiles]\ntest = {url = "URL"}\nprod = {url = "http://elsewhere.example"}', shared=True
    )
    own = write('[profiles.prod]\nurl = "URL"\nscope = "api://x/.default"')
    assert main(["--profile", "test", "profiles", "-o", "json"]) == 0
    prod, test = json.loads(capsys.readouterr().out)["value"]
    assert (prod["file"], prod["keys"]) == (str(own), "az login for api://x/.default")
    assert (test["file"], test["chosen"]) == (str(shared), "yes")


def test_name_that_is_none_is_named(write, capsys: pytest.CaptureFixture[str]) -> None:
    write('[profiles.prod]\nurl = "URL"')
    assert main(["--profile", "prd", "list"]) == 2
    assert "expected one of prod, found 'prd'" in capsys.readouterr().err
    assert main(["--profile", "prod", "list", "--url", "http://127.0.0.1:1"]) == 2
    assert "expected --url or a profile" in capsys.readouterr().err


def test_server_that_is_away_is_named_with_its_profile(write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write('[profiles.prod]\nurl = "http://127.0.0.1:1"')
    assert main(["--profile", "prod", "list"]) == 6
    assert f"no server at http://127.0.0.1:1 (profile prod of {file}): " in capsys.readouterr().err


def test_profile_where_there_are_none(capsys: pytest.CaptureFixture[str], write, tmp_path: Path) -> None:
    """It expected one of none."""
    assert main(["--profile", "nope", "list"]) == 2
    told = capsys.readouterr().err
    assert (
        "expected no name, since there are no profiles, found 'nope'; leave it out, or write the profile into " in told
    )
    assert str(tmp_path / "config") in told
