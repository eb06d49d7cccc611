"""Pages over a real database, without a browser: roles, the fleet, tags and what else a job's row has."""

import http.client
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest

from core.advancing.first_window import MOST_TASKS
from core.models.app import AppProfile
from core.models.dead_letter import DeadLetter
from core.models.submission import SubmitRequest
from core.operating import bulk
from core.operating.dead_letters import read_reference
from core.safety.roles import Role, digest_of
from core.scheduling.schedules import ScheduleWish
from infrastructure.postgresql import create_pool
from tests.databases import clone_template
from tests.integration.ui import dashboard_app
from tests.integration.ui.dashboard_app import AppServices, Gate, make_services, serving
from triggers.access import KEY_COOKIE, AccessRules, cookie_of_key
from triggers.ui.attention import read_alerts

SETTING = ",".join(f"{role.word}={digest_of(role.word)}" for role in Role)
TRACE = "0af7651916cd43dd8448eb211c80319c"
Read = Callable[..., str]


@pytest.fixture(scope="module")
def services(template_url: str) -> Iterator[AppServices]:
    with clone_template(template_url) as url, create_pool(url, max_size=10) as pool:
        yield make_services(pool, Gate())


@pytest.fixture(scope="module")
def read(services: AppServices) -> Iterator[Read]:
    with reading(services) as ask:
        yield ask


@contextmanager
def reading(services: AppServices) -> Iterator[Read]:
    """A page below `/api/ui` as a caller with this role reads it."""
    rules = AccessRules.read({"COREMACHINE_ROLE_KEYS": SETTING}, trusts_principal=False)
    with serving(lambda: services, rules) as url, httpx.Client(timeout=30) as http:

        def ask(path: str, role: Role = Role.ADMIN) -> str:
            answer = http.get(url + path, headers={"Cookie": f"{KEY_COOKIE}={cookie_of_key(role.word)}"})
            assert answer.status_code == 200, answer.text
            return answer.text

        yield ask


def submit(services: AppServices, **more: object) -> str:
    request = SubmitRequest("scene_catalog", {"folder": "abfs://scenes", "scenes": 4}, force=True, **more)
    return services.machine.submit_job(request).job_id


def execute(services: AppServices, query: str, *values: object) -> None:
    with services.pool.connection() as connection:
        connection.execute(query, values)


def test_job_offers_what_the_role_may(services, read):
    path = f"/jobs/{submit(services)}"
    viewer, submitter, operator, admin = (read(path, role) for role in Role)
    for page in (viewer, submitter, operator):
        assert ('id="d-hold"' in page, "needs the role <b>admin</b>" in page) == (False, True)
    assert ('id="d-hold"' in admin, "needs the role" in admin) == (True, False)
    for page in (viewer, submitter):
        assert 'data-open="d-cancel"' not in page
        assert 'id="d-cancel"' not in page
        assert "needs the role <b>operator</b>" in page
    assert "needs the role <b>submitter</b>" in viewer
    assert 'href="/api/ui/submit"' not in viewer
    assert "Submit one like this</a>" in submitter
    assert 'data-open="d-cancel"' in operator
    assert 'id="d-cancel"' in operator
    assert "needs the role <b>operator</b>" not in operator


def test_limit_and_webhooks_offer_what_the_role_may(services, read):
    services.limits.set_limit("tiles/a b", 2, None, reason="slow today", actor="kim")
    viewer, operator = (read("/limits/tiles%2Fa%20b", role) for role in (Role.VIEWER, Role.OPERATOR))
    assert ('id="d-set"' in viewer, "needs the role <b>operator</b>" in viewer) == (False, True)
    assert ('id="d-set"' in operator, "needs the role" in operator) == (True, False)
    for shown in ("chosen by kim", "slow today", "<b>0</b> of 2"):
        assert shown in operator, shown
    # Addresses of receivers are not for viewers: their pages do not lead there.
    assert ["/ui/webhooks" in page for page in (viewer, operator)] == [False, True]


