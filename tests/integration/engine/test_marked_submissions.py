"""Submissions with tags and start times, many in one transaction; what deletes jobs, and what keeps them."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import DeliveryError, IdempotencyKeyReused, InvalidParameters, StoreUnavailable, UnknownWork
from core.models import JobStatus
from core.models.control import IfEnded, RerunMode, RerunRequest
from core.models.job_filter import JobFilter, JobSort
from core.models.submission import Submission, SubmissionOutcome, SubmitRequest
from core.operating.explain import explain
from infrastructure.insight import InsightQueries
from infrastructure.queries import InvalidCursor, JobQueries

from .machine_suite import Rig


def wanted(n=1, **fields):
    return SubmitRequest("shapes", {"n": n}, **fields)


def in_an_hour():
    return datetime.now(UTC) + timedelta(hours=1)


class TestTags:
    def test_find_the_job_by_value_and_by_name(self, rig):
        queries = JobQueries(rig.engine.pool)
        tagged = rig.machine.submit_job(wanted(1, tags={"team": "geo", "order": "7"})).job_id
        other = rig.machine.submit_job(wanted(2, tags={"team": "ops"})).job_id
        rig.machine.submit_job(wanted(3))

        def found(**tags):
            return {job.job_id for job in queries.find_jobs(JobFilter(tags=tags)).items}

        assert found(team="geo") == {tagged}
        assert found(team=None) == {tagged, other}
        assert found(team="geo", order="8") == set()
        assert queries.get_job_detail(tagged).job.tags == {"team": "geo", "order": "7"}

    def test_of_a_job_that_is_there_stay_as_they_are(self, rig):
        first = rig.machine.submit_job(wanted(1, tags={"team": "geo"}))
        again = rig.machine.submit_job(wanted(1, tags={"team": "ops"}))
        assert (again.job_id, again.outcome) == (first.job_id, SubmissionOutcome.EXISTING)
        assert rig.job(first.job_id).tags == {"team": "geo"}

    def test_are_part_of_what_an_idempotency_key_stands_for(self, rig):
        rig.machine.submit_job(wanted(1, tags={"team": "geo"}, idempotency_key="k"))
        with pytest.raises(IdempotencyKeyReused):
            rig.machine.submit_job(wanted(1, tags={"team": "ops"}, idempotency_key="k"))

    def test_stay_over_a_rerun(self, rig):
        job_id = rig.machine.submit_job(wanted(1, tags={"team": "geo"})).job_id
        rig.queues.run(rig.machine)
        rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL))
        assert rig.job(job_id).tags == {"team": "geo"}


class TestStart:
    def test_job_waits_and_the_janitor_begins_it(self, rig):
        at = in_an_hour()
        job_id = rig.machine.submit_job(wanted(1, start_at=at)).job_id
        assert rig.job(job_id).start_at == at
        assert rig.queues.clear() == 0
        assert rig.janitor.sweep().announced_jobs == 0
        self.let_time_come(rig, job_id)
        assert rig.janitor.sweep().announced_jobs == 1
        assert rig.janitor.sweep().announced_jobs == 0
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status is JobStatus.COMPLETED

    @staticmethod
    def let_time_come(rig, job_id):
        past = "- interval '61 minutes'"
        rig.engine.execute(
            f"update app.jobs set created_at = created_at {past}, updated_at = updated_at {past},"  # noqa: S608 - fixed
            f" start_at = start_at {past}, due_at = due_at {past} where job_id = %s",
            job_id,
        )

    def test_explain_tells_when_it_begins(self, rig):
        job_id = rig.machine.submit_job(wanted(1, start_at=in_an_hour())).job_id
        (finding,) = explain(InsightQueries(rig.engine.pool).get_job_facts(job_id))
        assert finding.code == "starts_later"
        assert finding.next_at == rig.job(job_id).start_at

    def test_in_the_past_is_at_once(self, rig):
        job_id = rig.machine.submit_job(wanted(1, start_at=datetime(2020, 1, 1, tzinfo=UTC))).job_id
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status is JobStatus.COMPLETED
        assert rig.job(job_id).start_at is None

    def test_job_is_cancelled_before(self, rig):
        job_id = rig.machine.submit_job(wanted(1, start_at=in_an_hour())).job_id
        assert rig.machine.cancel_job(job_id, "not needed") == JobStatus.CANCELLED
        self.let_time_come(rig, job_id)
        assert rig.janitor.sweep().announced_jobs == 0

    def test_rerun_begins_at_once(self, rig):
        job_id = rig.machine.submit_job(wanted(1, start_at=in_an_hour())).job_id
        rig.machine.cancel_job(job_id, "too late")
        rig.machine.rerun_job(job_id, RerunRequest(mode=RerunMode.ALL))
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status is JobStatus.COMPLETED

    def test_pause_and_resume_do_not_bring_it_nearer(self, rig):
        job_id = rig.machine.submit_job(wanted(1, start_at=in_an_hour())).job_id
        rig.machine.pause_job(job_id)
        answer = rig.machine.resume_job(job_id)
        assert 3500 < answer.wait_seconds <= 3600
        assert rig.job(job_id).status is JobStatus.QUEUED

    def test_deadlines_count_from_it(self, rig):
        """A job for tomorrow that must not take longer than an hour would fail tonight."""
        item = {"start_at": in_an_hour().isoformat()}
        job_id = rig.engine.submit(job_timeout_seconds=60, queue_timeout_seconds=30)
        before = rig.job(job_id).deadline_at
        rig.engine.query("select app.mark_submission(%s, 1, %s::jsonb)", job_id, str(item).replace("'", '"'))
        assert timedelta(minutes=59) < rig.job(job_id).deadline_at - before < timedelta(minutes=61)
        (stage,) = rig.engine.query("select * from app.stages where job_id = %s", job_id)
        assert stage["queue_deadline_at"] > datetime.now(UTC) + timedelta(minutes=59)


class TestMany:
    def test_each_has_its_own_outcome_and_all_run(self, rig):
        answers = rig.machine.submit_jobs(
            [
                wanted(1, tags={"team": "geo"}, actor="kim"),
                wanted(1),
                SubmitRequest("shapes", {"m": 1}),
                SubmitRequest("nobody_knows", {}),
                wanted(1, force=True),
                wanted(2, idempotency_key="k"),
                wanted(3, idempotency_key="k"),
                wanted(4, start_at=in_an_hour()),
            ]
        )
        told = [each.outcome.value if isinstance(each, Submission) else type(each).__name__ for each in answers]
        assert told == [
            "created",
            "existing",
            "ParameterErrors",
            "UnknownJobType",
            "forced",
            "created",
            "IdempotencyKeyReused",
            "created",
        ]
        assert isinstance(answers[2], InvalidParameters)
        assert isinstance(answers[3], UnknownWork)
        rig.queues.run(rig.machine)
        statuses = Counter(row["status"] for row in rig.engine.query("select status from app.jobs"))
        assert statuses == {"completed": 3, "queued": 1}
        (event,) = rig.engine.query(
            "select detail from app.job_events where job_id = %s and event = 'job_submitted'", answers[0].job_id
        )
        assert event["detail"] == {"actor": "kim"}

    def test_same_key_twice_in_one_batch_is_one_job(self, rig):
        first, second = rig.machine.submit_jobs([wanted(1, idempotency_key="k", force=True)] * 2)
        assert (second.job_id, second.outcome) == (first.job_id, SubmissionOutcome.REPLAYED)

    def test_first_item_of_a_key_counts_whatever_the_ids(self, rig):
        for order in ([1, 2, 1], [2, 1, 2]):
            answers = rig.machine.submit_jobs([wanted(n, idempotency_key=f"k{order}") for n in order])
            told = [getattr(each, "outcome", None) or type(each).__name__ for each in answers]
            assert told[1:] == ["IdempotencyKeyReused", "replayed"]

    def test_ended_job_runs_again_where_that_is_wished(self, rig):
        job_id = rig.machine.submit_job(wanted(1)).job_id
        rig.queues.run(rig.machine)
        again = wanted(1, if_ended=IfEnded.RERUN, tags={"again": "yes"}, actor="kim")
        (answer,) = rig.machine.submit_jobs([again])
        assert (answer.job_id, answer.outcome, answer.run) == (job_id, SubmissionOutcome.RERUN, 2)
        assert rig.job(job_id).tags == {"again": "yes"}
        (redone,) = rig.engine.query("select actor from app.audit_log where job_id = %s and action = 'rerun'", job_id)
        assert redone["actor"] == "kim"
        rig.queues.run(rig.machine)
        assert rig.job(job_id).status is JobStatus.COMPLETED

    def test_two_at_one_moment_in_opposite_orders_make_each_job_once(self, rig):
        """Rows and keys are locked in one order, so that neither waits for the other."""
        requests = [wanted(n, idempotency_key=f"k{n}") for n in range(20)]
        start = threading.Barrier(2)

        def send(batch):
            start.wait(timeout=60)
            return rig.machine.submit_jobs(batch)

        with ThreadPoolExecutor(2) as executor:
            forward, backward = executor.map(send, [requests, requests[::-1]])
        ids = [answer.job_id for answer in forward]
        assert [answer.job_id for answer in backward] == ids[::-1]
        outcomes = Counter(answer.outcome.value for answer in [*forward, *backward])
        assert outcomes == {"created": 20, "replayed": 20}

    def test_messages_that_cannot_be_sent_are_the_janitors(self, rig):
        class Away:
            def send_messages(self, queue, messages):
                raise DeliveryError(queue, f"away for {len(messages)} messages")

        away = Rig(rig.engine, sender=Away())
        assert all(each.created for each in away.machine.submit_jobs([wanted(n) for n in range(3)]))
        rig.engine.execute("update app.jobs set updated_at = updated_at - interval '10 minutes'")
        assert rig.janitor.sweep().announced_jobs == 3

    def test_outage_is_told_for_each(self, rig, monkeypatch):
        def away(*_):
            raise StoreUnavailable("away")

        monkeypatch.setattr(rig.state, "submit_jobs", away)
        answers = rig.machine.submit_jobs([wanted(1), wanted(2)])
        assert [type(each) for each in answers] == [StoreUnavailable] * 2


class TestLists:
    @pytest.fixture
    def ended(self, rig):
        ids = [rig.engine.submit() for _ in range(5)]
        for number, job_id in enumerate(ids[:4]):
            rig.engine.jobs.fail_job(rig.job(job_id).ref, {"type": "DiskFull", "message": f"No space on disk {number}"})
        return ids

    @pytest.mark.parametrize("sort", list(JobSort))
    def test_pages_of_each_order_hold_each_job_once(self, rig, ended, sort):
        queries = JobQueries(rig.engine.pool)
        found, cursor = [], None
        while True:
            page = queries.find_jobs(JobFilter(), sort=sort, limit=2, cursor=cursor)
            found += [job.job_id for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        expected = ended if "created" in sort else ended[:4]
        assert found == (expected[::-1] if sort.startswith("-") else expected)

    def test_cursor_of_another_order_is_refused(self, rig, ended):
        queries = JobQueries(rig.engine.pool)
        cursor = queries.find_jobs(JobFilter(), limit=1).next_cursor
        with pytest.raises(InvalidCursor):
            queries.find_jobs(JobFilter(), sort=JobSort.OLDEST, cursor=cursor)

    def test_filters_count_together(self, rig, ended):
        queries = JobQueries(rig.engine.pool)

        def found(**fields):
            return [job.job_id for job in queries.find_jobs(JobFilter(**fields)).items]

        assert found(error="SPACE ON DISK 2") == [ended[2]]
        assert found(error="diskfull") == ended[3::-1]
        assert found(error="100%") == []
        assert found(correlation_id="corr") == ended[::-1]
        assert found(correlation_id="corr", error="disk 0", statuses=(JobStatus.FAILED,)) == [ended[0]]
        third = rig.job(ended[2]).created_at
        assert found(created_after=third) == ended[:1:-1]
        assert found(created_before=third) == ended[1::-1]
        assert found(id_begins=ended[2]) == [ended[2]]
        begun = ended[2][:2]
        assert found(id_begins=begun.upper()) == [each for each in ended[::-1] if each.startswith(begun)]
