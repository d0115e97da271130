"""The page at /graphiql: the built one, or one that says how it is built."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

PAGE_FILE: Final = "index.html"
FAILURE_FILE: Final = "failure.txt"
ASSET_FOLDER: Final = "assets"

# What GraphiQL 5.4 with Monaco needs, measured in Chromium: its editor writes inline styles and works in workers.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Of our own, because the `mimetypes` module also believes the machine's /etc/mime.types.
MEDIA_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".woff2": "font/woff2",
}
# Best first: the content coding and the suffix that its file carries.
ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))
# One path segment that begins with a letter or digit: neither a folder above nor a hidden file can be named.
ASSET_PATH: Final = re.compile(r"/graphiql/assets/([A-Za-z0-9][A-Za-z0-9._-]*)")

WAITING: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="5">
<title>GraphiQL · Tallygate</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 40rem; padding: 2rem 1rem; }}
code, pre {{ background: rgb(128 128 128 / 15%); border-radius: 4px; font: 14px/1.5 ui-monospace, monospace; padding: 2px 5px; }}
pre {{ overflow-x: auto; padding: 10px; }}
.failure {{ border-left: 4px solid #c0392b; padding-left: 12px; }}
</style>
</head>
<body>
<main>
<h1>The page is not built yet. The API is being served.</h1>
<p>GraphQL answers at <code>/graphql</code> now; send it a POST request:</p>
<pre>curl -H 'Content-Type: application/json' -d '{{"query": "{{ service {{ version }} }}"}}' $TALLYGATE_BASE_URL/graphql</pre>
{failure}
<p>This page, GraphiQL, is built once, in about a minute, by</p>
<pre>python -m console.build</pre>
<p>and appears here by itself as soon as it is: this notice looks again every five seconds.</p>
</main>
</body>
</html>
"""
FAILURE: Final = """<div class="failure" role="alert">
<p><strong>The last attempt to build the page failed.</strong> {sentence}</p>
<p>What the tools said stands in <code>build.log</code>, in the folder that the page is built into.</p>
</div>"""


class Page:
    """The ASGI app of /graphiql and /graphiql/assets/: it serves what `console.build` built, as soon as that is finished.

    Route both paths to it with the path unchanged: `Route("/graphiql", page)` and `Route("/graphiql/{path:path}", page)`. It answers GET
    and HEAD. Until there is a build, the page is a notice that says so, with the reason of the last failure.
    """

    def __init__(self, dist: Path) -> None:
        """Serve the folder that `console.build` writes to; it need not exist."""
        self._dist = dist

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Method Not Allowed", 405, headers={**SECURITY_HEADERS, "allow": "GET, HEAD"})
        path: str = scope["path"]
        response: Response | None = None
        if path in ("/graphiql", "/graphiql/"):
            response = self._page()
        elif match := ASSET_PATH.fullmatch(path):
            response = self._asset(match[1], Headers(scope=scope))
        if response is None:
            response = PlainTextResponse("Not Found", 404, headers={**SECURITY_HEADERS, "cache-control": "no-store"})
        if scope["method"] == "HEAD" and not isinstance(response, FileResponse):
            response.body = b""  # the length, already in the headers, stays that of the GET
        return response

    def _page(self) -> Response:
        try:
            body = (self._dist / PAGE_FILE).read_bytes()
            caching = "no-cache"
        except OSError:
            body = WAITING.format(failure=self._failure()).encode()
            caching = "no-store"
        return Response(body, media_type="text/html", headers={**SECURITY_HEADERS, "cache-control": caching})

    def _failure(self) -> str:
        try:
            sentence = (self._dist / FAILURE_FILE).read_text(encoding="utf-8")
        except OSError:
            return ""
        return FAILURE.format(sentence=html.escape(sentence))

    def _asset(self, name: str, request_headers: Mapping[str, str]) -> Response | None:
        plain = self._dist / ASSET_FOLDER / name
        media_type = MEDIA_TYPES.get(plain.suffix)
        if media_type is None or not plain.is_file():
            return None
        headers = {**SECURITY_HEADERS, "cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
        accepted = _accepted_encodings(request_headers.get("accept-encoding", ""))
        for encoding, suffix in ENCODINGS:
            variant = plain.with_name(name + suffix)
            if encoding in accepted and variant.is_file():
                return FileResponse(variant, media_type=media_type, headers={**headers, "content-encoding": encoding})
        return FileResponse(plain, media_type=media_type, headers=headers)


def _accepted_encodings(header: str) -> set[str]:
    """The content codings that an Accept-Encoding header names and does not refuse with a weight of zero (RFC 9110, 12.5.3)."""
    accepted = set()
    for part in header.lower().split(","):
        coding, _, weight = part.partition(";")
        if not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight):
            accepted.add(coding.strip())
    return accepted
