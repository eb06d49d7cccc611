"""The keys of a host that asks for them, shared by its workers and changed by the administration endpoints.

The master key opens everything, a host key every function below admin level, a function's key that function. They last
as long as the host: they are in a file that its workers have in common, and that goes with it.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coremachine.local.host.access import AccessKeys

MASTER_NAME = "_master"
_DEFAULT_NAME = "default"


@dataclass(frozen=True)
class Keys:
    """All keys at one time.

    Attributes:
        host: By name.
        functions: The keys of each function by their names; by the function's name in lower case.
    """

    master: str
    host: Mapping[str, str]
    functions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def allow(self, auth_level: str, presented: str, function: str = "") -> bool:
        """Whether a presented key (empty: none) opens a function of this level: anonymous, function or admin."""
        if auth_level == "anonymous":
            return True
        good = [self.master]
        if auth_level == "function":
            good += [*self.host.values(), *self.functions.get(function.lower(), {}).values()]
        # Every key is looked at, so that the time does not show which one was nearly right.
        return sum(hmac.compare_digest(presented.encode(), key.encode()) for key in good) > 0


class KeyStore:
    """The keys in a file.

    Args:
        folder: For this host alone; empty at first.
        first: What counts until a key is changed.
    """

    def __init__(self, folder: Path, first: AccessKeys) -> None:
        self._file = folder / "keys.json"
        self._lock_file = folder / "lock"
        self._keys = Keys(first.master, {_DEFAULT_NAME: first.host})
        self._seen: tuple[int, int] | None = None

    def allow(self, auth_level: str, presented: str, function: str = "") -> bool:
        """See `Keys.allow`."""
        return auth_level == "anonymous" or self.read().allow(auth_level, presented, function)

    def read(self) -> Keys:
        """The keys as they are now, whichever worker changed them."""
        try:
            state = self._file.stat()
        except FileNotFoundError:
            return self._keys
        if self._seen != (state.st_ino, state.st_mtime_ns):
            self._keys = Keys(**json.loads(self._file.read_text(encoding="utf-8")))
            self._seen = (state.st_ino, state.st_mtime_ns)
        return self._keys

    def set_master(self, value: str | None) -> str:
        """Change the master key, to a random one for None; returns it."""
        chosen = value or secrets.token_urlsafe(32)
        self._change(lambda document: document.update(master=chosen))
        return chosen

    def set_key(self, name: str, value: str | None, function: str | None) -> tuple[str, bool]:
        """Add or change a key of the host, or of a function: the key, random for None, and whether it is new."""
        chosen, is_new = value or secrets.token_urlsafe(32), False

        def change(document: dict[str, Any]) -> None:
            nonlocal is_new
            keys = _keys_in(document, function)
            is_new = name not in keys
            keys[name] = chosen

        self._change(change)
        return chosen, is_new

    def delete_key(self, name: str, function: str | None) -> bool:
        """Remove a key; False if there is none of this name."""
        found: list[str] = []
        self._change(lambda document: found.append(_keys_in(document, function).pop(name, "")))
        return found != [""]

    def keys_of(self, function: str) -> Mapping[str, str]:
        """The keys of a function. One that has never had any gets its own now, as in Azure."""
        if function.lower() not in self.read().functions:
            self.set_key(_DEFAULT_NAME, None, function)
        return self.read().functions[function.lower()]

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        with self._locked():
            keys = self.read()
            document: dict[str, Any] = {
                "master": keys.master,
                "host": dict(keys.host),
                "functions": {name: dict(its) for name, its in keys.functions.items()},
            }
            change(document)
            new = self._file.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(json.dumps(document), encoding="utf-8")
            new.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _keys_in(document: dict[str, Any], function: str | None) -> dict[str, str]:
    found: dict[str, str] = (
        document["host"] if function is None else document["functions"].setdefault(function.lower(), {})
    )
    return found
