"""The web app: files that ``make web`` built, read once and given as they are. No name in a request becomes a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Response

BUILT = Path(__file__).parent / "web"
VIEWS = ("reader", "compare", "leaderboard", "catalogue", "runs")
"""Addresses of the app's own; each is the same page, which reads the address."""
KINDS = {
    ".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOREVER = "public, max-age=31536000, immutable"
"""For files whose names hold their content's hash."""

NOT_BUILT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Palate</title><meta name="viewport" content="width=device-width">
</head><body><main><h1>The web app has not been built</h1>
<p>This server answers over HTTP; <a href="/openapi.json">/openapi.json</a> says what may be asked.</p>
<p>For the pages, run <code>make web</code> in the repository and start <code>palate serve</code> again.</p>
</main></body></html>
"""


@dataclass(frozen=True)
class Page:
    body: bytes
    kind: str
    keep: str = "no-cache"


def read_built(folder: Path = BUILT) -> dict[str, Page]:
    """Address → page of everything that was built; empty where nothing was."""
    if not (folder / "index.html").is_file():
        return {}
    pages = {}
    for path in sorted(folder.rglob("*")):
        kind = KINDS.get(path.suffix)
        if path.is_file() and kind is not None:
            address = "/" + path.relative_to(folder).as_posix()
            pages[address] = Page(path.read_bytes(), kind, FOREVER if address.startswith("/assets/") else "no-cache")
    index = pages["/index.html"]
    return pages | {"/": index} | {f"/{view}": index for view in VIEWS}


def add_pages(app: FastAPI, pages: dict[str, Page]) -> None:
    """Routes for the pages, or one that says that they were not built."""
    if not pages:
        missing = Page(NOT_BUILT.encode(), KINDS[".html"], "no-store")
        for address in ("/", *(f"/{view}" for view in VIEWS)):
            app.add_api_route(address, _giving(missing, 503), methods=["GET", "HEAD"], include_in_schema=False)
        return
    for address, page in pages.items():
        app.add_api_route(address, _giving(page), methods=["GET", "HEAD"], include_in_schema=False)


def _giving(page: Page, status: int = 200):  # type: ignore[no-untyped-def]  # FastAPI reads the inner annotations
    async def give() -> Response:
        return Response(
            page.body, status, {"Cache-Control": page.keep, "Content-Security-Policy": POLICY}, media_type=page.kind
        )

    return give