def test_wrong_change_of_a_limit_is_named(services, send_to):
    done = send_to("/limits/tiles", {"action": "set", "at_once": "2"})
    assert (done.status_code, done.headers["location"]) == (303, "/api/ui/limits/tiles?note=set")
    wrong = send_to("/limits/tiles", {"action": "open"})
    assert (wrong.status_code, "expected set or forget" in wrong.text) == (400, True)
    wrong = send_to("/limits/tiles", {"action": "set", "at_once": "two"})
    assert (wrong.status_code, "a whole number" in wrong.text) == (400, True)
    refused = send_to("/limits/tiles", {"action": "set", "at_once": "2"}, Role.SUBMITTER)
    assert refused.status_code == 403
    assert send_to("/limits/tiles", {"action": "forget"}).headers["location"].startswith("/api/ui/limits")
    assert send_to("/limits/none", {"action": "forget"}).status_code == 404


def test_schedule_offers_what_the_role_may(services, read):
    services.schedules.put(ScheduleWish(name="nightly", job_type="hello_world", cron="0 3 * * *", parameters={}))
    viewer, operator = (read("/schedules/nightly", role) for role in (Role.VIEWER, Role.OPERATOR))
    assert ('id="d-run"' in viewer, "needs the role <b>operator</b>" in viewer) == (False, True)
    assert ('id="d-run"' in operator, "needs the role" in operator) == (True, False)


def test_dead_letters_offer_what_the_role_may(services, read):
    body = json.dumps({"job_type": "hello_world", "parameters": {"n": 1}}).encode()
    letter = DeadLetter(
        *("jobs", "m1", 1, datetime.now(UTC), read_reference("jobs", body, {})),
        reason="MaxDeliveryCountExceeded",
        description="it failed",
        delivery_count=10,
        correlation_id=None,
        body=body.decode(),
        body_size=len(body),
    )
    services.state.record_dead_letter(letter)
    (group,) = services.dead_letter_queries.group_dead_letters()
    (kept,) = services.dead_letter_queries.list_dead_letters(limit=1).items
    assert read_alerts(services)["dead-letters"].count == 1
    for path in (f"/dead-letters?fingerprint={group.fingerprint}", f"/dead-letters/{kept.dead_letter_id}"):
        submitter, operator = (read(path, role) for role in (Role.SUBMITTER, Role.OPERATOR))
        assert ("d-redrive" in submitter, "needs the role <b>operator</b>" in submitter) == (False, True)
        assert ("d-redrive" in operator, "needs the role" in operator) == (True, False)


def test_processes_are_shown_by_app_with_what_none_of_them_can_run(services, read):
    services.apps.record_app_instance(
        AppProfile("raster:vm:1:a", "raster", "worker", "1.0", "r42", ("raster",), ("scene_convert",), (), 8)
    )
    submit(services)
    # Plans its first stage, whose task then waits.
    services.queues.deliver(services.machine)
    page = read("/queues")
    assert "<h3>raster</h3>" in page
    for shown in ("raster:vm:1:a", "r42", "CoreMachine 1.0", "<td>worker</td>", "1 process, 8 slots", "live"):
        assert shown in page, shown
    assert "no live app reads the queue &#39;tasks&#39;" in page
    # It may scale from zero: nobody has to look at it yet.
    assert "queues" not in read_alerts(services)


def test_processes_that_ended_are_folded_the_latest_first(services):
    """Each restart of `up --reload` leaves one: after some minutes they were most of the page, in no order of time."""
    profile = AppProfile("", "raster", "worker", "1.0", None, ("raster",), ("scene_convert",), (), 8)
    names = [f"raster:{number * 7 % 25:02}" for number in range(25)]
    execute(services, "delete from app.app_instances")
    for name in [*names, "raster:zz", "raster:aa"]:
        services.apps.record_app_instance(replace(profile, instance=name))
    for name in names:
        services.apps.end_app_instance(name)
    # An app of its own: the other one keeps what an earlier test read.
    with reading(services) as read:
        page = read("/queues")
    above, folded = page.split('<details id="ended-raster">')
    assert re.findall(r"<code>(raster:.*?)</code>", above) == ["raster:zz", "raster:aa"]
    assert re.findall(r"<code>(raster:.*?)</code>", folded) == names[::-1][:20]
    assert "25 ended in the last day; the latest 20" in folded


