"""Actions on many jobs, deletions, legal holds, and the log of who did what."""

import pytest

from core.models import JobStatus
from core.models.bulk import BulkAction, BulkRequest, DeleteOutcome
from core.models.control import RerunMode, RerunRequest
from core.models.job_filter import JobFilter
from core.models.submission import SubmitRequest
from core.operating.bulk import BulkControl, MoreJobsMatch
from infrastructure.audit import AuditRepository
from infrastructure.queries import InvalidCursor, JobQueries
from infrastructure.retention import RetentionRepository


@pytest.fixture
def audit(rig):
    return AuditRepository(rig.engine.pool)


@pytest.fixture
def bulk(rig, audit):
    return BulkControl(rig.machine, JobQueries(rig.engine.pool), audit)


@pytest.fixture
def waiting(rig):
    """Three jobs of a team that wait, and one of another team."""
    requests = [SubmitRequest("shapes", {"n": n}, tags={"team": "geo"}) for n in range(3)]
    requests.append(SubmitRequest("shapes", {"n": 9}, tags={"team": "ops"}))
    return [rig.machine.submit_job(request).job_id for request in requests]


GEO = JobFilter(tags={"team": "geo"})


def statuses(rig, job_ids):
    return [rig.job(job_id).status.value for job_id in job_ids]


def done(audit):
    return [(row.action, row.job_id, row.actor, row.reason) for row in reversed(audit.list_audit().items)]


