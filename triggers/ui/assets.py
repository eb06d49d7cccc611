"""What pages are made of: the style sheet, the scripts and the icon, from this package."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Path as InPath

from triggers.endpoints import NoQuery
from triggers.problems import ProblemError

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
    if name not in _TYPES:
        raise ProblemError(404, "not_found", f"There is no {name!r} here; /api/ui is the dashboard.")
    return Response(_read(name), media_type=_TYPES[name])


@lru_cache(maxsize=8)
def _read(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
