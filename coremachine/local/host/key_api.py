"""The administration endpoints that show and change keys.

    GET                  /admin/host/keys, /admin/functions/{function}/keys
    GET PUT POST DELETE  /admin/host/keys/{name}, /admin/functions/{function}/keys/{name}
    GET PUT POST         /admin/host/systemkeys/_master

PUT takes `{"value": "..."}`, POST makes a random key. `functionkeys` is another word for the host's `keys`.
Source: Azure/azure-functions-host, KeysController.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from coremachine.local.host.http import Request, Response, json_response
from coremachine.local.host.key_store import MASTER_NAME, KeyStore
from coremachine.local.problem import Problem

_HOST_KEYS = frozenset({"keys", "functionkeys"})


class KeyApi:
    """Answers requests for keys, of the host or of a function."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    def answer_host(self, request: Request, parts: Sequence[str]) -> Response | None:
        """A request below /admin/host; None where there is no such endpoint."""
        scope, names = parts[0].lower(), parts[1:]
        if names == [MASTER_NAME] and scope in _HOST_KEYS | {"systemkeys"} and request.method != "DELETE":
            return self._answer_master(request, scope)
        if scope == "systemkeys" and not names and request.method == "GET":
            return _shown({})
        return self._answer(request, names, None) if scope in _HOST_KEYS else None

    def answer_function(self, request: Request, function: str, parts: Sequence[str]) -> Response | None:
        """As above, below /admin/functions/{function}/keys."""
        return self._answer(request, parts, function)

    def _answer(self, request: Request, names: Sequence[str], function: str | None) -> Response | None:
        if not names and request.method == "GET":
            return _shown(self._keys(function))
        if len(names) != 1:
            return None
        methods = {"DELETE": self._delete, "GET": self._show, "POST": self._set, "PUT": self._set}
        method = methods.get(request.method)
        return None if method is None else method(request, names[0], function)

    def _show(self, _request: Request, name: str, function: str | None) -> Response | None:
        keys = self._keys(function)
        return _one(200, name, keys[name]) if name in keys else None

    def _set(self, request: Request, name: str, function: str | None) -> Response:
        value = _value_in(request)
        if isinstance(value, Response):
            return value
        key, is_new = self._store.set_key(name, value, function)
        return _one(201 if is_new else 200, name, key)

    def _keys(self, function: str | None) -> Mapping[str, str]:
        return self._store.read().host if function is None else self._store.keys_of(function)

    def _delete(self, request: Request, name: str, function: str | None) -> Response | None:
        if name.startswith("_"):
            return _refused(request, f"Expected a name that does not begin with _ to delete, found {name[:100]!r}.")
        return Response(204) if self._store.delete_key(name, function) else None

    def _answer_master(self, request: Request, scope: str) -> Response | None:
        if request.method == "GET" and scope == "systemkeys":
            return _one(200, MASTER_NAME, self._store.read().master)
        if request.method not in {"POST", "PUT"}:
            return None
        value = _value_in(request)
        return value if isinstance(value, Response) else _one(200, MASTER_NAME, self._store.set_master(value))


def _value_in(request: Request) -> str | Response | None:
    """The key that a PUT brings, None for a random one."""
    if request.method == "POST":
        return None
    try:
        document = json.loads(request.body)
    except ValueError:
        document = None
    value = document.get("value") if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        return _refused(request, 'Expected a JSON object such as {"value": "text"} with a text in value, found none.')
    return value


def _refused(request: Request, detail: str) -> Response:
    return Response.of(Problem(400, "invalid_key", detail), request.path)


def _shown(keys: Mapping[str, str]) -> Response:
    return json_response(200, {"keys": [{"name": name, "value": value} for name, value in keys.items()]})


def _one(status: int, name: str, value: str) -> Response:
    return json_response(status, {"name": name, "value": value})