class TestBulk:
    def test_dry_run_counts_and_does_nothing(self, rig, bulk, waiting, audit):
        report = bulk.run(BulkRequest(BulkAction.CANCEL, GEO))
        assert (report.is_dry_run, report.matched, report.items) == (True, 3, [])
        assert [job.job_id for job in report.sample] == waiting[:3]
        assert statuses(rig, waiting) == ["queued"] * 4
        assert done(audit) == []

    def test_jobs_by_id_are_acted_on_and_no_others(self, rig, bulk, waiting):
        chosen = JobFilter(job_ids=(waiting[3], waiting[1]))
        assert bulk.run(BulkRequest(BulkAction.PAUSE, chosen)).matched == 2
        assert bulk.run(BulkRequest(BulkAction.CANCEL, chosen, confirm=2)).counts == {"cancelled": 2}
        assert statuses(rig, waiting) == ["queued", "cancelled", "queued", "cancelled"]

    def test_confirmed_count_is_cancelled_and_told(self, rig, bulk, waiting, audit):
        report = bulk.run(BulkRequest(BulkAction.CANCEL, GEO, reason="wrong", actor="kim", confirm=3))
        assert (report.counts, report.remaining) == ({"cancelled": 3}, 0)
        assert statuses(rig, waiting) == ["cancelled"] * 3 + ["queued"]
        assert done(audit) == [
            ("bulk", "", "kim", "wrong"),
            *(("cancel", job_id, "kim", "wrong") for job_id in waiting[:3]),
        ]
        (first,) = audit.list_audit(action="bulk").items
        assert first.detail == {"action": "cancel", "matched": 3, "filter": {"tags": {"team": "geo"}}}

    def test_more_than_confirmed_are_left_alone(self, rig, bulk, waiting, audit):
        with pytest.raises(MoreJobsMatch) as raised:
            bulk.run(BulkRequest(BulkAction.CANCEL, JobFilter(), confirm=3))
        assert (raised.value.matched, raised.value.confirmed) == (4, 3)
        assert statuses(rig, waiting) == ["queued"] * 4
        assert done(audit) == []

    def test_fewer_than_confirmed_are_no_obstacle(self, rig, bulk, waiting):
        rig.machine.cancel_job(waiting[0], None)
        assert bulk.run(BulkRequest(BulkAction.CANCEL, GEO, confirm=3)).counts == {"cancelled": 2}

    def test_limit_leaves_the_rest_to_the_next_request(self, rig, bulk, waiting):
        first = bulk.run(BulkRequest(BulkAction.PAUSE, GEO, confirm=3, limit=2))
        assert (len(first.items), first.remaining) == (2, 1)
        second = bulk.run(BulkRequest(BulkAction.PAUSE, GEO, confirm=1, limit=2, cursor=first.next_cursor))
        assert (second.counts, second.remaining, second.next_cursor) == ({"paused": 1}, 0, None)
        resumed = bulk.run(BulkRequest(BulkAction.RESUME, JobFilter(), confirm=3))
        assert resumed.counts == {"resumed": 3}

    def test_jobs_that_match_again_are_acted_on_once(self, rig, bulk, waiting):
        """A rerun that ends between two requests is among those of the filter again."""
        rig.queues.run(rig.machine)
        cursor, left = None, 3
        while left:
            report = bulk.run(BulkRequest(BulkAction.RERUN, GEO, confirm=left, limit=1, cursor=cursor))
            cursor, left = report.next_cursor, report.remaining
            rig.queues.run(rig.machine)
        assert [rig.job(job_id).run for job_id in waiting] == [2, 2, 2, 1]

    def test_cursor_of_another_list_is_refused(self, bulk, waiting):
        with pytest.raises(InvalidCursor):
            bulk.run(BulkRequest(BulkAction.CANCEL, GEO, confirm=3, cursor="bm9uZQ"))

    def test_time_that_is_over_leaves_the_rest(self, rig, audit, waiting):
        moments = iter(range(0, 1000, 60))
        bulk = BulkControl(rig.machine, JobQueries(rig.engine.pool), audit, clock=lambda: float(next(moments)))
        report = bulk.run(BulkRequest(BulkAction.CANCEL, GEO, confirm=3))
        assert (len(report.items), report.remaining) == (2, 1)

    def test_filter_that_no_job_can_match_is_none(self, bulk, waiting):
        report = bulk.run(BulkRequest(BulkAction.CANCEL, JobFilter(statuses=(JobStatus.FAILED,)), confirm=0))
        assert (report.matched, report.items) == (0, [])

    def test_retry_and_rerun_begin_the_next_run(self, rig, bulk, waiting):
        bulk.run(BulkRequest(BulkAction.CANCEL, GEO, confirm=3))
        assert bulk.run(BulkRequest(BulkAction.RETRY, GEO, confirm=3)).counts == {"rerun": 3}
        assert [rig.job(job_id).run for job_id in waiting[:3]] == [2, 2, 2]
        rig.queues.run(rig.machine)
        assert statuses(rig, waiting) == ["completed"] * 4
        assert bulk.run(BulkRequest(BulkAction.RETRY, GEO)).matched == 0
        assert bulk.run(BulkRequest(BulkAction.RERUN, GEO, confirm=3)).counts == {"rerun": 3}

    def test_delete_leaves_those_that_run_and_those_under_a_hold(self, rig, bulk, waiting, audit):
        rig.machine.cancel_job(waiting[0], None)
        rig.machine.cancel_job(waiting[1], None)
        rig.machine.hold_job(waiting[0], is_held=True, reason="case 17", actor="kim")
        assert bulk.run(BulkRequest(BulkAction.DELETE, JobFilter(), confirm=1)).counts == {"deleted": 1}
        assert rig.engine.jobs.find_job(waiting[1]) is None
        assert rig.engine.jobs.find_job(waiting[0]) is not None
        assert ("delete", waiting[1], None, None) in done(audit)


class TestDelete:
    def test_ended_job_goes_with_all_its_rows_and_is_in_the_log(self, rig, audit):
        job_id = rig.run(n=3)
        answer = rig.machine.delete_job(job_id, reason="test data", actor="kim")
        assert (answer.outcome, answer.status) == (DeleteOutcome.DELETED, JobStatus.COMPLETED)
        assert answer.pruned_tasks == 5
        assert rig.engine.rows_of(job_id) == [[], [], [], []]
        (row,) = audit.list_audit(job_id=job_id).items
        assert (row.action, row.actor, row.reason) == ("delete", "kim", "test data")
        assert row.detail == {"from": "completed", "run": 1, "job_type": "shapes", "is_done": True}

    def test_large_job_goes_in_pieces_and_is_told_twice(self, rig, audit):
        job_id = rig.run(n=3)
        first = rig.engine.jobs.delete_job(job_id, reason=None, actor=None, limit=2)
        assert (first.outcome, first.pruned_tasks) == (DeleteOutcome.DELETING, 2)
        second = rig.engine.jobs.delete_job(job_id, reason=None, actor=None, limit=2)
        assert second.outcome is DeleteOutcome.DELETING
        assert rig.engine.jobs.delete_job(job_id, reason=None, actor=None, limit=2).outcome is DeleteOutcome.DELETED
        assert [row.detail["is_done"] for row in audit.list_audit(job_id=job_id).items] == [True, False]

    def test_job_that_runs_is_refused(self, rig, audit):
        job_id = rig.submit(n=1)
        assert rig.machine.delete_job(job_id, reason=None, actor=None).outcome is DeleteOutcome.REFUSED
        assert audit.list_audit().items == ()

    def test_unknown_job_is_none(self, rig):
        assert rig.machine.delete_job("ab" * 32, reason=None, actor=None) is None