def test_jobs_are_filtered_by_tags_that_links_keep(services, read):
    both = submit(services, tags={"team": "geo", "site": "x y"})
    other = submit(services, tags={"team": "sea"})
    found = read("/jobs?tag=team=geo&tag=site&tag=&status=open")
    assert (f"jobs/{both}" in found, f"jobs/{other}" in found) == (True, False)
    # Each chip leads to the choice without its tag; those of statuses keep the tags.
    assert 'href="/api/ui/jobs?status=open&amp;tag=site" aria-current="true"' in found
    assert 'href="/api/ui/jobs?status=failed&amp;tag=team%3Dgeo&amp;tag=site"' in found
    assert 'type="hidden" name="tag" value="team=geo"' in found
    # A tag of a row narrows the choice.
    everything = read("/jobs")
    assert 'href="/api/ui/jobs?tag=site%3Dx+y"' in everything
    assert 'href="/api/ui/jobs?tag=team%3Dsea"' in everything


def test_job_type_that_offers_a_figure_has_its_map_and_picture_on_the_job_page(services, read):
    job_id = submit(services)
    assert ">Figure</a>" not in read(f"/jobs/{job_id}")
    assert "The catalog has no scenes." in read(f"/jobs/{job_id}?tab=figure")
    while services.queues.deliver(services.machine):
        pass
    page = read(f"/jobs/{job_id}?tab=figure")
    assert ">Figure</a>" in page
    assert page.count('class="outline') == 4
    assert "<title>scene-0003.tif, north</title>" in page
    picture = f"/jobs/{job_id}/preview/picture.gif"
    assert f'<img src="/api/ui{picture}"' in page
    assert read(picture).startswith("GIF89a")


def test_figure_that_cannot_be_drawn_is_no_page_that_cannot_be_shown(services, read, monkeypatch):
    def draw(request):
        raise SystemExit(4)

    monkeypatch.setattr(dashboard_app, "draw_scenes", draw)
    page = read(f"/jobs/{submit(services)}?tab=figure")
    assert "What draws it failed: SystemExit; the log has the trace." in page


FROM_PAGE = {"Sec-Fetch-Site": "same-origin"}
Send = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def send_to(services: AppServices) -> Iterator[Send]:
    """A form of the page at this path, sent by a caller with this role."""
    rules = AccessRules.read({"COREMACHINE_ROLE_KEYS": SETTING}, trusts_principal=False)
    with serving(lambda: services, rules) as url, httpx.Client(timeout=30) as http:

        def ask(path: str, form: dict[str, str], role: Role = Role.ADMIN) -> httpx.Response:
            headers = FROM_PAGE | {"Cookie": f"{KEY_COOKIE}={cookie_of_key(role.word)}"}
            return http.post(f"{url}{path}", data=form, headers=headers)

        yield ask


@pytest.fixture(scope="module")
def send(send_to: Send) -> Send:
    """A form of the list of jobs."""
    return lambda form, role=Role.ADMIN, *, listed="": send_to(f"/jobs/bulk{listed}", form, role)


def plan_next_stage(services: AppServices, job_id: str) -> None:
    """Deliver until the second stage of the job is planned."""
    while len(services.queries.get_job_detail(job_id).stages) < 2:
        assert services.queues.deliver(services.machine)


def status_of(services: AppServices, job_id: str) -> str:
    return services.queries.get_job_detail(job_id).job.status.value


