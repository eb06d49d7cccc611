"""All pages, for the app to include."""

from fastapi import APIRouter

from core.basics.canonical import shown
from triggers import preview
from triggers.problems import ProblemError
from triggers.ui import (
    actions,
    assets,
    bulk_page,
    dead_letter_pages,
    fleet_page,
    job_page,
    jobs_page,
    limit_pages,
    schedule_pages,
    sign_in,
    submit_page,
    webhook_pages,
)
from triggers.ui.page import PageRoute

# Here too, since a browser that signed in has its cookie for these paths alone.
_previews = APIRouter(prefix="/ui")
_previews.get("/jobs/{job_id}/preview")(preview.show_preview)
_previews.get("/jobs/{job_id}/preview/{part}")(preview.get_preview_part)

_elsewhere = APIRouter(prefix="/ui", route_class=PageRoute)


@_elsewhere.get("/{path:path}")
def show_no_page(path: str) -> None:
    """A person who followed a wrong link gets a page, not the API's JSON."""
    raise ProblemError(404, "not_found", f"There is no page {shown(path, 300)} here.")


# The last one takes what no other does.
ROUTERS = (
    assets.router,
    sign_in.router,
    _previews,
    jobs_page.router,
    bulk_page.router,
    job_page.router,
    actions.router,
    submit_page.router,
    schedule_pages.router,
    dead_letter_pages.router,
    fleet_page.router,
    limit_pages.router,
    webhook_pages.router,
    _elsewhere,
)