class TestHold:
    def test_keeps_a_job_from_people_and_from_retention(self, rig, audit):
        job_id = rig.run(n=1)
        held = rig.machine.hold_job(job_id, is_held=True, reason="case 17", actor="kim")
        assert held.has_changed
        assert (held.hold["reason"], held.hold["actor"]) == ("case 17", "kim")
        assert rig.machine.delete_job(job_id, reason=None, actor=None).outcome is DeleteOutcome.HELD
        rig.engine.execute("update app.jobs set finished_at = finished_at - interval '10 days'")
        retention = RetentionRepository(rig.engine.pool)
        assert retention.prune_jobs(86_400).jobs == 0
        assert rig.engine.query("select * from app.prune_job(%s, 100)", job_id)[0]["is_job_pruned"] is False

        assert rig.machine.hold_job(job_id, is_held=False, reason="closed", actor="kim").hold is None
        assert retention.prune_jobs(86_400).jobs == 1
        assert [row.action for row in audit.list_audit(job_id=job_id).items] == ["release", "hold"]

    def test_again_changes_nothing(self, rig, audit):
        job_id = rig.submit(n=1)
        rig.machine.hold_job(job_id, is_held=True, reason="first", actor=None)
        again = rig.machine.hold_job(job_id, is_held=True, reason="second", actor=None)
        assert (again.has_changed, again.hold["reason"]) == (False, "first")
        assert len(audit.list_audit().items) == 1

    def test_unknown_job_is_none(self, rig):
        assert rig.machine.hold_job("ab" * 32, is_held=True, reason=None, actor=None) is None


class TestAudit:
    def test_every_action_on_one_job_is_there_once(self, rig, audit):
        job_id = rig.submit(n=1)
        rig.machine.pause_job(job_id, reason="look", actor="kim")
        rig.machine.pause_job(job_id, reason="again", actor="kim")
        rig.machine.resume_job(job_id, reason=None, actor="lee")
        rig.machine.cancel_job(job_id, "enough", actor="kim")
        rig.machine.rerun_job(job_id, RerunRequest(RerunMode.ALL, reason="after all", actor="lee"))
        assert done(audit) == [
            ("pause", job_id, "kim", "look"),
            ("resume", job_id, "lee", None),
            ("cancel", job_id, "kim", "enough"),
            ("rerun", job_id, "lee", "after all"),
        ]

    def test_pages_and_filters(self, rig, audit):
        for number in range(5):
            audit.record_bulk("kim" if number % 2 else "lee", f"reason {number}", {})
        first = audit.list_audit(limit=3)
        rest = audit.list_audit(limit=3, cursor=first.next_cursor)
        assert [row.reason for row in (*first.items, *rest.items)] == [f"reason {n}" for n in (4, 3, 2, 1, 0)]
        assert rest.next_cursor is None
        assert [row.reason for row in audit.list_audit(actor="kim").items] == ["reason 3", "reason 1"]

    def test_old_rows_go_and_others_stay(self, rig, audit):
        audit.record_bulk("kim", "old", {})
        rig.engine.execute("update app.audit_log set at = at - interval '400 days'")
        audit.record_bulk("kim", "new", {})
        assert RetentionRepository(rig.engine.pool).prune_audit(396 * 86_400) == 1
        assert [row.reason for row in audit.list_audit().items] == ["new"]
