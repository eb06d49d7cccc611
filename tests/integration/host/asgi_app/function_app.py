"""A FastAPI application behind the host, as AsgiFunctionApp registers it."""

import azure.functions as func
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

api = FastAPI()
counted: list[bytes] = []
read: list[str] = []


@api.post("/headers")
async def post_headers(request: Request) -> dict:
    body = await request.body()
    return {"transfer_encoding": request.headers.get("transfer-encoding"), "body": body.decode()}


@api.post("/count")
async def post_count(request: Request) -> None:
    counted.append(await request.body())


@api.get("/page")
async def get_page() -> HTMLResponse:
    script = "fetch('/secret').then(() => fetch('/count', {method: 'POST', body: '{}'}))"
    return HTMLResponse(f"<script>{script}</script>")


@api.get("/secret")
async def get_secret() -> str:
    read.append("secret")
    return "secret"


@api.get("/broken-header")
async def get_broken_header() -> Response:
    return Response(headers={"X-Broken": "a\r\nSet-Cookie: b"})


@api.get("/broken-name")
async def get_broken_name() -> Response:
    return Response(headers={"X Broken": "a"})


@api.get("/broken-status")
async def get_broken_status() -> Response:
    return Response(status_code=600)


@api.get("/reads")
async def get_reads() -> int:
    return len(read)


@api.get("/count")
async def get_count() -> int:
    return len(counted)


@api.get("/items/{item_id}")
async def get_item(item_id: int, q: str = "") -> dict:
    return {"item_id": item_id, "q": q}


@api.post("/items", status_code=201)
async def post_item(request: Request) -> dict:
    return {"received": await request.json(), "path": request.url.path}


app = func.AsgiFunctionApp(app=api, http_auth_level=func.AuthLevel.ANONYMOUS)
