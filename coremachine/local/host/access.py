"""Keys of HTTP functions: the master key opens everything, the host key everything below admin level."""

from __future__ import annotations

import hmac
from dataclasses import dataclass


@dataclass(frozen=True)
class AccessKeys:
    """The keys of this host; without keys every function is open, as on a development machine."""

    master: str
    host: str

    def allow(self, auth_level: str, presented: str) -> bool:
        """Whether a presented key (empty: none) opens a function of this level: anonymous, function or admin."""
        if auth_level == "anonymous":
            return True
        is_master = hmac.compare_digest(presented.encode(), self.master.encode())
        is_host = hmac.compare_digest(presented.encode(), self.host.encode())
        return is_master or (auth_level == "function" and is_host)
