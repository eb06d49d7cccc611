"""The API's description, and a page that shows it: Swagger UI from this package, so that it works without internet.

Where the host asks for a key, `/api/docs?code=<key>` passes it on to what the page loads.
"""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi import Path as InPath

from triggers.endpoints import NoQuery, find_services
from triggers.openapi import describe
from triggers.package_files import answer_with_file, read_file
from triggers.ports import ServicesNotReady

router = APIRouter()

_FOLDER = Path(__file__).parent / "swagger"
_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
# Nothing from elsewhere, nothing inline, and no other page around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/openapi.json")
async def get_document(request: Request, query: NoQuery) -> dict[str, Any]:
    """OpenAPI 3.1; with a path for each job type as soon as the app knows its job types."""
    del query
    state = request.app.state
    if state.document is None:
        try:
            state.document = describe(request.app, (await find_services(request)).registry)
        except ServicesNotReady:
            return describe(request.app, None)
    document: dict[str, Any] = state.document
    return document


@router.get("/docs")
def show_page(query: NoQuery) -> Response:
    """The page."""
    given = {name: value for name, value in (("code", query.code), ("clientId", query.clientId)) if value}
    text = (
        read_file(_FOLDER / "page.html")
        .decode()
        .replace("{query}", f"?{urlencode(given)}".replace("&", "&amp;") if given else "")
    )
    return Response(text, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}")
def get_asset(name: Annotated[str, InPath(max_length=100)], query: NoQuery) -> Response:
    """What the page is made of."""
    del query
    return answer_with_file(_FOLDER, _TYPES, name, "/api/docs is the page")
