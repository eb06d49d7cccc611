"""What the local stack gives webhooks."""

import stat

from coremachine.local.webhook_settings import webhook_settings

KEY, NETWORKS = "COREMACHINE_WEBHOOK_KEY", "COREMACHINE_WEBHOOK_NETWORKS"


def test_a_key_is_made_once_and_kept_for_its_owner_alone(tmp_path):
    """With another key at the next start, the secrets that were shown would be wrong."""
    first, second = webhook_settings(tmp_path, {}), webhook_settings(tmp_path, {})
    assert first == second
    assert len(first[KEY]) >= 32
    assert stat.S_IMODE((tmp_path / "webhook.key").stat().st_mode) == 0o600
    assert first[NETWORKS] == "127.0.0.0/8,::1/128"


def test_what_is_given_wins(tmp_path):
    given = {KEY: "g" * 32, NETWORKS: "10.0.0.0/8"}
    assert webhook_settings(tmp_path, given) == given
    assert list(tmp_path.iterdir()) == []
