"""Following a job's timeline: nothing is left out and nothing comes twice, in whichever order events are committed."""

import pytest

from infrastructure.queries import InvalidCursor, JobQueries

RECORD = "select app.record_event(%s, 1, null, null, %s, null)"


@pytest.fixture
def queries(engine):
    return JobQueries(engine.pool)


def names(new):
    return [event.event for event in new.items]


def test_an_event_that_is_committed_later_than_one_with_a_greater_number_is_not_left_out(engine, queries):
    """A reader that went on after the greatest number it had seen would never see the other one."""
    job_id = engine.submit()
    before = queries.follow_events(job_id)
    with engine.pool.connection() as connection, connection.transaction():
        connection.execute(RECORD, (job_id, "slow"))
        engine.query(RECORD, job_id, "quick")
        first = queries.follow_events(job_id, cursor=before.cursor)
        assert queries.find_jobs_with_events([first.position]) == set()
    assert queries.find_jobs_with_events([before.position, first.position]) == {before.position, first.position}
    second = queries.follow_events(job_id, cursor=first.cursor)
    third = queries.follow_events(job_id, cursor=second.cursor)
    assert (names(before), names(first), names(second), names(third)) == (["job_submitted"], ["quick"], ["slow"], [])


@pytest.mark.breaks_invariants
def test_many_events_come_in_parts_and_each_once(engine, queries):
    job_id, other = engine.submit(), engine.submit()
    for number in range(130):
        engine.query(RECORD, job_id, f"e{number}")
        engine.query(RECORD, other, "other")
    found, cursor = [], None
    while (new := queries.follow_events(job_id, limit=40, cursor=cursor)).items:
        found += names(new)
        cursor = new.cursor
        assert len(cursor) <= 1000
    assert found == ["job_submitted", *(f"e{number}" for number in range(130))]
    engine.execute("update app.job_events set at = at - interval '31 s'")
    new = queries.follow_events(job_id, cursor=cursor)
    assert (new.items, new.position.count) == ((), 0)
    engine.query(RECORD, job_id, "last")
    assert queries.find_jobs_with_events([new.position]) == {new.position}
    assert names(queries.follow_events(job_id, cursor=new.cursor)) == ["last"]


def test_a_cursor_of_another_list_is_refused(engine, queries):
    job_id = engine.submit()
    engine.query(RECORD, job_id, "second")
    page = queries.list_events(job_id, limit=1)
    with pytest.raises(InvalidCursor):
        queries.follow_events(job_id, cursor=page.next_cursor)
