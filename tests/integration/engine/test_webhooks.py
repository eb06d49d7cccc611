"""Webhooks on real PostgreSQL, to a real receiver: each transition is told of, whatever dies in between."""

import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from core.basics.faults import armed
from core.models.schedule import CatchUp, TickAnswer, TickStatus
from core.models.submission import SubmitRequest
from core.models.webhook import EVENTS_TO_CHOOSE, DeliveryAnswer, DeliveryStatus, WebhookEvent
from core.operating.explain import first_reason
from core.webhooks.sender import HOLD_SECONDS, MOST_PER_WEBHOOK, WebhookSender
from core.webhooks.signing import WebhookSecrets
from core.webhooks.targets import TargetRules
from core.webhooks.webhooks import Webhooks, WebhookWish
from infrastructure.insight import InsightQueries
from infrastructure.webhook_http import HttpPoster
from infrastructure.webhooks import WebhookRepository
from tests.webhook_receiver import is_signed, receiver

from .machine_suite import Rig
from .test_janitor import pass_time, run_to_tasks

SECRETS = WebhookSecrets("a key of tests, which is long enough", {})
ERROR = '{"type": "Oh", "message": "no"}'
LOOPBACK = TargetRules((ip_network("127.0.0.0/8"),))


class Killed(BaseException):
    """The process ended here."""


class Desk:
    """Webhooks as one process has them."""

    def __init__(self, engine):
        self.engine = engine
        self.store = WebhookRepository(engine.pool)
        self.webhooks = Webhooks(self.store, SECRETS, LOOPBACK)

    def put(self, url="http://127.0.0.1:9/hook", *, name="team", events=EVENTS_TO_CHOOSE, **wish):
        return self.webhooks.put(WebhookWish(name=name, url=url, events=tuple(map(WebhookEvent, events)), **wish))

    def sender(self, *, seconds=30.0):
        poster = HttpPoster(LOOPBACK, seconds=seconds)
        insight = InsightQueries(self.engine.pool)

        def explain_job(job_id):
            return first_reason(insight.get_job_facts(job_id))

        return WebhookSender(self.store, poster, SECRETS, source="urn:tests", explain_job=explain_job)

    @contextmanager
    def sending(self, **options):
        """A sender that runs, in a thread; what it raised is raised here."""
        stop, raised = threading.Event(), []

        def run():
            try:
                self.sender(**options).run(stop)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if raised:
            raise raised[0]

    def deliveries(self, name="team"):
        return list(reversed(self.store.list_deliveries(name, limit=100).items))

    def events(self, name="team"):
        return [str(each.event) for each in self.deliveries(name)]

    def send_all(self, name="team"):
        """One attempt of everything that is due, one after the other."""
        sender = self.sender()
        while found := self.store.claim_deliveries(10, 100, HOLD_SECONDS):
            for delivery in found:
                sender.deliver(delivery)
        return self.deliveries(name)

    def end_job(self, status="failed"):
        job_id = self.engine.submit()
        self.engine.query("select app.end_job(%s, 1, %s, %s)", job_id, status, ERROR)
        return job_id


@pytest.fixture
def desk(engine):
    return Desk(engine)


@pytest.fixture
def received():
    with receiver() as found:
        yield found


