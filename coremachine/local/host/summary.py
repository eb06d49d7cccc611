"""What a host reports about an app once it has loaded it. Its supervisor reads it, which knows no function itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class FunctionSummary:
    """One function; `path` is that of an HTTP function, with its prefix, and `detail` what the others wait for."""

    name: str
    trigger: str
    methods: tuple[str, ...] = ()
    path: str = ""
    detail: str = ""


@dataclass(frozen=True)
class AppSummary:
    """The functions that run, and those that do not, with the reason."""

    functions: tuple[FunctionSummary, ...]
    disabled: tuple[str, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        functions = tuple(FunctionSummary(**{**row, "methods": tuple(row["methods"])}) for row in message["functions"])
        return cls(functions, tuple(message["disabled"]), tuple(message["errors"]), tuple(message["warnings"]))
