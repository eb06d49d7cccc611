"""Keys of a host that asks for them: who opens what, and how they are shown and changed."""

import json

import pytest

from coremachine.local.host.access import AccessKeys
from coremachine.local.host.http import Request
from coremachine.local.host.key_api import KeyApi
from coremachine.local.host.key_store import KeyStore


class Keys:
    """Two workers of one host."""

    def __init__(self, folder):
        self.first, self.second = (KeyStore(folder, AccessKeys("master", "host")) for _ in range(2))

    def ask(self, method, path, body=None):
        """A request to the first worker's /admin: its status and its document."""
        data = b"" if body is None else json.dumps(body).encode()
        request = Request(method, f"/admin/{path}", "", {}, {}, data)
        api, (kind, *parts) = KeyApi(self.first), path.split("/")
        if kind == "host":
            answer = api.answer_host(request, parts)
        else:
            answer = api.answer_function(request, parts[0], parts[2:])
        if answer is None:
            return 404, None
        return answer.status, json.loads(answer.body) if answer.body else None

    def opens(self, key, function="greet", level="function"):
        """Whether a key opens a function, in the view of the other worker."""
        return self.second.allow(level, key, function)


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


def test_a_function_key_opens_its_function_alone(keys):
    assert keys.ask("PUT", "functions/Greet/keys/mine", {"name": "mine", "value": "k"}) == (
        201,
        {"name": "mine", "value": "k"},
    )
    assert keys.opens("k", "greet")
    assert not keys.opens("k", "other")
    assert not keys.opens("k", "greet", "admin")
    assert keys.ask("PUT", "functions/greet/keys/mine", {"value": "n"})[0] == 200
    assert keys.opens("n", "GREET")
    assert not keys.opens("k", "greet")


def test_a_function_has_a_key_of_its_own_once_it_is_asked_for(keys):
    status, shown = keys.ask("GET", "functions/greet/keys")
    [only] = shown["keys"]
    assert (status, only["name"]) == (200, "default")
    assert keys.opens(only["value"])
    assert keys.ask("GET", "functions/greet/keys/default") == (200, only)
    assert keys.ask("DELETE", "functions/greet/keys/default") == (204, None)
    assert not keys.opens(only["value"])
    assert keys.ask("GET", "functions/greet/keys") == (200, {"keys": []})


@pytest.mark.parametrize("scope", ["keys", "functionKeys"])
def test_host_keys_open_every_function_until_they_are_removed(keys, scope):
    assert keys.ask("GET", f"host/{scope}") == (200, {"keys": [{"name": "default", "value": "host"}]})
    status, made = keys.ask("POST", f"host/{scope}/extra")
    assert (status, made["name"], len(made["value"]) > 30) == (201, "extra", True)
    assert keys.opens(made["value"], "any")
    assert keys.ask("POST", f"host/{scope}/extra")[0] == 200
    assert not keys.opens(made["value"], "any")
    assert keys.ask("DELETE", f"host/{scope}/default") == (204, None)
    assert keys.ask("DELETE", f"host/{scope}/default") == (404, None)
    assert not keys.opens("host")


def test_the_master_key_is_changed_and_never_deleted(keys):
    assert keys.ask("GET", "host/systemkeys/_master") == (200, {"name": "_master", "value": "master"})
    assert keys.ask("GET", "host/keys/_master") == (404, None)
    assert keys.ask("PUT", "host/keys/_master", {"value": "new"})[0] == 200
    assert keys.opens("new", level="admin")
    assert not keys.opens("master")
    status, made = keys.ask("POST", "host/systemkeys/_master")
    assert (status, keys.opens(made["value"], level="admin")) == (200, True)
    status, refused = keys.ask("DELETE", "host/keys/_master")
    assert (status, refused["code"]) == (400, "invalid_key")


@pytest.mark.parametrize("body", [None, {}, {"value": None}, {"value": ""}, {"value": 5}, ["value"]])
def test_a_key_without_a_value_is_refused(keys, body):
    status, refused = keys.ask("PUT", "host/keys/mine", body)
    assert status == 400
    assert "text in value" in refused["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "host/keys/none"),
        ("GET", "host/other"),
        ("PATCH", "host/keys/default"),
        ("PUT", "host/systemkeys/mine"),
        ("GET", "host/keys/a/b"),
        ("POST", "functions/greet/keys"),
    ],
)
def test_other_requests_for_keys_find_nothing(keys, method, path):
    assert keys.ask(method, path, {"value": "k"}) == (404, None)


def test_there_are_no_system_keys(keys):
    assert keys.ask("GET", "host/systemkeys") == (200, {"keys": []})


def test_an_empty_key_opens_nothing(keys):
    assert not keys.opens("")
    assert keys.opens("", level="anonymous")


def test_keys_are_readable_by_their_owner_alone(keys, tmp_path):
    keys.ask("POST", "host/keys/extra")
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