class TestWhatIsWritten:
    @pytest.mark.parametrize(
        ("bad", "expected"), [([], "job.completed"), ([2], "job.completed_with_errors")], ids=["whole", "partly"]
    )
    def test_a_job_that_ran_is_told_of_once(self, desk, rig, bad, expected):
        desk.put(events=["job.completed", "job.completed_with_errors", "job.failed", "job.cancelled"])
        job_id = rig.run(n=5, bad=bad)
        (delivery,) = desk.deliveries()
        assert (str(delivery.event), delivery.subject, delivery.status) == (expected, job_id, DeliveryStatus.PENDING)
        told = delivery.data
        assert (told["job_type"], told["run"], f"job.{told['status']}") == ("shapes", 1, expected)

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_a_job_that_was_ended_is_told_of_once(self, desk, status):
        desk.put()
        job_id = desk.end_job(status)
        desk.engine.query("select app.end_job(%s, 1, %s, %s)", job_id, status, ERROR)
        assert [(str(each.event), each.subject) for each in desk.deliveries()] == [(f"job.{status}", job_id)]

    def test_a_delivery_is_found_by_the_beginning_of_its_id(self, desk):
        desk.put()
        for _ in range(3):
            desk.end_job("failed")
        ids = [each.delivery_id for each in desk.deliveries()]

        def found(begins):
            return [each.delivery_id for each in desk.store.list_deliveries("team", id_begins=begins).items]

        assert found(ids[1][:20].upper()) == [ids[1]]
        assert sorted(found(ids[0][0])) == sorted(each for each in ids if each[0] == ids[0][0])
        assert found(ids[0] + "0") == []

    def test_what_was_rolled_back_is_not_told_of(self, desk):
        desk.put()
        job_id = desk.engine.submit()
        with desk.engine.pool.connection() as connection, connection.transaction(force_rollback=True):
            connection.execute("select app.end_job(%s, 1, 'failed', null)", (job_id,))
        assert desk.deliveries() == []

    def test_a_job_that_does_not_move_is_told_of_once_for_each_time(self, desk, rig):
        """Each webhook has its own patience; a job that goes on and stops again is reported again."""
        desk.put(name="soon", events=["job.stalled"], stalled_seconds=600)
        desk.put(name="late", events=["job.stalled"], stalled_seconds=1800)
        desk.put(name="other", events=["job.stalled"], stalled_seconds=600, job_types=("other",))
        job_id = rig.submit(n=5)

        def sweep(minutes=0.0):
            pass_time(rig, minutes * 60)
            return rig.janitor.sweep().stalled_jobs, len(desk.deliveries("soon")), len(desk.deliveries("late"))

        assert sweep() == (0, 0, 0)
        assert sweep(11) == (1, 1, 0)
        assert sweep(5) == (0, 1, 0)
        assert sweep(20) == (1, 1, 1)
        assert sweep(20) == (0, 1, 1)
        rig.queues.deliver(rig.machine)
        assert sweep(9) == (0, 1, 1)
        assert sweep(2) == (1, 2, 1)
        assert desk.deliveries("other") == []
        told = desk.deliveries("soon")[0].data
        assert (told["job_id"], told["stalled_seconds"], told["stage"]) == (job_id, 600, 1)
        assert told["explain"] == f"/api/jobs/{job_id}/explain"

    def test_a_stalled_job_says_why_and_keeps_that(self, desk, rig):
        """The address answers nobody: the first attempt finds the reason, the second has the same."""
        desk.put(events=["job.stalled"], stalled_seconds=60)
        job_id = rig.submit(n=5)
        pass_time(rig, 3600)
        rig.janitor.sweep()
        (delivery,) = desk.send_all()
        why = delivery.data["why"]
        assert why == first_reason(InsightQueries(desk.engine.pool).get_job_facts(job_id))
        assert why["message"]
        rig.machine.pause_job(job_id)
        desk.engine.execute("update app.webhook_deliveries set due_at = now() - interval '9 hours'")
        (delivery,) = desk.send_all()
        assert (delivery.attempt, delivery.data["why"]) == (2, why)

    def test_a_job_that_waits_on_purpose_is_no_stalled_one(self, desk, rig):
        desk.put(events=["job.stalled"], stalled_seconds=60)
        rig.machine.pause_job(rig.submit(n=1))
        in_two_hours = datetime.now(UTC) + timedelta(hours=2)
        rig.machine.submit_job(SubmitRequest("shapes", {"n": 2}, start_at=in_two_hours))
        rig.run(n=3)
        pass_time(rig, 3600)
        assert rig.janitor.sweep().stalled_jobs == 0

    def test_a_large_stage_whose_tasks_end_is_no_stalled_one(self, desk, rig):
        """What it reads is bounded by the window, not by the stage."""
        desk.put(events=["job.stalled"], stalled_seconds=60)
        job_id = run_to_tasks(rig, n=1000)
        pass_time(rig, 3600)
        rig.queues.deliver(rig.machine)
        assert rig.janitor.sweep().stalled_jobs == 0
        pass_time(rig, 3600)
        assert rig.janitor.sweep().stalled_jobs == 1
        assert desk.deliveries()[0].subject == job_id

    def test_each_webhook_is_told_of_what_it_asks_for(self, desk):
        wishes = {
            "all": {},
            "other-event": {"events": ["job.cancelled"]},
            "its-type": {"job_types": ("other", "te*")},
            "other-type": {"job_types": ("tes_", "%")},
            "its-tag": {"tags": {"team": "geo"}},
            "other-tag": {"tags": {"team": "geo", "site": "x"}},
            "paused": {"is_paused": True},
        }
        for name, wish in wishes.items():
            desk.put(name=name, **wish)
        job_id = desk.engine.submit()
        desk.engine.execute('update app.jobs set tags = \'{"team": "geo", "n": "1"}\' where job_id = %s', job_id)
        desk.engine.query('select app.end_job(%s, 1, \'failed\', \'{"type": "Oh", "message": "no"}\')', job_id)
        assert [name for name in wishes if desk.deliveries(name)] == ["all", "its-type", "its-tag"]
        told = desk.deliveries("all")[0].data
        assert (told["tags"], told["error_type"], told["error_message"]) == ({"team": "geo", "n": "1"}, "Oh", "no")

    def test_a_number_of_failed_tasks_is_told_of_when_it_is_reached(self, desk, rig):
        desk.put(events=["job.failing"], failed_tasks=2)
        desk.put(name="never", events=["job.failing"], failed_tasks=4)
        rig.run(n=9, bad=[1, 2, 3])
        (delivery,) = desk.deliveries()
        assert (delivery.data["stage"], delivery.data["failed_tasks"] >= 2) == (2, True)
        assert desk.deliveries("never") == []

    def test_schedules_tell_of_ticks_without_a_job(self, at):
        from .test_schedules import Desk as Schedules

        first = Schedules(Rig(at(0)))
        first.put(catch_up=CatchUp.SKIP)
        desk = Desk(at(5 * 3600))
        desk.put(events=["schedule.missed", "schedule.failed"])
        desk.put(name="other", job_types=("flood_*",))
        later = Schedules(Rig(at(5 * 3600), first.rig.queues))
        schedule = later.store.find_schedule("hourly")
        later.ticker.decide(schedule)
        (missed,) = desk.deliveries()
        assert (str(missed.event), missed.subject, missed.data["job_type"]) == ("schedule.missed", "hourly", "shapes")
        assert missed.data["tick_at"] < missed.data["until_at"]
        (due,) = later.store.claim_due_ticks(10, 60)
        assert later.store.settle_tick(due, TickAnswer(TickStatus.FAILED, reason="invalid_parameters", detail="n"))
        assert sorted(desk.events()) == ["schedule.failed", "schedule.missed"]
        assert desk.deliveries("other") == []