def test_chosen_jobs_are_counted_then_acted_on_and_the_audit_log_has_it(services, read, send):
    chosen, other = [submit(services), submit(services)], submit(services)
    form = {"action": "cancel", **{f"job.{job_id}": "1" for job_id in chosen}}
    asked = send(form)
    assert (asked.status_code, "Cancel 2 jobs?" in asked.text) == (200, True)
    assert 'name="confirm" value="2"' in asked.text
    assert [status_of(services, job_id) for job_id in chosen] == ["queued", "queued"]
    done = send(form | {"confirm": "2", "reason": "wrong folder"}, listed="?status=queued&tag=team=geo")
    place = "/api/ui/jobs?status=queued&tag=team%3Dgeo&did=cancel&outcome=cancelled-2"
    assert (done.status_code, done.headers["location"]) == (303, place)
    assert [status_of(services, job_id) for job_id in (*chosen, other)] == ["cancelled", "cancelled", "queued"]
    assert "2 cancelled." in read(place.removeprefix("/api/ui"))
    rows = services.audit.list_audit(limit=3).items
    assert [(row.action, row.reason) for row in rows] == [("cancel", "wrong folder")] * 2 + [("bulk", "wrong folder")]
    # Again: none of them can be cancelled, and the page says so.
    assert "No job fits" in send(form).text


def test_all_that_a_filter_matches_are_acted_on_and_no_more_than_were_confirmed(services, send):
    tag = "?tag=site=harbour"
    matching = [submit(services, tags={"site": "harbour"}) for _ in range(3)]
    form = {"action": "pause", "scope": "matching"}
    assert "Pause 3 jobs?" in send(form, listed=tag).text
    more = send(form | {"confirm": "2"}, listed=tag)
    assert "More jobs match now than the 2 that were confirmed" in more.text
    assert 'name="confirm" value="3"' in more.text
    assert [services.queries.get_job_detail(job_id).job.paused_at for job_id in matching] == [None] * 3
    assert "outcome=paused-3" in send(form | {"confirm": "3"}, listed=tag).headers["location"]
    assert "Resume 3 jobs?" in send(form | {"action": "resume"}, listed=f"{tag}&status=paused").text


def test_all_that_a_search_finds_are_acted_on(services, read, send):
    def submit_to(folder: str) -> str:
        request = SubmitRequest("scene_catalog", {"folder": folder, "scenes": 4}, force=True)
        return services.machine.submit_job(request).job_id

    found, other = [submit_to(f"abfs://Pier/{number}") for number in range(2)], submit_to("abfs://harbour")
    assert "all jobs that this search finds" in read("/jobs?q=pier")
    form = {"action": "cancel", "scope": "matching"}
    asked = send(form, listed="?q=pier")
    assert "Cancel 2 jobs?" in asked.text
    assert "Meant are all jobs that the search for <b>“pier”</b> finds" in asked.text
    assert 'action="/api/ui/jobs/bulk?q=pier"' in asked.text
    assert all(job_id[:12] in asked.text for job_id in found)
    assert "outcome=cancelled-2" in send(form | {"confirm": "2"}, listed="?q=pier").headers["location"]
    assert [status_of(services, job_id) for job_id in (*found, other)] == ["cancelled", "cancelled", "queued"]
    (row,) = services.audit.list_audit(action="bulk", limit=1).items
    assert row.detail["filter"]["text"] == "pier"
    assert "Cancel 1 job?" in send(form, listed=f"?q={other[:10]}").text
    assert "No job fits" in send(form, listed="?q=nothing-like-it").text


def test_rest_of_many_goes_on_after_the_last_one_that_was_done(services, read, send, monkeypatch):
    """A job that was rerun may match again before the rest is asked for."""
    monkeypatch.setattr(bulk, "SECONDS_AT_ONCE", -1.0)
    tag = "?tag=site=quay"
    jobs = [submit(services, tags={"site": "quay"}) for _ in range(2)]
    form = {"action": "pause", "scope": "matching"}
    place = send(form | {"confirm": "2"}, listed=tag).headers["location"]
    page = read(place.removeprefix("/api/ui"))
    assert "1 are left" in page
    cursor = re.search('name="cursor" value="([^"]+)"', page)[1]
    assert f'name="cursor" value="{cursor}"' in send(form | {"cursor": cursor}, listed=tag).text
    assert "outcome=paused-1" in send(form | {"cursor": cursor, "confirm": "1"}, listed=tag).headers["location"]
    assert all(services.queries.get_job_detail(job_id).job.paused_at for job_id in jobs)


