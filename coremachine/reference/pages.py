"""All generated pages: their files, and what makes each."""

from collections.abc import Callable
from pathlib import Path

from core.models.diagram import render_states
from coremachine.reference import (
    client_page,
    commands,
    events,
    http_api,
    log_page,
    message_page,
    metrics_page,
    parameter_types,
    problem_codes,
    public_api,
    settings_page,
    sql_page,
    stage_keys,
    tables_page,
)
from coremachine.reference.sources import ROOT

FOLDER = ROOT / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "http.md": http_api.render,
    "problem-codes.md": problem_codes.render,
    "cli.md": commands.render,
    "python-api.md": public_api.render,
    "python-client.md": client_page.render,
    "settings.md": settings_page.render,
    "stage-keys.md": stage_keys.render,
    "parameter-types.md": parameter_types.render,
    "submission-message.md": message_page.render,
    "states.md": render_states,
    "events.md": events.render,
    "log.md": log_page.render,
    "metrics.md": metrics_page.render,
    "sql-functions.md": sql_page.render,
    "tables.md": tables_page.render,
}


def write_pages(folder: Path = FOLDER) -> list[str]:
    """Writes each page that is not as it should be; the names of those."""
    changed = [name for name, render in PAGES.items() if not is_current(folder / name, render())]
    for name in changed:
        (folder / name).write_text(PAGES[name](), encoding="utf-8")
    return changed


def is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
