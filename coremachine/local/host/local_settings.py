"""local.settings.json: app settings for this machine, and how the host listens. Azure never sees this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coremachine.local.host.errors import SettingsError
from coremachine.local.host.settings import read_json

FILE = "local.settings.json"
_KNOWN = frozenset({"IsEncrypted", "Values", "Host", "ConnectionStrings"})
_HOST_KEYS = frozenset({"LocalHttpPort", "LocalHttpAddress", "CORS", "CORSCredentials"})


@dataclass(frozen=True)
class LocalSettings:
    """The file's content; None is what it does not say."""

    values: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    address: str | None = None
    cors_origins: tuple[str, ...] = ()
    cors_credentials: bool = False
    warnings: tuple[str, ...] = ()


def read_local_settings(app_dir: Path) -> LocalSettings:
    """Read the file, if there is one.

    Raises:
        SettingsError: it cannot be read, is encrypted, or a value has the wrong type.
    """
    path = app_dir / FILE
    if not path.exists():
        return LocalSettings()
    document = read_json(path)
    if document.get("IsEncrypted"):
        raise SettingsError(f"{path}: expected IsEncrypted to be false, found true: run `func settings decrypt` once")
    host = _section(path, document, "Host")
    return LocalSettings(
        values=_values(path, document),
        port=_typed(path, host, "LocalHttpPort", int),
        address=_typed(path, host, "LocalHttpAddress", str),
        cors_origins=_origins(_typed(path, host, "CORS", str)),
        cors_credentials=bool(_typed(path, host, "CORSCredentials", bool)),
        warnings=tuple(_warnings(document, host)),
    )


def app_environment(app_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the app: `Values` of local.settings.json where the given environment has no such name.

    Raises:
        SettingsError: local.settings.json exists and cannot be read, or holds a value that is no string.
    """
    return {**read_local_settings(app_dir).values, **environment}


def _origins(text: str | None) -> tuple[str, ...]:
    return tuple(origin.strip().rstrip("/") for origin in (text or "").split(",") if origin.strip())


def _values(path: Path, document: Mapping[str, Any]) -> dict[str, str]:
    values = _section(path, document, "Values")
    for name, value in values.items():
        if not isinstance(value, str):
            raise SettingsError(f"{path}: Values.{name} must be a string, found {type(value).__name__}")
    return dict(values)


def _section(path: Path, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name) or {}
    if not isinstance(section, dict):
        raise SettingsError(f"{path}: {name} must be an object, found {type(section).__name__}")
    return section


def _typed(path: Path, host: Mapping[str, Any], key: str, kind: type) -> Any:
    value = host.get(key)
    if value is None:
        return None
    if type(value) is not kind:
        raise SettingsError(f"{path}: Host.{key} must be {_NAMES[kind]}, found {value!r}")
    return value


_NAMES = {int: "a number", str: "a string", bool: "true or false"}


def _warnings(document: Mapping[str, Any], host: Mapping[str, Any]) -> list[str]:
    unknown = [key for key in document if key not in _KNOWN] + [f"Host.{key}" for key in host if key not in _HOST_KEYS]
    if document.get("ConnectionStrings"):
        unknown.append("ConnectionStrings")
    return [f"{FILE}: {key!r} is not supported by the local host and is ignored" for key in unknown]
