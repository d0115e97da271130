"""Our unmetered path: a bare ASGI application that passes a request on through our own upstream client, and nothing else.

`python -m bench.passthrough PORT UPSTREAM_URL`. No key, no admission, no meter, no settlement: what the real server costs beyond this is what
exact books cost.
"""

import sys

import uvicorn
import uvloop

from clients.upstream import Upstreams
from proxy.requests import Receive, Scope, Send

_HOPS = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding", b"keep-alive"})
LARGEST_BYTES = 64 * 1024 * 1024


class PassThrough:
    """Sends every request to one upstream, and its answer back as it comes."""

    def __init__(self, url: str, upstreams: Upstreams) -> None:
        self._url = url
        self._upstreams = upstreams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        headers = [field for field in scope["headers"] if field[0] not in _HOPS]
        async with self._upstreams.post(self._url + scope["path"], headers, b"".join(parts)) as response:
            given = response.headers
            streamed = any(name == b"transfer-encoding" for name, _ in given)
            kept = [field for field in given if field[0] not in _HOPS or (field[0] == b"content-length" and not streamed)]
            await send({"type": "http.response.start", "status": response.status, "headers": kept})
            if streamed:
                async for chunk in response:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "http.response.body", "body": await response.read(LARGEST_BYTES) or b""})


async def _serve(port: int, url: str) -> None:
    upstreams = Upstreams()
    config = uvicorn.Config(
        PassThrough(url, upstreams),
        host="127.0.0.1",
        port=port,
        lifespan="off",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        await upstreams.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
