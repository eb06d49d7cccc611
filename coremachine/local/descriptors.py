"""How many files and sockets a process may have open."""

from __future__ import annotations

import os
import resource

# Enough for every connection that a listener of ours keeps; a hard limit of millions is not needed, and makes some
# programs slow that a function starts.
_WANTED = 65_536


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, at most to 65,536; the limit that then holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()


def descriptor_limit() -> int:
    """The limit that holds now."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _WANTED if soft == resource.RLIM_INFINITY else soft


def has_free_descriptor() -> bool:
    """Whether this process can open one more file.

    False also when the whole machine has none left, or an audit hook raises.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except Exception:  # noqa: BLE001 - an audit hook of a function raises what it likes
        return False
    return True
