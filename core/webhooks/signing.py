"""Secrets and signatures of deliveries, by the convention of Standard Webhooks (https://www.standardwebhooks.com).

A secret is in an app setting, or is made from the app's key and the webhook's seed: no row has one, and a reader of
the database alone cannot sign.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping

PREFIX = "whsec_"
KEY_SETTING = "COREMACHINE_WEBHOOK_KEY"
_SHORTEST_SECRET = 16


class WebhookSettingWrong(Exception):
    """An app setting that a webhook needs is missing or cannot be used; the text names it, and not its value."""


class WebhookSecrets:
    """What webhooks have in app settings.

    Args:
        key: COREMACHINE_WEBHOOK_KEY; None where it is not set.
        settings: All app settings.
    """

    def __init__(self, key: str | None, settings: Mapping[str, str]) -> None:
        self._key = key
        self._settings = settings

    def read_setting(self, name: str) -> str:
        """An app setting. Raises WebhookSettingWrong where it is missing."""
        value = self._settings.get(name, "").strip()
        if not value:
            raise WebhookSettingWrong(f"expected the app setting {name}, found none; set it, or name another one")
        return value

    def make(self, seed: str) -> bytes:
        """The secret of a seed. Raises WebhookSettingWrong where there is no key to make one with."""
        if self._key is None:
            raise WebhookSettingWrong(
                f"expected the app setting {KEY_SETTING}, a long random text that secrets are made from, found none; "
                "set it, or name a setting that has the webhook's secret"
            )
        return hmac.digest(self._key.encode(), f"coremachine webhook {seed}".encode(), hashlib.sha256)

    def find(self, setting: str | None, *seeds: str | None) -> list[bytes]:
        """The secrets to sign with. Raises WebhookSettingWrong."""
        if setting is not None:
            return [_read_secret(setting, self.read_setting(setting))]
        return [self.make(seed) for seed in seeds if seed is not None]


def show_secret(secret: bytes) -> str:
    """As receivers take it: `whsec_` and base64."""
    return PREFIX + base64.b64encode(secret).decode()


def sign(secrets: Iterable[bytes], delivery_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature for each secret, with spaces between."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def _read_secret(setting: str, text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.startswith(PREFIX) or len(secret) < _SHORTEST_SECRET:
        raise WebhookSettingWrong(
            f"{setting}: expected {PREFIX} and base64 of {_SHORTEST_SECRET} bytes or more, found another text; fix it"
        )
    return secret
