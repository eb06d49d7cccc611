"""Tokens of Microsoft Entra ID. azure-identity is imported when a credential is first made."""

import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from core.basics.first_imports import IMPORTS

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

DATABASE_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"

# A token is given out only while it lives this much longer. Entra's live for about an hour or more.
_REFRESH_MARGIN_SECONDS = 300.0


def default_credential(client_id: str | None = None) -> "TokenCredential":
    """A managed identity in Azure; elsewhere what the developer is signed in with.

    Args:
        client_id: Of a user-assigned identity. Without it AZURE_CLIENT_ID decides, or the system-assigned one is used.
    """
    with IMPORTS:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - slow, and not needed with passwords

    return DefaultAzureCredential(managed_identity_client_id=client_id) if client_id else DefaultAzureCredential()


class EntraTokens:
    """A `PasswordSource` of access tokens, kept until shortly before they expire. Any thread may call it.

    Args:
        make_credential: Called at first, and again for a renewal: a credential keeps the tokens that it got.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        make_credential: Callable[[], "TokenCredential"],
        *,
        scope: str = DATABASE_SCOPE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._make_credential = make_credential
        self._scope = scope
        self._clock = clock
        self._lock = Lock()
        self._credential: TokenCredential | None = None
        self._token: AccessToken | None = None

    def __call__(self, *, refused: str | None = None) -> str:
        with self._lock:
            # Of several threads with the same refused token, the first renews it for all.
            if refused is not None and self._token is not None and self._token.token == refused:
                self._credential = self._token = None
            if self._token is None or self._token.expires_on - _REFRESH_MARGIN_SECONDS <= self._clock():
                if self._credential is None:
                    self._credential = self._make_credential()
                self._token = self._credential.get_token(self._scope)
            return self._token.token
