"""Schedules on real PostgreSQL, at times that the test sets: one job for each tick, or one reason."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.advancing.submission import Submitter
from core.authors import bounded_calls
from core.basics.faults import armed
from core.errors import DeliveryError, InvalidParameters, MessageRefused, StoreUnavailable, SubmissionHangs
from core.models import JobQueueMessage
from core.models.message import Kept, read_job_message
from core.models.schedule import CatchUp, Overlap, PlannedTick, TickAnswer, TickStatus
from core.models.submission import SubmitRequest
from core.operating.janitor import Janitor
from core.scheduling import ticker
from core.scheduling.cron import ticks_after
from core.scheduling.explain import explain_schedule
from core.scheduling.schedules import Schedules, ScheduleWish
from core.scheduling.ticker import HOLD_SECONDS, MOST_ATTEMPTS, MOST_ATTEMPTS_OF_WAITING, ScheduleTicker
from infrastructure.janitor_store import JanitorRepository
from infrastructure.retention import RetentionRepository
from infrastructure.schedules import ScheduleRepository
from jobs.registry import Registry, UnknownJobType
from tests.stories import examples, many_more

from .machine_suite import Rig, ShapesJob

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Desk:
    """Schedules as one process has them at one time."""

    rig: Rig

    def __post_init__(self) -> None:
        self.store = ScheduleRepository(self.rig.engine.pool)
        submitter = Submitter(self.rig.registry, self.rig.state, self.rig.orchestration)
        self.ticker = ScheduleTicker(self.store, submitter)
        self.schedules = Schedules(self.store, self.rig.registry, self.ticker, most_bytes=100_000)

    def put(self, cron="0 * * * *", *, name="hourly", **wish: Any):
        wish = {"parameters": {"label": "{tick}"}, "job_type": "shapes"} | wish
        return self.schedules.put(ScheduleWish(name=name, cron=cron, **wish))

    def ticks(self, name="hourly"):
        return list(reversed(self.store.list_ticks(name, limit=1000).items))

    def outcomes(self, name="hourly"):
        return [(tick.tick_at.hour, str(tick.status), tick.reason) for tick in self.ticks(name)]

    def jobs(self):
        return self.rig.engine.query("select job_id, status, parameters ->> 'label' as label from app.jobs")


@pytest.fixture
def desk(at) -> Callable[[float], Desk]:
    """The schedules, a number of hours after midnight; the queues are the same all the time."""
    first = None

    def desk_at(hours: float, **options: Any) -> Desk:
        nonlocal first
        rig = Rig(at(hours * 3600), None if first is None else first.queues, **options)
        first = first or rig
        return Desk(rig)

    return desk_at


def test_a_tick_gets_one_job_with_its_time(desk):
    desk(0.4).put(time_zone="Asia/Kolkata", cron="0 6 * * *")
    assert desk(0.501).ticker.tick().submitted == 1
    later = desk(0.6)
    assert later.ticker.tick().decided == 0
    (job,) = later.jobs()
    assert job["label"] == "2026-01-01T06:00:00+05:30"
    (tick,) = later.ticks()
    assert (tick.tick_at, tick.submitted_job_id) == (MIDNIGHT + timedelta(minutes=30), job["job_id"])
    (event,) = later.rig.engine.query("select detail from app.job_events where event = 'job_submitted'")
    assert event["detail"] == {"actor": "schedule hourly"}


def test_its_first_tick_is_after_it_was_written(desk):
    assert desk(0.5).put(cron="30 0 * * *").schedule.next_tick_at == MIDNIGHT + timedelta(days=1, minutes=30)


def test_the_same_parameters_are_a_job_of_their_own_at_each_tick(desk):
    desk(0.5).put(parameters={"label": "same"}, overlap=Overlap.ALLOW)
    for hours in (1.001, 2.001):
        assert desk(hours).ticker.tick().submitted == 1
    assert len(desk(3).jobs()) == 2


@pytest.mark.parametrize("overlap", list(Overlap))
def test_many_instances_give_each_tick_one_job(desk, crowd, overlap):
    desk(0.5).put(overlap=overlap, catch_up=CatchUp.ALL)
    now = desk(4.5)
    crowd(*[now.ticker.tick for _ in range(12)])
    submitted = {"allow": 4, "skip": 1, "wait": 1}[overlap]
    assert [tick.tick_at.hour for tick in now.ticks()] == [1, 2, 3, 4]
    assert len(now.jobs()) == len({job["label"] for job in now.jobs()}) == submitted
    statuses = [str(tick.status) for tick in now.ticks()]
    assert statuses.count("submitted") == submitted
    assert "due" not in statuses


@pytest.mark.parametrize("point", ["schedule.decided", "submit.written", "submit.sent", "schedule.submitted"])
def test_a_process_that_dies_loses_no_tick_and_doubles_none(desk, point):
    desk(0.5).put()
    dying = desk(1.001)

    def die(reached):
        if reached == point:
            raise Killed

    with armed(die), pytest.raises(Killed):
        dying.ticker.tick()
    assert [str(tick.status) for tick in dying.ticks()] == ["due"]
    after = desk(1.001 + HOLD_SECONDS / 3600)
    assert after.ticker.tick().submitted == 1
    (job,) = after.jobs()
    (tick,) = after.ticks()
    assert (str(tick.status), tick.submitted_job_id) == ("submitted", job["job_id"])
    after.rig.janitor.sweep()
    after.rig.queues.run(after.rig.machine)
    assert after.rig.job(job["job_id"]).status == "completed"


def test_a_queue_that_takes_nothing_loses_no_job(desk):
    class Away:
        def send_messages(self, queue, messages):
            raise DeliveryError(queue, "away")

    desk(0.5).put()
    assert desk(1.001, sender=Away()).ticker.tick().submitted == 1
    after = desk(1.1)
    assert after.rig.janitor.sweep().announced_jobs == 1


def test_a_tick_is_skipped_while_a_job_is_open_and_names_it(desk):
    desk(0.5).put()
    desk(1.001).ticker.tick()
    now = desk(2.001)
    now.ticker.tick()
    (job,) = now.jobs()
    assert now.outcomes() == [(1, "submitted", None), (2, "skipped", "overlap")]
    found = {each.code: each for each in explain_schedule(now.schedules.find_facts("hourly"))}
    assert found["job_is_open"].about == {"job_id": job["job_id"]}
    assert f"job {job['job_id'][:12]} of the schedule" in found["tick_skipped"].message
    assert job["job_id"] in now.ticks()[1].detail
    now.rig.queues.run(now.rig.machine)
    desk(3.001).ticker.tick()
    assert now.outcomes()[2] == (3, "submitted", None)


def test_ticks_wait_for_the_job_before_them_in_order(desk):
    desk(0.5).put(overlap=Overlap.WAIT)
    for hours in (1.001, 2.001, 3.001):
        desk(hours).ticker.tick()
    now = desk(3.1)
    assert [outcome[1] for outcome in now.outcomes()] == ["submitted", "waiting", "waiting"]
    for count in (2, 3):
        now.rig.queues.run(now.rig.machine)
        now.ticker.tick()
        assert [outcome[1] for outcome in now.outcomes()].count("submitted") == count
    assert [tick.parameters["label"][11:13] for tick in now.ticks()] == ["01", "02", "03"]


def test_no_more_than_a_hundred_ticks_wait(desk):
    desk(0.5).put("* * * * *", overlap=Overlap.WAIT, catch_up=CatchUp.ALL)
    desk(0.52).ticker.tick()
    for hours in (1.0, 2.0, 3.0):
        now = desk(hours)
        now.ticker.tick()
    reasons = [tick.reason for tick in now.ticks()]
    assert [str(tick.status) for tick in now.ticks()].count("waiting") == 100
    assert reasons.count("too_many_waiting") > 0


def test_a_pause_ends_ticks_and_a_resume_records_them(desk):
    desk(0.5).put()
    paused = desk(1.001)
    paused.schedules.pause("hourly", reason="disk is full", actor="ada")
    assert [tick.tick_at.hour for tick in paused.ticks()] == [1]  # it was due before
    now = desk(3.5)
    assert now.ticker.tick().decided == 0
    assert now.store.find_schedule("hourly").last_change["reason"] == "disk is full"
    assert now.schedules.resume("hourly", actor="ada").paused_at is None
    assert now.schedules.resume("hourly").revision == 3
    tick = now.ticks()[-1]
    assert (tick.tick_at.hour, tick.until_at.hour, str(tick.status), tick.reason) == (2, 3, "skipped", "paused")
    later = desk(4.001)
    later.ticker.tick()
    assert later.outcomes()[-1][0] == 4
    assert now.schedules.pause("nobody") is None
    assert now.schedules.resume("nobody") is None


def test_ticks_that_wait_go_on_waiting_in_a_pause(desk):
    desk(0.5).put(overlap=Overlap.WAIT)
    for hours in (1.001, 2.001):
        desk(hours).ticker.tick()
    now = desk(2.1)
    now.schedules.pause("hourly")
    now.rig.queues.run(now.rig.machine)
    assert now.ticker.tick().submitted == 0
    now.schedules.resume("hourly")
    assert now.ticker.tick().submitted == 1


def test_a_change_to_allow_ends_the_waiting(desk):
    desk(0.5).put(overlap=Overlap.WAIT)
    for hours in (1.001, 2.001, 3.001):
        desk(hours).ticker.tick()
    now = desk(3.1)
    now.put(overlap=Overlap.ALLOW)
    assert now.ticker.tick().submitted == 2


def test_a_change_of_times_keeps_what_was_due(desk):
    desk(0.5).put()
    now = desk(1.001)
    written = now.put("30 * * * *")
    assert (written.created, written.schedule.revision) == (False, 2)
    assert written.schedule.next_tick_at == MIDNIGHT + timedelta(hours=1.5)
    assert now.outcomes() == [(1, "due", None)]


def test_a_change_of_times_in_a_pause_records_what_passed(desk):
    first = desk(0.5)
    first.put()
    first.schedules.pause("hourly")
    now = desk(2.5)
    assert now.put("45 * * * *").schedule.paused_at is not None
    assert now.outcomes() == [(1, "skipped", "paused")]


def test_a_change_of_parameters_keeps_the_next_tick(desk):
    before = desk(0.5).put().schedule
    after = desk(0.6).put(parameters={"label": "other"}).schedule
    assert after.next_tick_at == before.next_tick_at
    assert after.parameters == {"label": "other"}


def test_writers_at_one_moment_are_one_after_the_other(desk, crowd):
    now = desk(0.5)
    written = crowd(*[lambda n=n: now.put(parameters={"n": n}) for n in range(8)])
    assert sum(each.created for each in written) == 1
    assert now.store.find_schedule("hourly").revision == 8


def test_run_now_gives_a_job_whatever_runs(desk):
    now = desk(1.0)
    now.put()
    now.schedules.pause("hourly")
    for _ in range(2):
        tick = now.schedules.run_now("hourly", actor="ada")
        assert (str(tick.status), tick.is_manual, tick.actor) == ("submitted", True, "ada")
    assert len(now.jobs()) == 2
    assert now.schedules.run_now("nobody") is None


def test_a_repeated_call_adds_one_manual_tick(desk):
    """A call whose connection was lost is made once more."""
    now = desk(1.0)
    now.put()
    tick = PlannedTick(MIDNIGHT, {}, "key")
    first = now.store.add_manual_tick("hourly", tick, actor=None, hold_seconds=60)
    assert now.store.add_manual_tick("hourly", tick, actor=None, hold_seconds=60) == first
    assert len(now.ticks()) == 1


def test_a_refused_job_is_a_failed_tick_with_its_reason(desk):
    desk(0.5).put(parameters={"label": "x"})
    now = desk(1.001)
    now.rig.engine.execute('update app.schedules set parameters = \'{"n": "many"}\'')
    assert now.ticker.tick().failed == 1
    (tick,) = now.ticks()
    assert (str(tick.status), tick.reason, tick.submitted_job_id) == ("failed", "invalid_parameters", None)
    assert "n: expected" in tick.detail
    found = explain_schedule(now.schedules.find_facts("hourly"))
    assert [finding.code for finding in found] == ["tick_failed", "next_tick"]


def test_a_job_type_of_another_release_is_waited_for(desk):
    notes = desk(0.5).put(job_type="of_tomorrow").notes
    assert "of_tomorrow" in notes[0]
    now = desk(1.001)
    assert now.ticker.tick().postponed == 1
    codes = [finding.code for finding in explain_schedule(now.schedules.find_facts("hourly"))]
    assert codes == ["unknown_job_type", "ticks_are_due", "next_tick"]
    late = desk(1.1)
    late.rig.engine.execute("update app.schedule_ticks set attempt = %s", MOST_ATTEMPTS_OF_WAITING - 1)
    assert late.ticker.tick().failed == 1
    assert late.outcomes() == [(1, "failed", "unknown_job_type")]


def test_the_release_that_knows_the_type_submits_what_another_left(desk):
    class Nothing(Registry):
        def get_job(self, job_type):
            raise UnknownJobType(job_type, [])

    desk(0.5).put()
    assert desk(1.001, registry=Nothing([], [], ["tasks"])).ticker.tick().postponed == 1
    assert desk(1.02).ticker.tick().submitted == 1


def test_wrong_parameters_are_refused_when_it_is_written(desk):
    now = desk(0.5)
    with pytest.raises(InvalidParameters, match="m: expected"):
        now.put(parameters={"m": 1})
    with pytest.raises(ValueError, match="five fields"):
        now.put("* * *")
    assert now.store.find_schedule("hourly") is None


def test_what_only_the_tick_can_show_is_a_note(desk):
    written = desk(0.5).put(parameters={"n": "{tick:%Y}"})
    assert "n: expected" in written.notes[0]
    assert "2026-01-01T01:00" in written.notes[0]


def test_a_deleted_schedule_comes_back_without_its_past(desk):
    desk(0.5).put()
    desk(1.001).ticker.tick()
    now = desk(1.01)
    assert now.schedules.delete("hourly")
    assert not now.schedules.delete("hourly")
    now.put(cron="0 * * * *")
    assert now.ticks() == []
    assert len(now.jobs()) == 1


def test_a_late_job_counts_though_another_gave_the_tick_up(desk):
    desk(0.5).put()
    now = desk(1.001)
    now.ticker.decide(now.store.find_schedule("hourly"))
    (tick,) = now.store.claim_due_ticks(10, 60)
    assert now.store.settle_tick(tick, TickAnswer(TickStatus.FAILED, reason="x"))
    assert now.store.settle_tick(tick, TickAnswer(TickStatus.SUBMITTED, "a" * 64))
    assert not now.store.settle_tick(tick, TickAnswer(TickStatus.FAILED, reason="x"))
    assert now.outcomes() == [(1, "submitted", None)]


def test_an_attempt_that_lost_its_tick_notes_nothing(desk):
    desk(0.5).put()
    now = desk(1.001)
    now.ticker.decide(now.store.find_schedule("hourly"))
    (first,) = now.store.claim_due_ticks(10, 0)
    now.store.claim_due_ticks(10, 0)
    assert not now.store.settle_tick(first, TickAnswer(TickStatus.FAILED, reason="x"))


def test_the_sweep_ticks_and_prunes(desk):
    desk(0.5).put()
    now = desk(1.001)
    janitor = Janitor(JanitorRepository(now.rig.engine.pool), now.rig.state, now.rig.orchestration, ticker=now.ticker)
    report = janitor.sweep()
    assert (report.scheduled_jobs, report.failed_ticks, report.errors) == (1, 0, {})
    assert 3 < report.latest_tick_seconds < 4
    much_later = desk(24 * 100)
    much_later.rig.engine.execute("update app.schedules set paused_at = now()")
    pruner = RetentionRepository(much_later.rig.engine.pool)
    sweeper = Janitor(
        JanitorRepository(pruner._pool), much_later.rig.state, much_later.rig.orchestration, pruner=pruner
    )
    assert sweeper.sweep().pruned_ticks == 1


def test_explain_names_what_keeps_a_schedule_from_its_jobs(desk):
    def codes(desk):
        return [finding.code for finding in explain_schedule(desk.schedules.find_facts("hourly"))]

    first = desk(0.5)
    first.put(ends_at=MIDNIGHT + timedelta(hours=2.5))
    assert codes(first) == ["next_tick"]
    assert codes(desk(1.5)) == ["not_swept"]
    desk(1.501).ticker.tick()
    assert codes(desk(1.502)) == ["next_tick", "job_is_open", "tick_submitted"]
    desk(2.001).ticker.tick()
    assert codes(desk(2.002)) == ["ended", "tick_skipped", "job_is_open"]
    desk(2.003).schedules.pause("hourly", reason="why not", actor="ada")
    (paused, *_) = explain_schedule(desk(2.004).schedules.find_facts("hourly"))
    assert (paused.code, paused.message) == ("paused", "it is paused by ada: why not")
    assert desk(3).schedules.find_facts("nobody") is None


def test_lists_come_in_pages(desk):
    now = desk(0.5)
    for number in range(5):
        now.put(name=f"s{number}")
    now.schedules.pause("s3")
    page = now.store.list_schedules(limit=3)
    rest = now.store.list_schedules(limit=3, cursor=page.next_cursor)
    assert [each.name for each in (*page.items, *rest.items)] == ["s0", "s1", "s2", "s3", "s4"]
    assert rest.next_cursor is None
    assert [each.name for each in now.store.list_schedules(paused=True).items] == ["s3"]
    assert now.store.list_schedules(job_type="nothing").items == ()
    desk(3.5).ticker.tick()
    ticks = now.store.list_ticks("s1", limit=2)
    more = now.store.list_ticks("s1", limit=2, cursor=ticks.next_cursor)
    assert [tick.tick_at.hour for tick in (*ticks.items, *more.items)] == [3, 2, 1]
    with pytest.raises(ValueError, match="limit"):
        now.store.list_ticks("s1", limit=0)


GAPS = st.lists(st.sampled_from([20, 61, 400, 3700, 90_000]), min_size=1, max_size=6)


STORIES = {
    "cron": st.sampled_from(["*/7 * * * *", "0 * * * *", "30 2 * * *", "15 1-3 * * *"]),
    "zone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]),
    "catch_up": st.sampled_from(list(CatchUp)),
    "overlap": st.sampled_from(list(Overlap)),
    "gaps": GAPS,
    "runs": st.booleans(),
}


@examples(8)
@given(**STORIES)
def test_every_tick_gets_one_job_or_one_reason(engine, cron, zone, catch_up, overlap, gaps, runs):
    """Whatever the expression, the zone and the outages between two looks at it."""
    rig, name = Rig(engine), uuid4().hex
    desk = Desk(rig)

    clock = {"now": MIDNIGHT}
    desk.store.read_clock = lambda: clock["now"]
    first = desk.put(cron, name=name, time_zone=zone, catch_up=catch_up, overlap=overlap).schedule.next_tick_at
    for gap in gaps:
        clock["now"] += timedelta(seconds=gap)
        schedule = desk.store.find_schedule(name)
        desk.ticker.decide(schedule)
        desk.store.admit_waiting_ticks(100)
        while ticks := desk.store.claim_due_ticks(50, 60):
            for tick in ticks:
                desk.ticker.submit(tick)
        if runs:
            rig.queues.run(rig.machine)
    rows = desk.ticks(name)
    for tick in ticks_after(cron, zone, MIDNIGHT):
        if tick > clock["now"]:
            break
        (row,) = [each for each in rows if each.tick_at <= tick <= (each.until_at or each.tick_at)]
        assert (row.submitted_job_id is not None) == (row.status == "submitted")
        assert row.status in {"submitted", "waiting"} or row.reason
    jobs = [row.submitted_job_id for row in rows if row.submitted_job_id]
    assert len(set(jobs)) == len(jobs)
    assert not rows or rows[0].tick_at == first
    desk.schedules.delete(name)


test_every_tick_of_many_stories_gets_one_job_or_one_reason = many_more(
    test_every_tick_gets_one_job_or_one_reason, 60, **STORIES
)


@pytest.fixture
def hanging(monkeypatch):
    """A job class whose validation hangs for some parameters, until the test ends it."""
    monkeypatch.setattr(bounded_calls, "CALL_SECONDS", 0.2)
    go_on = threading.Event()

    class Hanging(ShapesJob):
        job_type = "hanging"
        hanging_label: str | None = None

        @classmethod
        def validate_job_parameters(cls, params):
            if params.get("label") == cls.hanging_label:
                go_on.wait(20)
            return super().validate_job_parameters(params)

    Hanging.go_on = go_on
    yield Hanging
    go_on.set()


def test_a_validation_that_hangs_stops_no_other_schedule_and_no_sweep(desk, hanging):
    """The janitor's sweep begins with the schedules: it would never have ended, in one process after another."""
    begin, now = desk(0.5), desk(1.001)
    for each in (begin, now):
        each.rig.registry._jobs["hanging"] = hanging
    begin.put(name="a", job_type="hanging", parameters={"label": "bad"})
    begin.put(name="b", job_type="hanging", parameters={"label": "good"})
    begin.put(name="c")
    # When they were written, it did not hang yet.
    hanging.hanging_label = "bad"
    report = now.ticker.tick()
    assert (report.submitted, report.postponed) == (2, 1)
    assert now.outcomes("a") == [(1, "due", "job_type_failed")]
    assert "'hanging' to be ready within 0.2 s" in now.ticks("a")[0].detail
    assert now.outcomes("b") == now.outcomes("c") == [(1, "submitted", None)]


