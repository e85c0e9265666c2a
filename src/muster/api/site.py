"""The monitor as served, and a page that lists the API without fetching anything from elsewhere."""

import html
from pathlib import Path
from typing import Any

from litestar import MediaType, Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.router import Router
from litestar.static_files import create_static_files_router

from muster import __version__
from muster.api.described import described
from muster.api.plane import AnyRequest, ThePlane

PAGE_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; frame-ancestors 'none'"
_PAGE_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# What Ollama answers at its root; its clients and start scripts probe for it.
_OLLAMA_ROOT = "Ollama is running"


def _monitor(web_dir: Path) -> Response[str]:
    page = (web_dir / "index.html").read_text()
    return Response(page, media_type=MediaType.HTML, headers=_PAGE_HEADERS)


@get("/", include_in_schema=False)
async def root(plane: ThePlane, request: AnyRequest) -> Response[str]:
    if "text/html" in request.headers.get("accept", ""):
        return _monitor(plane.web_dir)
    return Response(_OLLAMA_ROOT, media_type=MediaType.TEXT)


@get("/_/ui", include_in_schema=False)
async def ui(plane: ThePlane) -> Response[str]:
    return _monitor(plane.web_dir)


@get("/favicon.ico", include_in_schema=False)
async def favicon(plane: ThePlane) -> Response[bytes]:
    path = plane.web_dir / "favicon.svg"
    if not path.is_file():
        raise NotFoundException
    return Response(path.read_bytes(), media_type="image/svg+xml")


@get("/docs", include_in_schema=False)
async def docs(request: AnyRequest) -> Response[str]:
    schema = described(request.app.openapi_schema.to_schema())
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('summary') or '')}</td></tr>"
        for path, operations in sorted(schema["paths"].items())
        for method, operation in operations.items()
    )
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Muster API</title>"
        f"<h1>Muster {html.escape(__version__)}: the API</h1>"
        f"<p>The whole description: <a href=/openapi.json>/openapi.json</a>. Beside it the gateway speaks the OpenAI "
        f"API below <code>/v1</code> and the Ollama API below <code>/api</code>.</p>"
        f"<table border=1 cellpadding=6>{rows}</table></html>"
    )
    return Response(page, media_type=MediaType.HTML, headers=_PAGE_HEADERS)


def static_files(web_dir: Path) -> Router:
    def with_headers(response: Response[Any]) -> Response[Any]:
        response.headers.update(_PAGE_HEADERS)
        return response

    return create_static_files_router(
        path="/web", directories=[web_dir], after_request=with_headers, include_in_schema=False
    )


PAGES: list[HTTPRouteHandler] = [root, ui, favicon, docs]
