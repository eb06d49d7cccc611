"""Tokens are kept until shortly before they expire, and a refused one is replaced."""

import pytest
from azure.core.credentials import AccessToken
from azure.identity import DefaultAzureCredential

from coremachine.local.host.clients import service_bus_client
from infrastructure import entra
from infrastructure.entra import DATABASE_SCOPE, EntraTokens, TokenUnavailable


class Identity:
    """Makes credentials that live on the same clock; each token is numbered."""

    def __init__(self):
        self.now = 1000.0
        self.credentials = 0
        self.asked = []
        self.refusal = None

    def make_credential(self):
        self.credentials += 1
        return self

    def get_token(self, scope):
        self.asked.append(scope)
        if self.refusal is not None:
            raise self.refusal
        return AccessToken(f"token-{len(self.asked)}", int(self.now + 3600))


def test_a_token_is_kept_until_five_minutes_before_its_end():
    """An expired token needed a restart every hour (lesson D28)."""
    identity = Identity()
    tokens = EntraTokens(identity.make_credential, clock=lambda: identity.now)

    assert [tokens(), tokens()] == ["token-1", "token-1"]
    identity.now += 3299
    assert tokens() == "token-1"
    identity.now += 1
    assert tokens() == "token-2"
    assert identity.asked == [DATABASE_SCOPE] * 2
    assert identity.credentials == 1


def test_a_refused_token_is_renewed_by_a_new_credential_since_the_old_one_keeps_its_tokens():
    identity = Identity()
    tokens = EntraTokens(identity.make_credential, clock=lambda: identity.now)

    assert [tokens(), tokens(refused="token-1"), tokens()] == ["token-1", "token-2", "token-2"]
    assert identity.credentials == 2


def test_a_token_that_two_threads_were_refused_with_is_renewed_once():
    identity = Identity()
    tokens = EntraTokens(identity.make_credential, clock=lambda: identity.now)

    assert tokens() == "token-1"
    assert [tokens(refused="token-1"), tokens(refused="token-1")] == ["token-2", "token-2"]
    assert identity.credentials == 2


def test_no_credential_is_made_before_a_token_is_needed():
    identity = Identity()
    EntraTokens(identity.make_credential)
    assert identity.credentials == 0


def test_a_token_that_cannot_be_renewed_is_used_as_long_as_it_lives(caplog):
    """The endpoint was away for a minute, and every new connection failed although the token was good."""
    identity = Identity()
    tokens = EntraTokens(identity.make_credential, clock=lambda: identity.now)
    assert tokens() == "token-1"
    identity.refusal = ConnectionError("the endpoint is away")
    identity.now += 3400
    assert tokens() == "token-1"
    assert "token_not_renewed" in caplog.text
    identity.now += 200
    with pytest.raises(TokenUnavailable, match="the endpoint is away"):
        tokens()


def test_what_a_person_reads_without_a_token_is_one_line_without_links_and_credentials():
    identity = Identity()
    identity.refusal = ValueError(
        "DefaultAzureCredential failed.\n\tManagedIdentityCredential: 500, password=hush1234\n"
        "Visit https://example.org to troubleshoot.\nTo mitigate this issue, see https://example.org."
    )
    with pytest.raises(TokenUnavailable) as raised:
        EntraTokens(identity.make_credential)()
    text = str(raised.value)
    assert text.startswith("expected a token of Entra ID for https://ossrdbms-aad.database.windows.net, found none; ")
    assert "ManagedIdentityCredential: 500" in text
    assert not [part for part in ("\n", "hush", "example.org") if part in text]


@pytest.mark.parametrize("given", [{}, {"Bus__clientId": ""}, {"Bus__clientId": "of-bus"}])
def test_the_host_receives_as_the_identity_that_the_app_sends_as(monkeypatch, given):
    """Without a client id the host passed on None: the system-assigned identity, whatever AZURE_CLIENT_ID is."""
    made = []

    class Recorded(DefaultAzureCredential):
        def __init__(self, **options):
            made.append(options)
            super().__init__(**options)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Recorded)
    environment = {"Bus__fullyQualifiedNamespace": "a.servicebus.windows.net", **given}
    service_bus_client("Bus", environment).close()
    entra.default_credential(given.get("Bus__clientId") or None)
    assert made[0] == made[1] == ({"managed_identity_client_id": "of-bus"} if "of-bus" in given.values() else {})