def test_many_jobs_are_deleted_by_an_administrator_alone(services, read, send):
    form = {"action": "delete", f"job.{submit(services)}": "1"}
    assert send(form, Role.VIEWER).status_code == 403
    refused = send(form, Role.OPERATOR)
    assert (refused.status_code, "expected the role admin" in refused.text) == (403, True)
    assert send(form).status_code == 200
    viewer, operator, admin = (read("/jobs", role) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    assert ["data-pick" in page for page in (viewer, operator, admin)] == [False, True, True]
    assert ['value="delete"' in page for page in (viewer, operator, admin)] == [False, False, True]


@pytest.mark.parametrize(
    ("form", "listed", "expected"),
    [
        ({"action": "cancel"}, "", "at least one job that is chosen in the list"),
        ({"action": "stop", "scope": "matching"}, "", "one of cancel, pause, resume"),
        ({"action": "cancel", "job.7": "1"}, "", "64 hexadecimal digits"),
        ({"action": "cancel", "scope": "matching", "confirm": "all"}, "", "a whole number"),
    ],
)
def test_wrong_request_for_many_jobs_is_named(send, form, listed, expected):
    answer = send(form, listed=listed)
    assert (answer.status_code, expected in answer.text) == (400, True), answer.text


def test_form_of_a_schedule_replaces_nothing_that_was_not_seen(services, read, send_to):
    form = {"name": "hourly", "p.job_type": "hello_world", "p.cron": "0 * * * *", "p.parameters": '{"n": 1}'}
    assert send_to("/new-schedule", form).headers["location"] == "/api/ui/schedules/hourly?note=created"
    again = send_to("/new-schedule", form | {"p.cron": "1 * * * *"})
    assert (again.status_code, "expected a name that no schedule has" in again.text) == (400, True)
    place = "/schedules/hourly/edit"
    revision = re.search('name="revision" value="([0-9]+)"', read(place))[1]
    services.schedules.put(ScheduleWish("hourly", "hello_world", "2 * * * *", {"n": 2}))
    late = send_to(place, form | {"revision": revision, "p.cron": "3 * * * *"})
    assert (late.status_code, "Somebody changed this schedule" in late.text) == (400, True)
    assert services.schedule_queries.find_schedule("hourly").cron == "2 * * * *"
    # What was entered is in the form, which may now replace what it was not made from.
    assert 'value="3 * * * *"' in late.text
    seen = re.search('name="revision" value="([0-9]+)"', late.text)[1]
    done = send_to(place, form | {"revision": seen, "p.cron": "3 * * * *"})
    assert done.headers["location"] == "/api/ui/schedules/hourly?note=saved"
    assert services.schedule_queries.find_schedule("hourly").cron == "3 * * * *"


def test_running_job_is_adjusted_in_a_dialog(services, read, send_to):
    # However short its tasks are known to be, a stage of this many waits in line.
    parameters = {"folder": "abfs://scenes", "scenes": MOST_TASKS + 1, "held": [0]}
    request = SubmitRequest("scene_catalog", parameters, force=True)
    job_id = services.machine.submit_job(request).job_id
    place = f"/jobs/{job_id}"
    assert "d-adjust" in read(place)
    assert 'name="max_parallel"' not in read(place)
    plan_next_stage(services, job_id)
    page = read(place)
    assert 'name="max_parallel"' in page
    assert 'name="stage" value="2"' in page
    form = {"priority": "high", "max_parallel": "7", "stage": "2", "reason": "urgent"}
    assert "note=adjust" in send_to(f"{place}/adjust", form).headers["location"]
    page = read(f"{place}?note=adjust")
    assert "<dt>Priority</dt><dd>high</dd>" in page
    assert "at most 7 at a time" in page
    (row,) = services.audit.list_audit(job_id=job_id, action="adjust").items
    assert (row.reason, row.detail["to"]) == ("urgent", {"priority": "high", "max_parallel": 7})
    assert "note=as_before" in send_to(f"{place}/adjust", {"priority": "high"}).headers["location"]
    late = send_to(f"{place}/adjust", {"max_parallel": "9", "stage": "1"})
    assert (late.status_code, "expected the stage that was named" in late.text) == (409, True)
    wrong = send_to(f"{place}/adjust", {"max_parallel": "many", "stage": "2"})
    assert (wrong.status_code, "a whole number" in wrong.text) == (400, True)
    assert send_to(f"{place}/adjust", {"priority": ""}).status_code == 400


def test_forms_are_offered_to_those_who_may_use_them(services, read):
    services.schedules.put(ScheduleWish("daily", "hello_world", "0 1 * * *", {"n": 1}))
    for path, needed, offered in (
        ("/schedules", Role.OPERATOR, "/ui/new-schedule"),
        ("/schedules/daily", Role.OPERATOR, "/schedules/daily/edit"),
        ("/webhooks", Role.ADMIN, "/ui/new-webhook"),
    ):
        assert [offered in read(path, role) for role in (Role(needed - 1), needed)] == [False, True], path


def test_two_hundred_clients_at_once_see_no_error(services):
    job_id = submit(services)
    paths = ["/jobs", "/jobs?status=failed", f"/jobs/{job_id}", f"/jobs/{job_id}?tab=tasks", "/queues"]
    together, statuses = threading.Barrier(200), Counter()

    def look(url: str, number: int) -> None:
        place = urlsplit(url + paths[number % len(paths)])
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
        together.wait(60)
        connection.request("GET", f"{place.path}?{place.query}")
        answer = connection.getresponse()
        answer.read()
        statuses[answer.status] += 1
        connection.close()

    with serving(lambda: services) as url:
        threads = [threading.Thread(target=look, args=(url, number)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == {200: 200}


def test_wrong_tag_is_named(services):
    rules = AccessRules()
    with serving(lambda: services, rules) as url:
        answer = httpx.get(f"{url}/jobs?tag=no%20tag", timeout=30)
    assert (answer.status_code, "expected a tag, name=value" in answer.text) == (400, True)


def test_job_is_submitted_with_tags_a_later_start_and_a_priority(services, read, send_to):
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=5)
    form = {"p.folder": "abfs://later", "o.tags": "team=geo\r\n site=x y \r\n", "o.priority": "high"}
    wrong = send_to("/submit/scene_catalog", form | {"o.start_at": "tomorrow", "o.tags": "team"})
    assert (wrong.status_code, wrong.text.count('<p class="field-error"')) == (400, 2)
    assert "expected a time with its offset" in wrong.text
    wrong = send_to("/submit/scene_catalog", form | {"o.tags": "team"})
    assert (wrong.status_code, "expected a tag, name=value" in wrong.text) == (400, True)
    done = send_to("/submit/scene_catalog", form | {"o.start_at": later.isoformat()})
    job_id = done.headers["location"].split("/jobs/")[1].partition("?")[0]
    job = services.queries.get_job_detail(job_id).job
    assert (job.tags, job.start_at, str(job.priority)) == ({"team": "geo", "site": "x y"}, later, "high")
    like = read(f"/submit/scene_catalog?like={job_id}")
    assert "site=x y\nteam=geo</textarea>" in like
    assert "<option selected>high</option>" in like


def test_job_shows_its_tags_later_start_hold_and_trace(services, read):
    job_id = submit(services, tags={"team": "geo"}, start_at=datetime.now(UTC) + timedelta(hours=3))
    hold = json.dumps({"reason": "case 7", "actor": "kim", "at": "2026-01-02T03:04:05+00:00"})
    execute(
        services,
        "update app.jobs set hold = %s::jsonb, traceparent = %s where job_id = %s",
        *(hold, f"00-{TRACE}-b7ad6b7169203331-01", job_id),
    )
    page = read(f"/jobs/{job_id}")
    assert 'href="/api/ui/jobs?tag=team%3Dgeo"' in page
    assert "<dt>Begins</dt>" in page
    assert "Under a legal hold" in page
    assert "case 7" in page
    assert 'title="2026-01-02 03:04:05.000 UTC"' in page
    assert f'data-copy="{TRACE}"' in page
    plain = read(f"/jobs/{submit(services)}")
    assert [shown in plain for shown in ("<dt>Begins</dt>", "<dt>Tags</dt>", "<dt>Trace</dt>", "Under a legal")] == [
        False
    ] * 4
