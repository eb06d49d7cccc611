"""The keys that a host begins with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AccessKeys:
    """The master key and the host's default key; see `key_store`."""

    master: str
    host: str