def test_a_message_whose_submission_hangs_is_refused_and_others_of_its_type_are_not(desk, hanging):
    """It sent all others of its job type to the dead letters within seconds, and made its own job later."""
    rig = desk(1).rig
    rig.registry._jobs["hanging"] = hanging
    hanging.hanging_label = "bad"
    with pytest.raises(MessageRefused, match="'hanging' to be ready within") as refusal:
        rig.machine.process_job_message(_submission("bad"))
    assert refusal.value.reason == "SubmissionHangs"
    rig.machine.process_job_message(_submission("good"))
    assert [row["label"] for row in Desk(rig).jobs()] == ["good"]


def test_a_submission_waits_with_its_queue_while_too_many_of_its_type_hang(desk, hanging, monkeypatch):
    rig = desk(1).rig
    rig.registry._jobs["hanging"] = hanging
    hanging.hanging_label = "bad"
    monkeypatch.setattr(bounded_calls, "MOST_HANGING", 1)
    with pytest.raises(MessageRefused):
        rig.machine.process_job_message(_submission("bad"))
    rig.machine.process_job_message(_submission("good"))
    (entry,) = rig.queues._entries
    message = read_job_message("jobs", entry.body)
    assert (message.parameters, message.kept.times) == ({"label": "good"}, 1)
    (finding,) = rig.machine.postponed_messages.find()
    assert (
        "fewer than 1 submissions of 'hanging' that hang in this process, found 1, the first since" in finding.message
    )

    too_long = message.model_copy(update={"kept": Kept(since=datetime.now(UTC) - timedelta(days=1), times=9)})
    rig.machine.process_job_message(too_long)
    (letter,) = rig.engine.query("select reason, description from app.dead_letters")
    assert letter["reason"] == "JobTypeBusy"
    assert "submissions of 'hanging' that hang" in letter["description"]
    assert "postponed 10 times since" in letter["description"]


