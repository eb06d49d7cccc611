"""Signatures, by the vector that the libraries of Standard Webhooks are tested with."""

import base64

import pytest

from core.webhooks.signing import WebhookSecrets, WebhookSettingWrong, show_secret, sign

SETTING = "COREMACHINE_WEBHOOK_SECRET_TEAM"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the vector


def test_signature_is_that_of_the_convention():
    (secret,) = WebhookSecrets(None, {SETTING: SECRET}).find(SETTING)
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_made_from_the_key_and_the_seed():
    one, other = WebhookSecrets("k" * 32, {}), WebhookSecrets("l" * 32, {})
    assert one.make("seed") == one.make("seed")
    assert len({one.make("seed"), one.make("other"), other.make("seed")}) == 3
    assert base64.b64decode(show_secret(one.make("seed")).removeprefix("whsec_")) == one.make("seed")
    assert one.find(None, "a", None, "b") == [one.make("a"), one.make("b")]


@pytest.mark.parametrize("value", ["", "plain text of some length", "whsec_dG9vc2hvcnQ=", "whsec_not base64 at all!!"])
def test_a_setting_that_has_no_secret_is_named_and_not_repeated(value):
    with pytest.raises(WebhookSettingWrong, match=SETTING) as raised:
        WebhookSecrets("k" * 32, {SETTING: value}).find(SETTING)
    assert not value or value not in str(raised.value)


def test_without_a_key_no_secret_is_made():
    with pytest.raises(WebhookSettingWrong, match="COREMACHINE_WEBHOOK_KEY"):
        WebhookSecrets(None, {}).make("seed")
