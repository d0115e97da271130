"""The JavaScript module for apps, as this very version has it: to be copied or bundled, at /client/tallygate.js."""

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

MODULE: Final = Path(__file__).resolve().parent.parent / "examples" / "chat" / "site" / "tallygate.js"


def routes() -> list[BaseRoute]:
    """Return the module's path. It is for downloading: a page loads its scripts from its own origin."""
    content = MODULE.read_bytes()
    fields = {
        "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "cache-control": "public, max-age=300",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
    }

    async def module(request: Request) -> Response:
        if request.headers.get("if-none-match") == fields["etag"]:
            return Response(status_code=304, headers=fields)
        return Response(content, media_type="text/javascript; charset=utf-8", headers=fields)

    return [Route("/client/tallygate.js", module)]
