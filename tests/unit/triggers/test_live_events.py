"""The timeline as it comes: by requests that wait, and as a stream whose parts end."""

import pytest

from .fakes import JOB_ID, Api, FakeServices
from .test_api import assert_problem

PATH = f"/api/jobs/{JOB_ID}/events"
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def api():
    return Api(FakeServices())


def test_each_answer_has_what_came_since_and_where_to_go_on(api):
    first = api.get(PATH, params={"wait": 5}).json()
    assert ([event["event_id"] for event in first["value"]], first["next_cursor"]) == ([1], "one")
    assert "wait=5" in first["nextLink"]
    assert api.services.came == []
    second = api.get(PATH, params={"wait": 5, "cursor": "one"}).json()
    assert ([event["event_id"] for event in second["value"]], second["next_cursor"]) == ([2], "two")
    assert len(api.services.came) == 1


def test_without_time_to_wait_an_answer_may_be_empty(api):
    answer = api.get(PATH, params={"wait": 0, "cursor": "one"}).json()
    assert (answer["value"], answer["next_cursor"]) == ([], "one")


def test_without_wait_it_is_the_list_of_before(api):
    assert "next_cursor" not in api.get(PATH).json()
    assert api.services.calls[-1][0] == "list_events"


def test_a_stream_comes_in_parts_with_the_id_to_go_on_from(api):
    first = api.get(PATH, headers=STREAM)
    assert first.headers["content-type"].startswith("text/event-stream")
    lines = first.text.split("\n")
    assert lines[:4] == ["retry: 1000", "", "id: one", "event: job_submitted"]
    assert lines[4].startswith("data: {")
    assert lines[5:] == ["", ""]
    second = api.get(PATH, headers=STREAM | {"Last-Event-ID": "one"})
    assert "id: two" in second.text


@pytest.mark.parametrize(("status", "code"), [("processing", 200), ("completed", 204)])
def test_a_stream_ends_when_the_job_has_ended_and_all_was_sent(status, code):
    api = Api(FakeServices(statuses=[status]))
    answer = api.get(PATH, headers=STREAM | {"Last-Event-ID": "two"}, params={"wait": 0})
    assert (answer.status_code, "data:" in answer.text) == (code, False)


@pytest.mark.parametrize("options", [{"params": {"wait": 1}}, {"headers": STREAM}])
def test_what_cannot_be_followed_is_named(api, options):
    assert_problem(api.get(f"/api/jobs/{'cd' * 32}/events", **options), 404, "unknown_job")
    wrong = {**options, "params": {**options.get("params", {}), "cursor": "other"}}
    assert_problem(api.get(PATH, **wrong), 400, "invalid_request")


def test_no_wait_is_longer_than_half_a_minute(api):
    assert_problem(api.get(PATH, params={"wait": 31}), 400, "invalid_request")
