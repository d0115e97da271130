"""Model providers, over HTTP: one session for the process, no cookies, no redirects, and a bound on every wait."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict

from domain.outside import before_calling

CONNECT_SECONDS = 10.0
FIRST_BYTE_SECONDS = 600.0
BETWEEN_BYTES_SECONDS = 300.0
LARGE_BODY_BYTES = 512 * 1024
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
"""What a provider that is away, slow or broken raises."""


@dataclass(slots=True)
class _Connection:
    """Whether a request went over a connection that had been idle: only then was a silent close likely before the request was read."""

    reused: bool = False


async def _reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.reused = True


class Upstreams:
    """Sends requests to providers; opened once for a process."""

    def __init__(self) -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_reused)
        self._session = aiohttp.ClientSession(
            trace_configs=[tracing],
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=0, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=BETWEEN_BYTES_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            raise_for_status=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )

    @contextlib.asynccontextmanager
    async def post(self, url: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its answer when the header has come; a kept connection that was stale is tried once more.

        Raises one of BROKEN. The answer's body is read from `content`; leaving the context closes what was not read.
        """
        before_calling("an upstream")
        fields = CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        connection = _Connection()
        try:
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                response = await self._post(url, fields, body, connection)
        except aiohttp.ServerDisconnectedError:
            if not connection.reused:
                raise  # a fresh connection that broke may have been served, and billed
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                response = await self._post(url, fields, body, _Connection())
        try:
            yield response
        finally:
            response.close()

    async def _post(self, url: str, headers: "CIMultiDict[str]", body: bytes, connection: "_Connection") -> aiohttp.ClientResponse:
        # aiohttp warns of a large bytes object: it would be written in one piece
        data = io.BytesIO(body) if len(body) > LARGE_BODY_BYTES else body
        return await self._session.post(url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=connection)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