class TestSending:
    def test_a_receiver_gets_a_signed_event(self, desk, received):
        secret = desk.put(received.url).secret
        job_id = desk.end_job()
        with desk.sending():
            headers, event, body = received.next()
        assert is_signed(secret, headers, body)
        assert not is_signed(secret, headers, body + b" ")
        assert headers["content-type"].startswith("application/cloudevents+json")
        assert (event["specversion"], event["source"], event["type"]) == ("1.0", "urn:tests", "coremachine.job.failed")
        assert (event["id"], event["subject"], event["data"]["job_id"]) == (headers["webhook-id"], job_id, job_id)
        (delivery,) = desk.deliveries()
        assert (delivery.status, delivery.http_status, delivery.attempt) == (DeliveryStatus.DELIVERED, 204, 1)

    def test_a_sender_that_dies_after_sending_sends_again_with_the_same_id(self, desk, received):
        """Nobody knows whether it arrived: the receiver tells by the id that it has it."""
        desk.put(received.url)
        desk.end_job()

        def die(name):
            if name == "webhook.sent":
                raise Killed

        with armed(die), pytest.raises(Killed), desk.sending():
            first = received.next()
        (lost,) = desk.deliveries()
        assert (lost.status, lost.attempt) == (DeliveryStatus.PENDING, 1)
        assert desk.store.claim_deliveries(10, 10, HOLD_SECONDS) == []
        desk.engine.execute("update app.webhook_deliveries set held_until = app.clock()")
        with desk.sending():
            second = received.next()
        assert first[0]["webhook-id"] == second[0]["webhook-id"]
        assert first[2] == second[2]
        assert [(each.status, each.attempt) for each in desk.deliveries()] == [(DeliveryStatus.DELIVERED, 2)]

    def test_an_attempt_that_lost_its_hold_settles_nothing(self, desk):
        desk.put()
        desk.end_job()
        (first,) = desk.store.claim_deliveries(10, 10, 0)
        (second,) = desk.store.claim_deliveries(10, 10, 60)
        dead = DeliveryAnswer(DeliveryStatus.DEAD)
        assert (second.attempt, desk.store.settle_delivery(first, dead)) == (2, False)
        assert desk.store.settle_delivery(second, DeliveryAnswer(DeliveryStatus.DELIVERED, 200))
        assert not desk.store.settle_delivery(second, dead)

    def test_many_senders_send_each_delivery_once(self, desk, received):
        desk.put(received.url)
        for _ in range(12):
            desk.end_job()
        with desk.sending(), desk.sending(), desk.sending():
            ids = [received.next()[0]["webhook-id"] for _ in range(12)]
        assert len(set(ids)) == 12
        assert received.came.empty()
        assert {(each.status, each.attempt) for each in desk.deliveries()} == {(DeliveryStatus.DELIVERED, 1)}

    def test_a_receiver_that_is_silent_keeps_two_places_and_nobody_waiting(self, desk, received):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            desk.put(f"http://127.0.0.1:{silent.getsockname()[1]}/", name="a-silent-one")
            for _ in range(40):
                desk.end_job()
            desk.put(received.url)
            with desk.sending():
                held = [silent.accept()[0] for _ in range(MOST_PER_WEBHOOK)]
                job_id = desk.end_job()
                assert received.next()[1]["subject"] == job_id
                on_their_way = [each for each in desk.deliveries("a-silent-one") if each.held_until]
                for each in held:
                    each.close()
                silent.close()
        assert len(on_their_way) == MOST_PER_WEBHOOK

    def test_what_fails_is_tried_again_later_and_then_given_up(self, desk, received):
        desk.put(received.url)
        desk.end_job()
        received.statuses = [500, 302, 410]
        reasons = []
        for _ in range(3):
            (delivery,) = desk.send_all()
            reasons.append(delivery.reason)
            desk.engine.execute("update app.webhook_deliveries set due_at = app.clock() where status = 'pending'")
        assert reasons[:2] == [f"expected an answer from 200 to 299, found {status}" for status in (500, 302)]
        assert (delivery.status, delivery.http_status, delivery.attempt) == (DeliveryStatus.DEAD, 410, 3)
        assert desk.store.redeliver("team", delivery.delivery_id, actor="kim") is DeliveryStatus.DEAD
        (again,) = desk.send_all()
        assert (again.status, again.attempt, again.first_attempt) == (DeliveryStatus.DELIVERED, 4, 3)
        ids = {received.next()[0]["webhook-id"] for _ in range(4)}
        assert ids == {delivery.delivery_id}

    def test_a_sender_ends_when_there_is_no_webhook(self, desk):
        desk.sender().run(threading.Event())

    def test_paused_ones_wait(self, desk, received):
        desk.put(received.url)
        desk.end_job()
        desk.put(received.url, is_paused=True)
        assert [each.status for each in desk.send_all()] == [DeliveryStatus.PENDING]
        desk.put(received.url)
        assert [each.status for each in desk.send_all()] == [DeliveryStatus.DELIVERED]


