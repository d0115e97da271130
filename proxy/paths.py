"""The forms of a path that clients really build, and what they ask of an address before they use it."""

import re
from collections.abc import Awaitable, Callable

import msgspec

from models.ids import uuid7
from proxy.origins import Preflights
from proxy.requests import Receive, Scope, Send
from proxy.routes import COUNTS, PRESETS, ROADS

App = Callable[[Scope, Receive, Send], Awaitable[None]]

BASES = frozenset(f"{base}{rest}" for base in ("", *(f"/{slug}" for slug in PRESETS)) for rest in ("", "/v1", "/api/hello")) - {""}
"""What tools are given as their base URL, and what Claude Code asks below it to see whether anybody is there."""

_MODELS = re.compile(rf"(?:/(?:{'|'.join(PRESETS)}))?(?:/v1)*(/models(?:/.*)?)")
_KNOWN = frozenset(ROADS) | COUNTS | BASES


def plain(path: str) -> str:
    """Return the path that is meant: without a slash at the end, and for models without the tool's base URL; any other as it is."""
    stripped = path.rstrip("/")
    if stripped in _KNOWN:
        return stripped
    models = _MODELS.fullmatch(stripped)
    return f"/v1{models[1]}" if models else path


class Courteous:
    """Answers HEAD and OPTIONS in front of an application: nothing is told but that somebody is there, and nobody needs a key for that.

    With `preflights`, browsers are told whether pages of an origin may call.
    """

    def __init__(self, app: App, allow: str = "POST", preflights: Preflights | None = None) -> None:
        self._app = app
        self._method = allow.encode()
        self._allow = f"{allow}, HEAD, OPTIONS".encode()
        self._preflights = preflights

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] not in ("HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        headers = [(b"allow", self._allow), (b"x-request-id", str(uuid7()).encode())]
        status = 200 if scope["method"] == "HEAD" else 204
        if scope["method"] == "OPTIONS" and self._preflights is not None:
            answer = await self._preflights.answer(scope["headers"], self._method)
            if answer is not None:
                status, headers = answer[0], [*headers, *answer[1]]
        if status >= 400:
            headers.append((b"content-length", b"0"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer GET on a base URL: that this is a gateway, and where it is described; any other method is not answered there."""
    known = scope["method"] == "GET"
    told = {"service": "tallygate", "docs": "/docs"} if known else {"error": "This is a base URL; send POST to a path below it."}
    body = msgspec.json.encode(told)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"x-request-id", str(uuid7()).encode())]
    await send({"type": "http.response.start", "status": 200 if known else 405, "headers": headers if known else [*headers, (b"allow", b"GET, HEAD, OPTIONS")]})
    await send({"type": "http.response.body", "body": body})