def test_a_submission_that_may_not_write_any_more_writes_nothing(desk):
    now = desk(1)

    def refuse():
        raise Killed

    with pytest.raises(Killed):
        now.ticker._submitter._submitter.submit(SubmitRequest("shapes", {}), before_write=refuse)
    assert now.jobs() == []


def test_several_schedules_that_hang_delay_each_sweep_once(desk, monkeypatch):
    """Each took the whole time, one after the other, and the janitor's sweep waited for all."""
    desk(0.5).put(name="a")
    desk(0.5).put(name="b")
    now, clock, given = desk(1.001), [0.0], []

    class Hangs:
        def submit(self, request, *, source, seconds):
            given.append((source, seconds))
            clock[0] += seconds
            raise SubmissionHangs("it to end")

    monkeypatch.setattr(ticker, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    now.ticker._submitter = Hangs()
    assert [now.ticker.tick().postponed for _ in "ab"] == [1, 1]
    assert given == [("schedule a", 20.0), ("schedule b", 20.0)]


def _submission(label: str) -> JobQueueMessage:
    return JobQueueMessage(job_type="hanging", correlation_id="c", parameters={"label": label})


def claims_without_answer(desk, hours, count):
    """Processes that ended while they submitted a tick: at one time for each of them."""
    for number in range(count):
        (tick,) = desk(hours + number * 2 * HOLD_SECONDS / 3600).store.claim_due_ticks(1, HOLD_SECONDS)
    return tick, desk(hours + count * 2 * HOLD_SECONDS / 3600)


def test_a_tick_that_ends_its_process_each_time_fails(desk):
    """A job class that used up the memory when it validated ended the janitor's process every minute, for ever."""
    desk(0.5).put()
    now = desk(1.001)
    now.ticker.decide(now.store.find_schedule("hourly"))
    _, later = claims_without_answer(desk, 1.001, MOST_ATTEMPTS)
    assert later.ticker.tick().failed == 1
    (tick,) = later.ticks()
    assert (tick.status, tick.reason) == ("failed", "process_ended")
    assert "5 attempts: their process ended" in tick.detail
    assert later.jobs() == []


def test_a_tick_whose_process_was_only_without_the_database_goes_on(desk):
    desk(0.5).put()
    now = desk(1.001)
    now.ticker.decide(now.store.find_schedule("hourly"))
    tick, later = claims_without_answer(desk, 1.001, MOST_ATTEMPTS)

    def refuse(*_, **__):
        raise StoreUnavailable("away")

    later.ticker._submitter.submit = refuse
    with pytest.raises(StoreUnavailable):
        later.ticker.submit(tick)
    assert later.outcomes() == [(1, "due", "database_away")]
    assert desk(1.5).ticker.tick().submitted == 1


def test_ticks_are_claimed_one_by_one(desk):
    """With one that ends its process, others were claimed and never submitted."""
    begin = desk(0.5)
    for name in ("a", "b"):
        begin.put(name=name)
    now = desk(1.001)

    def die(tick, *_, **__):
        raise Killed

    now.ticker.submit = die
    with pytest.raises(Killed):
        now.ticker.tick()
    assert [tick.attempt for name in ("a", "b") for tick in now.ticks(name)] == [1, 0]
