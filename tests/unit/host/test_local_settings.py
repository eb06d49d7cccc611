"""local.settings.json."""

import json

import pytest

from coremachine.local.host.errors import SettingsError
from coremachine.local.host.local_settings import LocalSettings, app_environment, read_local_settings


@pytest.fixture
def write(tmp_path):
    def to_file(document):
        (tmp_path / "local.settings.json").write_text(json.dumps(document))
        return tmp_path

    return to_file


def test_file_may_be_missing(tmp_path):
    assert read_local_settings(tmp_path) == LocalSettings()


def test_real_environment_wins_over_the_file(write):
    folder = write({"IsEncrypted": False, "Values": {"A": "file", "B": "file"}})
    assert app_environment(folder, {"B": "real"}) == {"A": "file", "B": "real"}


def test_host_says_how_to_listen(write):
    host = {
        "LocalHttpPort": 7000,
        "LocalHttpAddress": "127.0.0.2",
        "CORS": "http://a:1, http://b/",
        "CORSCredentials": True,
    }
    found = read_local_settings(write({"Host": host}))
    assert (found.port, found.address) == (7000, "127.0.0.2")
    assert (found.cors_origins, found.cors_credentials) == (("http://a:1", "http://b"), True)
    assert found.warnings == ()


def test_what_is_ignored_is_named(write):
    document = {"ConnectionStrings": {"Db": "x"}, "Host": {"LocalHttpsPort": 1}, "Vlaues": {}}
    assert [line.split("'")[1] for line in read_local_settings(write(document)).warnings] == [
        "Vlaues",
        "Host.LocalHttpsPort",
        "ConnectionStrings",
    ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"Values": {"A": 1}}, r"Values\.A must be a string"),
        ({"Values": []}, None),
        ({"Values": ["A"]}, "Values must be an object"),
        ({"IsEncrypted": True, "Values": {"A": "CfDJ8"}}, "func settings decrypt"),
        ({"Host": {"LocalHttpPort": "7000"}}, r"Host\.LocalHttpPort must be a number"),
        ({"Host": {"LocalHttpPort": True}}, r"Host\.LocalHttpPort must be a number"),
        ({"Host": {"CORS": ["http://a"]}}, r"Host\.CORS must be a string"),
        ({"Host": {"CORSCredentials": "true"}}, r"Host\.CORSCredentials must be true or false"),
    ],
)
def test_unusable_values_are_refused_by_name(write, document, reason):
    folder = write(document)
    if reason is None:
        assert read_local_settings(folder).values == {}
        return
    with pytest.raises(SettingsError, match=reason):
        read_local_settings(folder)
