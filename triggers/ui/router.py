"""All pages, for the app to include."""

from triggers.ui import (
    actions,
    assets,
    dead_letter_pages,
    fleet_page,
    job_page,
    jobs_page,
    schedule_pages,
    submit_page,
)

ROUTERS = (
    assets.router,
    jobs_page.router,
    job_page.router,
    actions.router,
    submit_page.router,
    schedule_pages.router,
    dead_letter_pages.router,
    fleet_page.router,
)
