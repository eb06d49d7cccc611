"""What webhooks need on one machine: a key that is kept with the data, and receivers on this machine."""

import secrets
from collections.abc import Mapping
from pathlib import Path

_KEY, _NETWORKS = "COREMACHINE_WEBHOOK_KEY", "COREMACHINE_WEBHOOK_NETWORKS"


def webhook_settings(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The settings; those that are given win.

    Args:
        folder: Where the key is kept, for its owner alone: with another key, secrets that were shown would be wrong.

    Raises:
        OSError: The key cannot be kept.
    """
    return {
        _KEY: given.get(_KEY, "").strip() or _read_key(folder / "webhook.key"),
        _NETWORKS: given.get(_NETWORKS, "").strip() or "127.0.0.0/8,::1/128",
    }


def _read_key(file: Path) -> str:
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32), encoding="ascii")
    return file.read_text(encoding="ascii").strip()
