"""All pages, for the app to include."""

from fastapi import APIRouter

from triggers import preview
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

# Here too, since a browser that signed in has its cookie for these paths alone.
_previews = APIRouter(prefix="/ui")
_previews.get("/jobs/{job_id}/preview")(preview.show_preview)
_previews.get("/jobs/{job_id}/preview/{part}")(preview.get_preview_part)

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
)
