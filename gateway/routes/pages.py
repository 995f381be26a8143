"""The web page, its files, and the API documentation, all served from the package."""

import asyncio
import hashlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from litestar import Response, get
from litestar.params import FromPath

from contracts.errors import NotFound
from gateway.http.files import OCTET_STREAM, etag_matches
from gateway.routes.shared import AnyRequest

WEB = Path(__file__).parent.parent / "web"
MEDIA_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".md": "text/plain",
    ".txt": "text/plain",
    "": "text/plain",
}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


@get("/web/{path:path}", include_in_schema=False)
async def web_file(path: FromPath[str], request: AnyRequest) -> Response[bytes]:
    """A file of the web page."""
    return await page_file(request, path.lstrip("/"))


@get("/docs", include_in_schema=False)
async def docs(request: AnyRequest) -> Response[bytes]:
    """The interactive API documentation (Swagger UI)."""
    return await page_file(request, "docs/index.html")


async def page_file(request: AnyRequest, name: str) -> Response[bytes]:
    """One file under `web/`; browsers revalidate it by ETag each time, so an update is visible at once."""
    content, etag = await asyncio.to_thread(_read, name)
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    }
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(b"", status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=MEDIA_TYPES.get(Path(name).suffix, OCTET_STREAM))


def _read(name: str) -> tuple[bytes, str]:
    parts = PurePosixPath(name).parts
    file = WEB.joinpath(*parts)
    is_hidden = any(part.startswith(".") or "\\" in part for part in parts)
    if is_hidden or not file.resolve().is_relative_to(WEB.resolve()) or not file.is_file():
        raise NotFound(f"there is no page file {name[:200]!r}")
    content = file.read_bytes()
    return content, _etag(content)


@lru_cache(maxsize=64)
def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
