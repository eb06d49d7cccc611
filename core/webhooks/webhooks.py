"""What people do with webhooks: write, give another secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_hex

from core.models.fields import expectation
from core.models.webhook import WebhookEvent, WebhookRecord
from core.ports import WebhookStore
from core.webhooks.signing import WebhookSecrets, show_secret
from core.webhooks.targets import TargetRules, read_target

# While receivers change to the new secret, deliveries are signed with both.
BOTH_SECONDS = 86_400.0


@dataclass(frozen=True)
class WebhookWish:
    """A webhook as somebody writes it; see `WebhookRecord` for the fields."""

    name: str
    events: tuple[WebhookEvent, ...]
    url: str | None = None
    url_setting: str | None = None
    job_types: tuple[str, ...] = ()
    tags: Mapping[str, str] | None = None
    failed_tasks: int = 1
    stalled_seconds: int = 1800
    is_paused: bool = False
    secret_setting: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class WrittenWebhook:
    """A webhook that was written. `secret`: its new secret, which nobody can read again."""

    webhook: WebhookRecord
    is_new: bool
    secret: str | None


class Webhooks:
    """Any thread may call."""

    def __init__(self, store: WebhookStore, secrets: WebhookSecrets, rules: TargetRules) -> None:
        self._store = store
        self._secrets = secrets
        self._rules = rules

    def put(self, wish: WebhookWish, *, actor: str | None = None) -> WrittenWebhook | None:
        """Write a webhook, or replace the one of its name; None where somebody deleted it at once.

        Raises:
            PydanticCustomError: The address cannot be used, or there is none; its context has the field's name.
            WebhookSettingWrong: A setting that it names, or the key for secrets, is missing or wrong.
        """
        self._check_address(wish)
        if wish.url_setting is not None:
            self._secrets.read_setting(wish.url_setting)
        seed = token_hex(16)
        # Before anything is written: without a key no secret could be shown.
        secret = self._secrets.find(wish.secret_setting, seed)[0]
        row = WebhookRecord(
            name=wish.name,
            url=wish.url,
            url_setting=wish.url_setting,
            events=tuple(dict.fromkeys(event.value for event in wish.events)),
            job_types=wish.job_types,
            tags=dict(wish.tags) if wish.tags else None,
            failed_tasks=wish.failed_tasks,
            stalled_seconds=wish.stalled_seconds,
            is_paused=wish.is_paused,
            secret_setting=wish.secret_setting,
            description=wish.description,
        )
        is_new, counting = self._store.put_webhook(row, seed=seed, actor=actor)
        written = self._store.find_webhook(wish.name)
        if written is None:
            return None
        return WrittenWebhook(written, is_new, show_secret(secret) if counting == seed else None)

    def rotate_secret(self, name: str, *, actor: str | None = None) -> str | None:
        """A new secret; for a day deliveries are signed with the former one too. None: it has none that is made here.

        Raises:
            WebhookSettingWrong: There is no key to make a secret with.
        """
        seed = token_hex(16)
        secret = self._secrets.make(seed)
        if not self._store.rotate_secret(name, seed, both_seconds=BOTH_SECONDS, actor=actor):
            return None
        return show_secret(secret)

    def _check_address(self, wish: WebhookWish) -> None:
        if (wish.url is None) == (wish.url_setting is None):
            found = "none" if wish.url is None else "both"
            raise _wrong("url", "either url or url_setting", found)
        if wish.url is None:
            return
        try:
            refusal = self._rules.find_refusal_of(read_target(wish.url))
        except ValueError as error:
            raise _wrong("url", *_expected_and_found(str(error))) from error
        if refusal is not None:
            raise _wrong("url", "an address that deliveries may go to", refusal)


def _expected_and_found(text: str) -> tuple[str, str]:
    expected, _, found = text.removeprefix("expected ").partition(", found ")
    return expected, found or "another text"


def _wrong(field: str, expected: str, found: str) -> Exception:
    error = expectation(expected, found)
    error.context["field"] = field  # type: ignore[index]
    return error
