"""What comes of an attempt, and that nothing of the receiver's or of the secret is told."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from core.models.webhook import DeliveryStatus, DueDelivery, PostAnswer
from core.webhooks.sender import LONGEST_DELAY, RETRY_DELAYS, NotDelivered, WebhookSender
from core.webhooks.signing import WebhookSecrets

URL_SETTING = "COREMACHINE_WEBHOOK_URL_TEAM"
DUE = DueDelivery(
    webhook="team",
    delivery_id="0b0c3f0e-0000-4000-8000-000000000001",
    event="job.failed",
    subject="ab" * 32,
    data={"job_type": "t", "text": "höhe"},
    attempt=1,
    first_attempt=0,
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    url="https://example.org/hook",
    url_setting=None,
    secret_setting=None,
    secret_seed="seed",  # noqa: S106 - useless without the key
    former_seed=None,
)


@dataclass
class Fakes:
    """The store and the poster."""

    answer: int | Exception = 200
    retry_after: float | None = None
    posts: list = field(default_factory=list)
    settled: list = field(default_factory=list)
    reason: object = None
    kept: dict = field(default_factory=dict)

    def add_reason(self, delivery, why):
        self.kept.setdefault("why", why)
        return replace(delivery, data={**delivery.data, **self.kept})

    def explain_job(self, job_id):
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason

    def post(self, url, headers, body):
        self.posts.append((url, headers, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return PostAnswer(self.answer, self.retry_after)

    def settle_delivery(self, delivery, answer):
        self.settled.append(answer)
        return True

    def deliver(self, delivery=DUE, key="k" * 32, settings=None):
        secrets = WebhookSecrets(key, settings or {})
        WebhookSender(
            *(self, self, secrets),
            source="urn:tests",
            explain_job=self.explain_job,
            read_clock=lambda: 1700000000.9,
        ).deliver(delivery)
        return self.settled[-1]


def test_each_attempt_has_the_same_body_and_a_time_of_its_own():
    fakes = Fakes()
    fakes.deliver()
    fakes.deliver(replace(DUE, attempt=2))
    (url, headers, body), (_, _, again) = fakes.posts
    assert (url, body) == (DUE.url, again)
    assert (headers["webhook-timestamp"], headers["webhook-id"]) == ("1700000000", DUE.delivery_id)
    assert b'"time":"2026-01-02T03:04:05+00:00"' in body
    assert "höhe".encode() in body


def test_a_stalled_job_says_why_and_the_same_at_each_attempt():
    stalled = replace(DUE, event="job.stalled")
    fakes = Fakes(reason={"code": "queue_without_app"})
    fakes.deliver(stalled)
    # By now something else keeps the job, and the row has the first reason.
    fakes.reason = {"code": "paused"}
    fakes.deliver(replace(stalled, attempt=2, data={**stalled.data, **fakes.kept}))
    assert fakes.posts[0][2] == fakes.posts[1][2]
    assert b'"why":{"code":"queue_without_app"}' in fakes.posts[0][2]
    other = Fakes(reason={"code": "paused"})
    other.deliver()
    assert b'"why"' not in other.posts[0][2]


@pytest.mark.parametrize("reason", [None, RuntimeError("a bug")])
def test_a_stalled_job_without_a_reason_is_sent_all_the_same(reason):
    fakes = Fakes(reason=reason)
    assert fakes.deliver(replace(DUE, event="job.stalled")).status is DeliveryStatus.DELIVERED
    assert b'"why"' not in fakes.posts[0][2]


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_an_answer_of_success_delivers(status):
    answer = Fakes(status).deliver()
    assert (answer.status, answer.http_status) == (DeliveryStatus.DELIVERED, status)


@pytest.mark.parametrize("failure", [302, 400, 404, 429, 500, NotDelivered("no answer within 10 seconds")])
def test_everything_else_is_tried_again_within_a_day_and_then_given_up(failure):
    answers = [Fakes(failure).deliver(replace(DUE, attempt=attempt)) for attempt in range(1, 10)]
    assert [answer.delay_seconds for answer in answers] == [*RETRY_DELAYS, None]
    assert [answer.status for answer in answers] == [DeliveryStatus.PENDING] * 8 + [DeliveryStatus.DEAD]
    assert "attempt 9, the last one" in answers[-1].reason
    assert sum(RETRY_DELAYS) <= 86_400
    assert list(RETRY_DELAYS) == sorted(RETRY_DELAYS)


@pytest.mark.parametrize(
    ("wished", "delay"),
    [(None, 5.0), (1.0, 5.0), (90.0, 90.0), (1e9, LONGEST_DELAY)],
    ids=["none", "less", "more", "ever"],
)
def test_a_receiver_may_ask_for_more_time(wished, delay):
    assert Fakes(429, retry_after=wished).deliver().delay_seconds == delay


def test_one_that_is_sent_again_by_hand_has_all_attempts_again():
    answer = Fakes(500).deliver(replace(DUE, attempt=10, first_attempt=9))
    assert (answer.status, answer.delay_seconds) == (DeliveryStatus.PENDING, RETRY_DELAYS[0])


def test_a_receiver_that_is_gone_gets_no_more_of_it():
    assert Fakes(410).deliver().status is DeliveryStatus.DEAD


def test_an_address_may_be_in_an_app_setting_and_is_in_no_reason(caplog):
    address = "https://example.org/services/T0/very-secret"
    in_setting = replace(DUE, url=None, url_setting=URL_SETTING)
    fakes = Fakes(NotDelivered("no answer within 10 seconds"))
    answer = fakes.deliver(in_setting, settings={URL_SETTING: address})
    assert fakes.posts[0][0] == address
    assert "very-secret" not in str(answer) + caplog.text
    missing = fakes.deliver(in_setting)
    assert (missing.status, URL_SETTING in missing.reason, len(fakes.posts)) == (DeliveryStatus.PENDING, True, 1)


def test_what_nobody_expected_is_noted_without_its_text(caplog):
    answer = Fakes(RuntimeError("whsec_text")).deliver()
    assert (answer.status, answer.reason) == (DeliveryStatus.PENDING, "internal error: RuntimeError")
    assert "webhook_delivery_broken" in caplog.text
