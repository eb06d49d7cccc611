"""Tokens of Microsoft Entra ID. azure-identity is imported when a credential is first made."""

import time
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

from core.basics.first_imports import IMPORTS
from core.safety.credentials import redacted_start
from core.safety.safe_log import safe_logger
from core.safety.safe_text import text_of, type_name

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

log = safe_logger(__name__)

DATABASE_SCOPE = "https://ossrdbms-aad.database.windows.net/.default"

# A token is renewed when it lives no longer than this. Entra's live for about an hour or more.
_REFRESH_MARGIN_SECONDS = 300.0
# How the SDK's own advice begins: links.
_ADVICE = ("Visit ", "To mitigate ")
_LONGEST_REASON = 1000


def default_credential(client_id: str | None = None) -> "TokenCredential":
    """A managed identity in Azure; elsewhere what the developer is signed in with.

    Args:
        client_id: Of a user-assigned identity. Without it AZURE_CLIENT_ID decides, or the system-assigned one is used.
    """
    with IMPORTS:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - slow, and not needed with passwords

    return DefaultAzureCredential(managed_identity_client_id=client_id) if client_id else DefaultAzureCredential()


class TokenUnavailable(Exception):
    """No token could be had; in one line, with what each way to sign in answered."""

    def __init__(self, scope: str, error: Exception) -> None:
        told = (line.strip().rstrip(".:") for line in text_of(error).splitlines())
        reason = "; ".join(line for line in told if line and not line.startswith(_ADVICE))
        super().__init__(
            f"expected a token of Entra ID for {scope.removesuffix('/.default')}, found none; look at the app's "
            "identity and AZURE_CLIENT_ID, or sign in with `az login` on your machine. "
            f"{type_name(error)}: {redacted_start(reason, _LONGEST_REASON)}"
        )


class EntraTokens:
    """A `PasswordSource` of access tokens, renewed shortly before they expire. Any thread may call it.

    Calling it raises TokenUnavailable if there is no token. While the present one lives, a failed renewal is a warning.

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
                self._token = self._renew(self._token)
            return self._token.token

    def _renew(self, present: "AccessToken | None") -> "AccessToken":
        try:
            if self._credential is None:
                self._credential = self._make_credential()
            return self._credential.get_token(self._scope)
        except Exception as error:
            problem = TokenUnavailable(self._scope, error)
            if present is None or present.expires_on <= self._clock():
                raise problem from error
            log.warning("token_not_renewed", extra={"checkpoint": "TOKEN", "reason": str(problem)})
            return present
