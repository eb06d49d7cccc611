"""What pages are made of: the style sheet, the scripts and the icon, from this package."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath

from triggers.endpoints import NoQuery
from triggers.package_files import answer_with_file

router = APIRouter()

_FOLDER = Path(__file__).parent / "static"
_TYPES = {
    "ui.css": "text/css; charset=utf-8",
    "ui.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.get("/ui/static/{name}")
def get_asset(name: Annotated[str, InPath(max_length=100)], query: NoQuery) -> Response:
    """One of the files."""
    del query
    return answer_with_file(_FOLDER, _TYPES, name, "/api/ui is the dashboard")