class TestSecrets:
    def test_a_secret_is_shown_once_and_in_no_row(self, desk, received):
        first, second = desk.put(received.url), desk.put(received.url)
        assert (first.is_new, second.is_new, second.secret) == (True, False, None)
        rows = str(desk.engine.query("select * from app.webhooks")) + str(
            desk.engine.query("select * from app.audit_log")
        )
        assert first.secret.removeprefix("whsec_") not in rows

    def test_after_a_change_deliveries_are_signed_with_both_for_a_day(self, desk, received):
        former = desk.put(received.url).secret
        secret = desk.webhooks.rotate_secret("team")
        desk.end_job()
        desk.send_all()
        headers, _, body = received.next()
        assert is_signed(former, headers, body)
        assert is_signed(secret, headers, body)
        desk.engine.execute("update app.webhooks set former_until = app.clock()")
        desk.end_job()
        desk.send_all()
        headers, _, body = received.next()
        assert (is_signed(former, headers, body), is_signed(secret, headers, body)) == (False, True)

    def test_what_people_did_is_in_the_audit_log(self, desk):
        desk.put()
        desk.webhooks.rotate_secret("team", actor="kim")
        desk.store.delete_webhook("team", actor="kim")
        rows = desk.engine.query("select action, actor, detail from app.audit_log order by audit_id")
        assert [(row["action"], row["actor"]) for row in rows] == [
            ("webhook_put", None),
            ("webhook_rotate", "kim"),
            ("webhook_delete", "kim"),
        ]
        assert {row["detail"]["webhook"] for row in rows} == {"team"}


def test_old_deliveries_and_those_of_nobody_are_pruned(desk, received):
    desk.put(received.url)
    desk.put(name="other")
    desk.end_job()
    desk.send_all()
    assert desk.store.prune_deliveries(60, 100) == 0
    desk.engine.execute("update app.webhook_deliveries set settled_at = settled_at - interval '61 s'")
    desk.engine.execute("delete from app.webhooks where name = 'other'")
    assert desk.store.prune_deliveries(60, 100) == 2
    assert desk.engine.query("select from app.webhook_deliveries") == []


def test_without_webhooks_the_end_of_a_job_reads_one_empty_table(engine):
    read = (
        "select sum(seq_scan + idx_scan) filter (where relname = 'webhooks')::integer as webhooks,"
        " sum(seq_scan + idx_scan + n_tup_ins) filter (where relname <> 'webhooks')::integer as deliveries"
        " from pg_stat_xact_user_tables where relname like 'webhook%'"
    )
    job_id = engine.submit()
    with engine.pool.connection() as connection, connection.transaction():
        before = connection.execute(read).fetchone()
        connection.execute("select app.end_job(%s, 1, 'failed', %s)", (job_id, ERROR))
        after = connection.execute(read).fetchone()
    assert after["deliveries"] == before["deliveries"]
    assert after["webhooks"] == before["webhooks"] + 1
