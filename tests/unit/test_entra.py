"""Tokens are kept until shortly before they expire, and a refused one is replaced."""

from azure.core.credentials import AccessToken

from infrastructure.entra import DATABASE_SCOPE, EntraTokens


class Identity:
    """Makes credentials that live on the same clock; each token is numbered."""

    def __init__(self):
        self.now = 1000.0
        self.credentials = 0
        self.asked = []

    def make_credential(self):
        self.credentials += 1
        return self

    def get_token(self, scope):
        self.asked.append(scope)
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
