"""The dashboard in a real browser: the flows that people use it for, the keyboard, a phone, and what may not happen."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from core.models.app import AppProfile
from core.models.dead_letter import DeadLetter
from core.models.submission import SubmitRequest
from core.models.webhook import DeliveryAnswer, DeliveryStatus, WebhookEvent
from core.operating.dead_letters import read_reference
from core.safety.roles import digest_of
from core.scheduling.schedules import ScheduleWish
from core.webhooks.webhooks import WebhookWish
from infrastructure.postgresql import create_pool
from tests.databases import clone_template
from tests.integration.host.chromium import CHROMIUM, Browser
from tests.integration.ui.dashboard_app import DashboardApp, running_app, serving
from triggers.access import AccessRules

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

AXE = Path(__file__).parents[3] / ".node" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# The rules whose answer depends on the page's colours.
OF_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
FROM_PAGE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def app(template_url: str) -> Iterator[DashboardApp]:
    with clone_template(template_url) as url, create_pool(url, max_size=20) as pool, running_app(pool) as app:
        yield app


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), seconds=420) as browser:
        browser.look(1280, 900)
        yield browser


@pytest.fixture(autouse=True)
def _nothing_is_wrong(page: Browser, app: DashboardApp) -> Iterator[None]:
    """No test leaves a violation of the policy, an error of the script, or a request to another host behind."""
    page.complaints.clear()
    page.requested.clear()
    app.gate.is_repaired = False
    yield
    app.gate.open()
    host = app.url.removesuffix("/api/ui")
    assert [url for url in page.requested if not url.startswith((host, "data:", "about:"))] == []
    # The browser notes each answer from 400 on: refused forms are part of the tests.
    assert [text for text in page.complaints if "the server responded with a status of 4" not in text] == []


def submit(app: DashboardApp, **parameters: object) -> str:
    given = {"folder": "abfs://scenes", "scenes": 4} | parameters
    return app.machine.submit_job(SubmitRequest("scene_catalog", given, correlation_id="corr-7", force=True)).job_id


def start(app: DashboardApp, job_type: str, **parameters: object) -> str:
    return app.machine.submit_job(SubmitRequest(job_type, parameters, force=True)).job_id


def ended(app: DashboardApp, **parameters: object) -> str:
    """A job that has ended."""
    job_id = submit(app, **parameters)
    answer = httpx.get(f"{app.url.removesuffix('/ui')}/jobs/{job_id}?wait=30", timeout=60).json()
    assert answer["finished_at"], answer
    return job_id


def text(page: Browser, selector: str) -> str:
    found = page.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")
    return " ".join(found.split())


def click(page: Browser, selector: str) -> None:
    """Click an element that leads to another page, and wait until that is there."""
    assert page.run(f"document.querySelector({json.dumps(selector)}) !== null"), (selector, text(page, "body"))
    page.follow(f"document.querySelector({json.dumps(selector)}).click()")


def fill(page: Browser, name: str, value: str) -> None:
    page.run(f"document.querySelector('[name={json.dumps(name)}]').value = {json.dumps(value)}")


def confirm(page: Browser, dialog: str, reason: str = "") -> None:
    """Press a button that asks first, give the reason, and confirm."""
    page.run(f"document.querySelector('[data-open={dialog}]').click()")
    assert page.run(f"document.getElementById('{dialog}').open") is True
    if reason:
        page.run(f"document.querySelector('#{dialog} [name=reason]').value = {json.dumps(reason)}")
    click(page, f"#{dialog} button:not([type])")


def test_a_job_is_submitted_by_form_and_watched_to_its_end(app: DashboardApp, page: Browser) -> None:
    page.open(f"{app.url}/submit")
    click(page, "a[href$='/ui/submit/scene_catalog']")
    fill(page, "p.folder", "ab")
    fill(page, "p.scenes", "many")
    click(page, "form.form button")
    # What is no number is found first; nothing was submitted.
    assert "whole number, 1 to 5,000, found" in text(page, ".has-error")
    fill(page, "p.scenes", "6")
    click(page, "form.form button")
    assert page.run("document.querySelector('[aria-invalid]').name") == "p.folder"
    assert "expected at least 3 characters, found 2" in text(page, ".has-error")
    assert page.run("document.querySelector('[name=\"p.scenes\"]').value") == "6"
    fill(page, "p.folder", "abfs://scenes/new")
    fill(page, "p.held", "[5]")
    click(page, "form.form button")
    page.wait_for("document.querySelector('.job-title .s-processing')")
    # The page refreshes itself while one task is still at work.
    page.wait_for("document.querySelector('.st-processing .stage-count')?.innerText === '5 / 6'")
    assert "claimed by geo-worker" in text(page, ".why")
    app.gate.open()
    page.wait_for("document.querySelector('.job-title .s-completed')")
    assert [text(page, f".stage:nth-child({number}) .stage-count") for number in (1, 2, 3)] == [
        "1 / 1",
        "6 / 6",
        "1 / 1",
    ]
    assert page.run("document.querySelectorAll('.lane-task').length") == 8


def test_a_live_page_takes_nothing_of_before_what_it_shows(app: DashboardApp, page: Browser) -> None:
    """Each process of the server counts a large stage for itself, and they answer in turns."""
    page.open(f"{app.url}/jobs/{submit(app, held=[0])}")
    page.run("fetch(location.href).then(answer => answer.text()).then(text => { window.pageText = text; })")

    def answer(counted: str, title: str) -> str:
        page.run(
            "window.isRead = false;"
            # A task of its own comes after all that the page does with the text.
            "window.readText = async text => { setTimeout(() => { window.isRead = true; }); return text; };"
            f"window.freshText = pageText.replace('<main ', '<main {counted} ').replace(/<h1>[^<]*/, '<h1>{title}');"
            "window.fetch = async () => ({ ok: true, redirected: false, text: () => readText(freshText) });"
        )
        page.press("p")
        page.press("p")
        page.wait_for("isRead")
        return text(page, "h1")

    assert answer('data-counted="10.5"', "first") == "first"
    assert answer('data-counted="9.25"', "older") == "first"
    assert answer('data-counted="11"', "later") == "later"
    assert answer("", "of now") == "of now"
    assert answer('data-counted="9.25"', "of another stage") == "of another stage"


def test_a_running_job_is_paused_resumed_and_cancelled_with_a_reason(app: DashboardApp, page: Browser) -> None:
    job_id = submit(app, held=[0, 1, 2, 3])
    page.open(f"{app.url}/jobs/{job_id}")
    page.wait_for("document.querySelector('.st-processing .stage-notes')?.innerText.includes('4 claimed')")
    confirm(page, "d-pause", "the source is being replaced")
    assert "The job is paused" in text(page, ".ok-banner")
    assert "(the source is being replaced)" in text(page, ".why")
    confirm(page, "d-resume")
    page.run("document.querySelector('[data-open=d-cancel]').click()")
    assert "4 tasks that run are asked to stop" in text(page, "#d-cancel")
    page.run("document.querySelector('#d-cancel').close()")
    confirm(page, "d-cancel", "wrong folder")
    page.wait_for("document.querySelector('.job-title .s-cancelling, .job-title .s-cancelled')")
    page.open(f"{app.url}/jobs/{job_id}?tab=events")
    assert "cancel requested" in text(page, ".events-table")
    assert "wrong folder" in text(page, ".events-table")


def test_a_failed_job_is_understood_and_what_failed_runs_again(app: DashboardApp, page: Browser) -> None:
    job_id = ended(app, scenes=12, broken=[0, 1, 2, 3, 4, 5], unsteady=[7])
    page.open(f"{app.url}/jobs/{job_id}?tab=tasks")
    assert "6 of 5 permitted failures" in text(page, ".st-failed")
    assert text(page, ".groups .group-count") == "6"
    statuses = page.run("[...document.querySelectorAll('.tasks-table .c-status')].map(each => each.innerText.trim())")
    assert statuses[:7] == ["failed"] * 6 + [statuses[6]]
    assert statuses[6] != "failed"
    click(page, ".groups a")
    assert page.run("document.querySelectorAll('.tasks-table tbody tr').length") == 6
    click(page, ".tasks-table .main-link")
    assert "TIFFFillTile: read error" in text(page, ".error-line")
    assert "reading block 12" in text(page, "#log")
    assert "Traceback (most recent call last)" in text(page, "#traceback")
    app.gate.is_repaired = True
    page.open(f"{app.url}/jobs/{job_id}")
    confirm(page, "d-rerun-failed")
    page.wait_for("document.querySelector('.job-title .s-completed')")
    assert text(page, ".job-title .tag") == "run 2"
    page.open(f"{app.url}/jobs/{job_id}?tab=runs")
    assert page.run("[...document.querySelectorAll('.tab-panel .c-status')].map(each => each.innerText.trim())") == [
        "completed",
        "failed",
    ]


def test_many_tasks_are_a_heat_strip_and_come_in_pages(app: DashboardApp, page: Browser) -> None:
    job_id = ended(app, scenes=230)
    with app.services.pool.connection() as connection:
        connection.execute(
            "update app.tasks set started_at = started_at - interval '1 minute'"
            " where job_id = %s and stage = 2 and task_index < 2",
            (job_id,),
        )
    page.open(f"{app.url}/jobs/{job_id}")
    heat = page.run("[...document.querySelectorAll('.lane-heat')].map(each => each.innerText)")
    assert "230 tasks" in heat[1]
    # Beside the heat strips: the three slowest, and the only task of each other stage.
    assert page.run("document.querySelectorAll('.lane-task').length") == 5
    assert page.run("[...document.querySelectorAll('.lane-why')].map(each => each.innerText)") == ["slow"] * 2
    page.open(f"{app.url}/jobs/{job_id}?tab=tasks&stage=2")
    seen = set()
    for _ in range(5):
        names = page.run("[...document.querySelectorAll('.main-link')].map(each => each.innerText)")
        assert not seen & set(names)
        seen |= set(names)
        if page.run("document.querySelector('[rel=next]') !== null"):
            click(page, "[rel=next]")
    assert len(seen) == 230


def test_jobs_are_filtered_searched_and_paged_in_the_address(app: DashboardApp, page: Browser) -> None:
    failed = ended(app, broken=[0, 1, 2, 3], scenes=9, unsteady=[8])
    many = ended(app, broken=[0, 1, 2, 3, 4, 5], scenes=6)
    page.open(f"{app.url}?status=completed_with_errors")
    assert page.run("document.querySelectorAll('.jobs-table tbody tr').length") == 1
    assert "4 failed" in text(page, ".jobs-table")
    click(page, "[name=failed_first]")
    assert page.run("location.search") == "?status=completed_with_errors&failed_first=true"
    page.open(f"{app.url}/jobs?failed_first=true")
    first = page.run("document.querySelector('.jobs-table tbody tr').innerText")
    assert "failed" in first
    assert many[:12] in first
    page.run("document.querySelector('[data-search]').value = " + json.dumps(failed[:9]))
    click(page, ".filters button")
    assert page.run("[...document.querySelectorAll('.jobs-table code')].map(each => each.innerText)") == [failed[:12]]
    page.open(f"{app.url}/jobs?q=corr-7")
    assert page.run("document.querySelectorAll('.jobs-table tbody tr').length") > 3
    page.open(f"{app.url}/jobs?q=nothing-like-it")
    assert "Nothing found for" in text(page, ".empty")
    page.open(f"{app.url}/jobs?q=read+error&status=failed")
    assert many[:12] in text(page, ".jobs-table")
    assert "TIFFFillTile: read error" in text(page, ".jobs-table .reason")
    # A chip keeps the search, which its jobs narrow.
    click(page, "a.chip.s-completed_with_errors")
    assert page.run("location.search") == "?status=completed_with_errors&q=read+error"
    page.open(f"{app.url}/jobs?q=scenes%3D9")
    assert page.run("[...document.querySelectorAll('.jobs-table code')].map(each => each.innerText)") == [failed[:12]]


def test_chosen_rows_stay_chosen_and_are_acted_on_after_a_look(app: DashboardApp, page: Browser) -> None:
    for _ in range(2):
        ended(app, scenes=2)
    page.open(f"{app.url}/jobs?status=completed")
    assert page.run("getComputedStyle(document.querySelector('.picked')).display") == "none"
    page.press("j")
    page.press("x")
    page.run("document.querySelectorAll('[data-pick]')[1].click()")
    assert text(page, ".picked-count") == "2 chosen"
    # The list refreshes itself, and the choice stays.
    page.run("document.querySelector('[data-live=rows] tbody').dataset.old = 'yes'; document.activeElement.blur()")
    page.run("document.querySelector('.c-age').textContent = ''")
    page.wait_for("!document.querySelector('[data-live=rows] tbody').dataset.old")
    assert text(page, ".picked-count") == "2 chosen"
    click(page, ".picked [value=rerun]")
    assert text(page, "h1") == "Rerun 2 jobs?"
    fill(page, "reason", "new data")
    click(page, ".bulk button.primary")
    assert text(page, ".ok-banner") == "Rerun: 2 run again."


def test_all_that_a_search_finds_are_cancelled_after_a_look(app: DashboardApp, page: Browser) -> None:
    jobs = [submit(app, folder=f"abfs://Breakwater/{number}", held=[0]) for number in range(2)]
    page.open(f"{app.url}/jobs?q=breakwater")
    page.run("document.querySelector('[data-pick]').click()")
    page.run("document.querySelector('.picked [name=scope]').click()")
    assert "all jobs that this search finds" in text(page, ".picked")
    click(page, ".picked [value=cancel]")
    assert text(page, "h1") == "Cancel 2 jobs?"
    assert all(job_id[:12] in text(page, ".list") for job_id in jobs)
    fill(page, "reason", "wrong folder")
    click(page, ".bulk button.danger")
    assert text(page, ".ok-banner").startswith("Cancel: 2 cancel")
    # Back at the search.
    assert page.run("document.querySelector('[data-search]').value") == "breakwater"


def test_a_running_job_gets_another_priority(app: DashboardApp, page: Browser) -> None:
    page.open(f"{app.url}/jobs/{submit(app, held=[0])}")
    page.run("document.querySelector('[data-open=d-adjust]').click()")
    fill(page, "priority", "high")
    page.run("document.querySelector('#d-adjust').close()")
    confirm(page, "d-adjust", "somebody waits for it")
    assert "Priority high" in text(page, ".facts")


def test_the_keyboard_is_enough(app: DashboardApp, page: Browser) -> None:
    job_id = ended(app)
    page.open(app.url)
    page.press("j")
    assert page.run("document.querySelector('.selected').innerText").strip().startswith("scene_catalog")
    page.press("j")
    page.press("k")
    assert job_id[:12] in page.run("document.querySelector('.selected').innerText")
    # The link has the focus, and Enter follows it.
    assert page.run("document.activeElement.className") == "main-link"
    page.follow("document.activeElement.click()")
    assert page.run("location.pathname").endswith(job_id)
    page.press("?")
    assert page.run("document.querySelector('#help').open") is True
    page.run("document.querySelector('#help').close()")
    before = page.run("getComputedStyle(document.body).backgroundColor")
    page.press("t")
    assert page.run("getComputedStyle(document.body).backgroundColor") != before
    page.press("t")
    page.press("p")
    assert text(page, "[data-live-text]") == "paused"
    page.open(app.url)
    page.press("/")
    assert page.run("document.activeElement.name") == "q"


def test_a_schedule_is_written_changed_paused_resumed_and_run_now(app: DashboardApp, page: Browser) -> None:
    page.open(f"{app.url}/schedules")
    click(page, "a[href$='/ui/new-schedule']")
    fill(page, "name", "every night")
    fill(page, "p.job_type", "scene_catalog")
    fill(page, "p.cron", "30 25 * * *")
    fill(page, "p.parameters", '{"folder": "abfs://{tick:%Y-%m-%d}", "scenes": 2}')
    fill(page, "p.overlap", "wait")
    click(page, "form.form button")
    # The name is looked at first; what was entered is still there.
    assert page.run("document.querySelector('[aria-invalid]').name") == "name"
    fill(page, "name", "nightly")
    click(page, "form.form button")
    assert page.run("document.querySelector('[aria-invalid]').name") == "p.cron"
    fill(page, "p.cron", "30 2 * * *")
    click(page, "form.form button")
    assert "The schedule is there" in text(page, ".ok-banner")
    assert app.services.schedule_queries.find_schedule("nightly").parameters["scenes"] == 2
    click(page, "a[href$='/nightly/edit']")
    assert page.run("document.querySelector('[name=\"p.overlap\"]').value") == "wait"
    fill(page, "p.time_zone", "Europe/Berlin")
    fill(page, "p.overlap", "skip")
    click(page, "form.form button")
    assert "02:30 CE" in text(page, ".wide-first")
    confirm(page, "d-pause")
    assert "it is paused" in text(page, ".why")
    confirm(page, "d-resume")
    assert "its next tick is" in text(page, ".why")
    confirm(page, "d-run")
    assert "submitted" in text(page, "[data-live=ticks]")
    assert "by hand" in text(page, "[data-live=ticks]")
    click(page, "[data-live=ticks] a")
    page.wait_for("document.querySelector('.job-title .s-completed')")
    app.services.schedules.put(ScheduleWish("weekly", "hello_world", "0 3 * * 1", {"n": 1}))
    page.open(f"{app.url}/schedules/weekly")
    confirm(page, "d-delete")
    assert "was deleted" in text(page, ".ok-banner")
    assert app.services.schedule_queries.find_schedule("weekly") is None


def test_a_webhook_is_written_tested_paused_changed_and_deleted(app: DashboardApp, page: Browser) -> None:
    page.open(f"{app.url}/new-webhook")
    fill(page, "name", "chat")
    fill(page, "p.url", "http://10.0.0.7/hook")
    click(page, "form.form button")
    assert "at least 1 item" in text(page, "fieldset.has-error")
    page.run("document.querySelector('[name=\"p.events:job.failed\"]').click()")
    click(page, "form.form button")
    # The API's own rule; the choice is kept.
    assert "expected an address that deliveries may go to, found 10.0.0.7" in text(page, ".has-error")
    assert page.run("document.querySelector('[name=\"p.events:job.failed\"]').checked") is True
    fill(page, "p.url", "https://example.org/hook")
    click(page, "form.form button")
    secret = text(page, ".secret")
    assert secret.startswith("whsec_")
    click(page, "main a.primary")
    confirm(page, "d-test")
    assert "webhook.test" in text(page, ".deliveries-table tbody tr")
    confirm(page, "d-pause")
    assert app.services.webhook_queries.find_webhook("chat").is_paused
    confirm(page, "d-resume")
    click(page, "a[href$='/chat/edit']")
    page.run("document.querySelector('[name=\"p.events:job.stalled\"]').click()")
    click(page, "form.form button")
    found = app.services.webhook_queries.find_webhook("chat")
    assert (found.events, found.is_paused, found.url) == (
        ("job.failed", "job.stalled"),
        False,
        "https://example.org/hook",
    )
    confirm(page, "d-rotate-secret")
    assert text(page, ".secret") not in {"", secret}
    click(page, "main a.primary")
    confirm(page, "d-delete")
    assert app.services.webhook_queries.find_webhook("chat") is None


def test_dead_letters_are_redriven_by_their_reason(app: DashboardApp, page: Browser) -> None:
    body = json.dumps({"job_type": "hello_world", "parameters": {"n": 1, "message": "again"}}).encode()
    for number in range(3):
        app.services.state.record_dead_letter(
            DeadLetter(
                *("jobs", f"m{number}", number, datetime.now(UTC), read_reference("jobs", body, {})),
                reason="MaxDeliveryCountExceeded",
                description=f"delivery {number} failed",
                delivery_count=10,
                correlation_id=None,
                body=body.decode(),
                body_size=len(body),
            )
        )
    page.open(f"{app.url}/dead-letters")
    assert text(page, ".group-count") == "3"
    click(page, ".groups a")
    page.run("document.querySelector('[data-open=d-redrive]').click()")
    assert "3 are sent again" in text(page, "#d-redrive")
    click(page, "#d-redrive button:not([type])")
    assert text(page, ".ok-banner") == "Redriven: 3 sent."
    page.open(f"{app.url}/jobs?job_type=hello_world")
    page.wait_for("document.querySelector('.jobs-table .s-completed')")


def test_what_a_job_waits_for_is_two_clicks_away_and_changed_there(app: DashboardApp, page: Browser) -> None:
    """A limit: from the list to the job, from its finding to the limit, where its numbers are chosen."""
    holder = start(app, "tile_fetch", server="slow", tiles=1, is_held=True)
    page.open(f"{app.url}/jobs/{holder}")
    page.wait_for("document.querySelector('.st-processing .stage-notes')?.innerText.includes('1 claimed')")
    waiting = start(app, "tile_fetch", server="slow", tiles=1)
    page.open(f"{app.url}/jobs?q={waiting}")
    page.wait_for("document.querySelector('.reason')?.innerText.includes('Waits for the limit tiles/slow')")
    click(page, ".jobs-table .main-link")
    click(page, ".places a[href*='/limits/']")
    assert holder[:12] in text(page, "[data-live=rows]")
    assert waiting[:12] in text(page, "[data-live=rows]")
    page.run("document.querySelector('[data-open=d-set]').click()")
    fill(page, "at_once", "5")
    fill(page, "rate", "often")
    click(page, "#d-set button:not([type])")
    assert "expected a rate such as" in text(page, ".error-page")
    page.open(f"{app.url}/limits")
    click(page, ".main-link")
    page.run("document.querySelector('[data-open=d-set]').click()")
    fill(page, "at_once", "5")
    click(page, "#d-set button:not([type])")
    assert " of 5 " in text(page, ".job-head")
    confirm(page, "d-forget")
    assert "as stages declare them" in text(page, ".job-head")
    page.open(f"{app.url}/jobs/{waiting}")
    page.wait_for("document.querySelector('.job-title .s-completed')")


def test_a_job_is_held_released_and_deleted(app: DashboardApp, page: Browser) -> None:
    job_id = ended(app, scenes=2)
    page.open(f"{app.url}/jobs/{job_id}")
    confirm(page, "d-hold", "case 7")
    assert "Under a legal hold. Neither retention nor people delete it: case 7." in text(page, "[data-live=hold]")
    assert page.run("document.querySelector('[data-open=d-delete]')") is None
    confirm(page, "d-release")
    page.run("document.querySelector('[data-open=d-delete]').click()")
    assert "The job goes with its 4 tasks" in text(page, "#d-delete")
    page.run("document.querySelector('#d-delete').close()")
    confirm(page, "d-delete", "the data was withdrawn")
    assert text(page, ".ok-banner") == "Delete: 1 deleted."
    assert httpx.get(f"{app.url}/jobs/{job_id}", timeout=30).status_code == 404
    (row,) = app.services.audit.list_audit(job_id=job_id, action="delete").items
    assert row.reason == "the data was withdrawn"


def test_a_delivery_that_was_given_up_is_sent_again(app: DashboardApp, page: Browser) -> None:
    events = (WebhookEvent.JOB_COMPLETED,)
    app.services.webhooks.put(WebhookWish("on-call", events, url="https://example.org/hook", job_types=("hello_*",)))
    job_id = start(app, "hello_world", n=1, message="hook")
    httpx.get(f"{app.url.removesuffix('/ui')}/jobs/{job_id}?wait=30", timeout=60)
    (due,) = app.services.webhook_queries.claim_deliveries(10, 10, 60.0)
    given_up = DeliveryAnswer(DeliveryStatus.DEAD, 503, "the receiver answered 503")
    app.services.webhook_queries.settle_delivery(due, given_up)
    page.open(f"{app.url}/webhooks")
    assert "1 dead" in text(page, "[data-live=rows]")
    click(page, ".main-link")
    click(page, "a.chip[href*='status=dead']")
    assert "503 the receiver answered 503" in text(page, ".deliveries-table")
    click(page, ".deliveries-table form button")
    assert "sent again" in text(page, ".ok-banner")
    assert "pending" in text(page, ".deliveries-table")
    confirm(page, "d-test")
    assert "webhook.test" in text(page, ".deliveries-table tbody tr")


def pages_of(app: DashboardApp) -> list[str]:
    job_id = ended(app, scenes=8, broken=[0, 1], unsteady=[3])
    job = f"/jobs/{job_id}"
    tabs = [f"{job}?tab={tab}" for tab in ("overview", "tasks", "figure", "events", "data", "runs")]
    others = ["/submit", "/submit/scene_catalog", "/schedules", "/dead-letters", "/queues", "/jobs?q=none", "/jobs/0"]
    # Those that earlier tests left.
    named = ["/schedules/nightly", "/limits", "/limits/tiles%2Fslow", "/webhooks", "/webhooks/on-call"]
    forms = ["/new-schedule?job_type=scene_catalog", "/schedules/nightly/edit", "/new-webhook"]
    return ["", *tabs, f"{job}/tasks/s2-scene-0000.tif", *others, *named, *forms]


def test_axe_finds_nothing_and_a_phone_is_wide_enough(app: DashboardApp, page: Browser) -> None:
    """In light colours; and in dark ones, whatever depends on them."""
    if not AXE.is_file():
        pytest.skip("no axe-core here: make test-programs")
    found: dict[str, object] = {}
    first, *_ = paths = pages_of(app)

    def examine(name: str) -> None:
        assert page.run("document.documentElement.scrollWidth") <= 390, name
        assert page.run("document.querySelector('iframe') === null"), name
        page.run(AXE.read_text(encoding="utf-8") + ";0")
        for colours, rules in (("light", RULES), ("dark", OF_COLOURS)):
            page.look(390, 844, dark=colours == "dark", phone=True)
            options = {
                "runOnly": rules,
                # What passes is not described, and no frames are looked for: that takes half of the time.
                "resultTypes": ["violations"],
                "reporter": "no-passes",
                "iframes": False,
                # The stylesheets, which all pages have.
                "preload": name == first,
            }
            violations = page.run(
                f"axe.run(document, {json.dumps(options)})"
                ".then(found => found.violations"
                ".map(each => [each.id, each.impact, each.nodes.map(node => node.target.join(' ') + ' ' + node.html)]))"
            )
            if violations:
                found[f"{name}, {colours}"] = violations
        page.look(390, 844, phone=True)

    page.look(390, 844, phone=True)

    for path in paths:
        page.open(app.url + path)
        examine(path)
    page.open(f"{app.url}/jobs")
    page.run("document.querySelector('[data-pick]').click()")
    examine("rows chosen")
    click(page, ".picked [value=delete]")
    examine("what would be done to them")
    page.open(f"{app.url}/new-webhook")
    click(page, "form.form button")
    examine("errors beside the fields")
    page.open(f"{app.url}/jobs/{submit(app, held=[0])}")
    page.run("document.querySelector('[data-open=d-adjust]').click()")
    examine("a dialog that is open")
    page.look(1280, 900)
    assert found == {}


# What is wider than the window without its scroll bar, cut in the header, or wider than the box in which it is seen.
_TOO_WIDE = """(room => [
  ...(document.documentElement.scrollWidth > room ? [`the page is ${document.documentElement.scrollWidth}`] : []),
  ...[...document.querySelectorAll('.nav a, .tools > *, .brand')].filter(each => {
    const box = each.getBoundingClientRect();
    return box.left < 0 || box.right > room || each.scrollWidth > each.clientWidth + 1
      || [...each.children].some(part => part.getClientRects().length > 1 || part.offsetHeight > 32);
  }).map(each => `cut or wrapped: ${each.innerText}`),
  // In narrower windows people move tables of many columns sideways.
  ...[...document.querySelectorAll('.apps-table')]
    .filter(each => innerWidth > 900 && each.offsetWidth > each.parentElement.clientWidth)
    .map(each => `the apps are ${each.offsetWidth} in ${each.parentElement.clientWidth}`),
])(document.documentElement.clientWidth)"""


def test_no_page_is_wider_than_its_window(app: DashboardApp, page: Browser) -> None:
    wide = {}
    for number in range(2):
        app.services.apps.record_app_instance(
            AppProfile(
                *(f"geo-worker-of-the-north:vm-000{number}:4711:3f2a9c", "geo-worker-of-the-north", "standalone"),
                *("0.1.0", "2026-11-30.1+3f2a9c", ("jobs", "raster", "tasks"), ("scene_convert",), (), 8),
            )
        )
    for path in pages_of(app):
        page.open(app.url + path)
        # The most that the navigation has to show.
        for place in ("queues", "dead-letters"):
            most = "'<b class=\"alert\">999+</b>'"
            page.run(f"document.querySelector('[data-live-too=alert-{place}]').innerHTML = {most}")
        for width in (721, 860, 960, 1000, 1080, 1280):
            page.look(width, 900)
            if found := page.run(_TOO_WIDE):
                wide[f"{path} at {width}"] = found
    page.look(1280, 900)
    assert wide == {}


def test_person_signs_in_acts_and_signs_out(app: DashboardApp, page: Browser) -> None:
    job_id = submit(app, held=[0])
    setting = f"operator:kim={digest_of('key of kim')}"
    rules = AccessRules.read({"COREMACHINE_ROLE_KEYS": setting}, trusts_principal=False)
    with serving(lambda: app.services, rules) as url:
        page.open(f"{url}/jobs/{job_id}?tab=events")
        assert text(page, "h1") == "Sign in"
        fill(page, "key", "another key")
        click(page, "form.form button")
        assert "has no role here" in text(page, ".bad-banner")
        fill(page, "key", "key of kim")
        click(page, "form.form button")
        # Back at the page that was asked for; no address has the key, and no script sees it.
        assert page.run("location.href") == f"{url}/jobs/{job_id}?tab=events"
        assert page.run("document.cookie") == ""
        confirm(page, "d-pause", "a look at the source")
        page.open(f"{url}/jobs/{job_id}?tab=events")
        assert "kim" in text(page, "[data-live=tab]")
        click(page, ".foot form button")
        page.open(f"{url}/jobs")
        assert text(page, "h1") == "Sign in"
        fill(page, "key", "key of kim")
        click(page, "form.form button")
        # A page that refreshes itself leads there too, once its cookie has gone: it never shows old numbers as live.
        page.call("Network.clearBrowserCookies")
        page.press("p")
        page.follow("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'p', bubbles: true}))")
        assert page.run("document.querySelector('[name=next]').value") == "/api/ui/jobs"
        assert [asked for asked in page.requested if not asked.startswith(url) or "kim" in asked] == []
        page.requested.clear()
        page.open("about:blank")


def test_another_site_changes_nothing(app: DashboardApp) -> None:
    job_id = ended(app)
    address = f"{app.url}/jobs/{job_id}/rerun"
    plain = {"Content-Type": FROM_PAGE["Content-Type"]}
    for headers in (plain, {**plain, "Sec-Fetch-Site": "cross-site"}, {**plain, "Origin": "https://evil.example"}):
        answer = httpx.post(address, content="mode=all", headers=headers, timeout=30)
        assert (answer.status_code, "foreign_origin" in answer.text) == (403, True), headers
    answer = httpx.post(address, content="mode=all", headers=FROM_PAGE, timeout=30)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/api/ui/jobs/{job_id}?note=rerun")


def test_a_key_is_passed_on_and_errors_are_pages(app: DashboardApp) -> None:
    page = httpx.get(f"{app.url}?code=k%26y", timeout=30)
    links = [part.split('"')[0] for part in page.text.split('href="')[1:]]
    assert len(links) > 8
    assert [link for link in links if "code=k%26y" not in link and not link.startswith("#")] == []
    missing = httpx.get(f"{app.url}/jobs/{'0' * 64}", timeout=30)
    assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "unknown_job" in missing.text
    wrong = httpx.get(f"{app.url}/jobs?status=finished", timeout=30)
    assert (wrong.status_code, "one of processing" in wrong.text) == (400, True)
    assert "default-src 'none'" in wrong.headers["content-security-policy"]
