"""An action on many jobs of the list: first what it would do and to how many; then, once confirmed, it is done."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Query as InQuery

from core.models.bulk import BulkAction, BulkReport, BulkRequest
from core.models.job_filter import read_wanted_tags
from core.operating.bulk import MoreJobsMatch
from core.safety.roles import Role
from triggers.access import expect_role
from triggers.actor import Actor
from triggers.bulk_models import BulkBody
from triggers.endpoints import parse_body
from triggers.problems import invalid_request, wrong_field
from triggers.ui.forms import Form, whole_number
from triggers.ui.jobs_page import BULK_WORDS, ListQuery, ListWish
from triggers.ui.page import PageRoute, go_to, render
from triggers.ui.ports import Services

router = APIRouter(route_class=PageRoute)

# The name of a chosen job's field; its value has no meaning.
PICK = "job."
_MATCHING = "matching"


@router.post("/ui/jobs/bulk")
def act_on_jobs(
    request: Request, services: Services, form: Form, query: Annotated[ListQuery, InQuery()], actor: Actor
) -> Response:
    """Without `confirm`: what would be done. With it: do that, and back to the list with what came of it."""
    wish = query.to_wish()
    means_all = form.get("scope") == _MATCHING
    # Nothing is chosen by hand where all that match are meant.
    picked = [] if means_all else [name.removeprefix(PICK) for name in form if name.startswith(PICK)]
    asked = _read(form, wish, picked).to_request(actor)
    if means_all and wish.text:
        asked = replace(asked, wanted=services.dashboard.search.narrow(wish.text, asked.wanted))
    if asked.action is BulkAction.DELETE:
        expect_role(request, Role.ADMIN)
    try:
        report = services.bulk.run(asked)
    except MoreJobsMatch:
        # More than were seen: they are shown again, and nothing was done.
        report = services.bulk.run(replace(asked, confirm=None))
    if report.is_dry_run:
        return _ask(request, asked, report, wish, picked)
    outcomes = [f"{word}-{count}" for word, count in report.counts.items()]
    left = {"left": report.remaining, "done_until": report.next_cursor} if report.next_cursor else {}
    return go_to(request, "jobs", **wish.asked, did=asked.action.value, outcome=outcomes, **left)


def _read(form: dict[str, str], wish: ListWish, picked: list[str]) -> BulkBody:
    """The form as the API's own request.

    Raises:
        ProblemError: 400 where no jobs are chosen, or a field is wrong.
    """
    chosen: dict[str, Any] = {"job_id": picked}
    if form.get("scope") == _MATCHING:
        lists = {"status": list(wish.statuses), "job_type": [wish.job_type] if wish.job_type else []}
        chosen = {name: values for name, values in lists.items() if values}
        chosen |= {"tags": read_wanted_tags(wish.tags), "paused": wish.paused}
    elif not picked:
        raise invalid_request([wrong_field("job", "at least one job that is chosen in the list", "none")])
    named = {name: form.get(name) for name in ("action", "reason")}
    body: dict[str, Any] = {**named, "filter": chosen, "cursor": form.get("cursor")}
    if "confirm" in form:
        body["confirm"] = whole_number("confirm", form["confirm"])
    return parse_body(BulkBody, body)


def _ask(request: Request, asked: BulkRequest, report: BulkReport, wish: ListWish, picked: list[str]) -> Response:
    return render(
        request,
        "jobs_bulk.html",
        nav="jobs",
        action=asked.action,
        verb=BULK_WORDS[asked.action],
        report=report,
        wish=wish,
        picked=picked,
        has_grown=asked.confirm is not None,
        confirmed=asked.confirm,
        reason=asked.reason or "",
        cursor=asked.cursor,
    )
